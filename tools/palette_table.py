"""Print the table of docs/results-and-formats.md: how different the colours of each palette are."""

from collections.abc import Iterator

from segrt import zoo
from segrt.colour_distance import VISIONS, smallest_difference
from segrt.palette import Palette, distinct_palette, parse_palette, voc_palette


def palettes() -> Iterator[tuple[str, Palette]]:
    """Name and colours of each row."""
    for size in (11, 20, 50, 150):
        yield "`distinct`", distinct_palette(size)
    for dataset in zoo.load().datasets:
        yield f"`{dataset.name}`", parse_palette(dataset.name)
    for size in (11, 20, 150):
        yield "`voc`", voc_palette(size)


def table() -> Iterator[str]:
    """The lines of the table."""
    yield f"| palette | colours | {' | '.join(VISIONS)} |"
    yield f"|---|{'---:|' * (1 + len(VISIONS))}"
    for name, colours in palettes():
        least = (f"{smallest_difference(colours, vision):.1f}" for vision in VISIONS)
        yield f"| {name} | {len(colours)} | {' | '.join(least)} |"


if __name__ == "__main__":
    print("\n".join(table()))
