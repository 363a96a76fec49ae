"""Search the colours of `segrt.palette.distinct_palette` (a minute), and print them.

The first 20 are the best set that a local search finds on a grid: the smallest CIEDE2000 difference
of any two, relative to `segrt.colour_distance.CLOSE` for normal, protan, deutan and tritan vision,
is as large as possible. They are ordered so that the first few differ most and are vivid. Each
further colour is the one that differs most from all before it.
"""

from __future__ import annotations

import textwrap

import numpy as np
from numpy.typing import NDArray

from segrt.colour_distance import CLOSE, VISIONS, differences, to_lab

BEST, ALL = 20, 256  # colours
STEP = 24  # of the grid
DARKEST, LIGHTEST = (
    30.0,
    92.0,
)  # L*: photos shine through darker colours, and vanish in lighter ones
DULLEST = 18.0  # chroma: photos have greys of their own
STARTS = 60  # of the local search
FIRST = (43, 120, 228)  # the first colour is the nearest to this: a clear blue

Floats = NDArray[np.float32]
Ints = NDArray[np.intp]


def grid() -> NDArray[np.int64]:
    """The candidates, RGB (N, 3)."""
    axis = np.append(np.arange(0, 255, STEP), 255)
    colours = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness, a, b = to_lab(colours).T
    usable = (lightness >= DARKEST) & (lightness <= LIGHTEST) & (np.hypot(a, b) >= DULLEST)
    return np.asarray(colours[usable], np.int64)


def relative_differences(colours: NDArray[np.int64]) -> Floats:
    """The difference of each two, relative to the wanted one, with the worst kind of vision."""
    kinds = (differences(colours, vision) / CLOSE[vision] for vision in VISIONS)
    worst = next(kinds)
    for kind in kinds:
        worst = np.minimum(worst, kind)
    np.fill_diagonal(worst, np.inf)
    return worst.astype(np.float32)


def extended(chosen: list[int], size: int, apart: Floats, noise: Floats | float = 0) -> list[int]:
    """Add the colours that differ most from all before them."""
    nearest = apart[chosen].min(axis=0)
    nearest[chosen] = -1
    chosen = list(chosen)
    while len(chosen) < size:
        chosen.append(int(np.argmax(nearest + noise)))
        nearest = np.minimum(nearest, apart[chosen[-1]])
        nearest[chosen] = -1
    return chosen


def improved(chosen: Ints, apart: Floats) -> Ints:
    """Replace one colour of the nearest two, alone or together with a third, while that helps."""
    while True:
        inside = apart[np.ix_(chosen, chosen)]
        worst, near = inside.min(), np.unravel_index(inside.argmin(), inside.shape)
        for one, other in ((k, k2) for k2 in (None, *range(BEST)) for k in near):
            replaced = [int(one)] if other is None else [int(one), other]
            if len(set(replaced)) < len(replaced):
                continue
            others = np.delete(chosen, replaced)
            free = apart[others].min(axis=0)
            free[others] = -1
            best = np.argsort(-free, kind="stable")[:60]
            best = best[free[best] > worst + 1e-6]
            if other is None and len(best):
                chosen[replaced] = best[:1]
                break
            pairs = np.minimum(apart[np.ix_(best, best)], np.minimum.outer(free[best], free[best]))
            np.fill_diagonal(pairs, -1)
            if other is not None and pairs.size and pairs.max() > worst + 1e-6:
                chosen[replaced] = best[list(np.unravel_index(pairs.argmax(), pairs.shape))]
                break
        else:
            return chosen


def main() -> None:
    """Search, and print hexadecimal colours and what they reach."""
    colours = grid()
    apart = relative_differences(colours)
    rng = np.random.default_rng(0)
    found: list[Ints] = []
    for _ in range(STARTS):
        start = [int(rng.integers(len(colours)))]
        noise = (rng.random(len(colours)) * 0.05).astype(np.float32)
        found.append(improved(np.array(extended(start, BEST, apart, noise)), apart))
    best = max(found, key=lambda chosen: float(apart[np.ix_(chosen, chosen)].min()))
    inside = apart[np.ix_(best, best)]
    first = int(((colours[best] - FIRST) ** 2).sum(axis=1).argmin())
    vivid = (np.hypot(*to_lab(colours[best]).T[1:]) / 100).astype(np.float32)
    order = best[extended([first], BEST, inside, vivid)]
    everything = colours[extended(order.tolist(), ALL, apart)]
    for size in (BEST, ALL):
        reached = [differences(everything[:size], vision) for vision in VISIONS]
        least = [f"{d[np.triu_indices(size, 1)].min():.1f}" for d in reached]
        print(size, "colours:", ", ".join(map(" ".join, zip(VISIONS, least, strict=True))))
    text = " ".join(f"{r:02x}{g:02x}{b:02x}" for r, g, b in everything.tolist())
    print(textwrap.fill(text, 92))


if __name__ == "__main__":
    main()
