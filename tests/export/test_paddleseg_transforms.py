"""Preprocessing of a `deploy.yaml` compared with PaddleSeg's own code, and the labels' way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segrt.errors import InputError, ModelError
from segrt.metadata import ModelMeta
from segrt.model_configs.paddle import from_mapping
from segrt.postprocess import finish, to_source
from segrt.preprocess import Layout, Padding, PaddingByAspectRatio, Transforms

paddleseg = pytest.importorskip("paddleseg.transforms", reason="needs the export extra")

Entry: TypeAlias = dict[str, Any]

TOLERANCE = 1e-5
"""Largest difference from PaddleSeg, relative to the largest value of the batch, or to 1.

PaddleSeg may interpolate normalised values, and segrt normalises interpolated ones. In exact
arithmetic these are the same; in float32 they differ in the last bits of a pixel value, and the
division by std amplifies that. The largest difference in 6000 examples was 7.4e-7.
"""
PADDINGS = (Padding, PaddingByAspectRatio)

sides = st.integers(1, 97)
targets = st.integers(1, 130)
pixel_values = st.integers(0, 255) | st.floats(-3, 300)


def one_of_type(kind: str, required: Entry, **optional: st.SearchStrategy[Any]) -> Any:
    return st.fixed_dictionaries({"type": st.just(kind)} | required, optional=optional)


def limits(kind: str, side: str) -> st.SearchStrategy[Entry]:
    """LimitLong or LimitShort, with either limit, both or none."""

    def ordered(least: int | None, most: int | None) -> Entry:
        if least and most:
            least, most = sorted((least, most))
        return {"type": kind, f"min_{side}": least, f"max_{side}": most}

    return st.builds(ordered, st.none() | targets, st.none() | targets)


resizes = st.one_of(
    one_of_type(
        "Resize",
        {},
        target_size=st.lists(targets, min_size=2, max_size=2),
        keep_ratio=st.booleans(),
        size_divisor=st.none() | st.integers(0, 33),
        interp=st.sampled_from(sorted(paddleseg.Resize.interp_dict)),
    ),
    one_of_type("ResizeByLong", {"long_size": targets}),
    one_of_type("ResizeByShort", {"short_size": targets}, max_size=targets),
    limits("LimitLong", "long"),
    targets.map(lambda n: {"type": "ResizeRangeScaling", "min_value": n, "max_value": n}),
)
# PaddleSeg has these only in its matting project, which is not in the package.
of_matting = st.one_of(
    limits("LimitShort", "short"),
    one_of_type("ResizeToMultiple", {}, size_divisor=st.integers(1, 40)),
)
paddings = st.one_of(
    one_of_type(
        "Padding",
        {"target_size": st.lists(st.integers(1, 200), min_size=2, max_size=2)},
        im_padding_value=pixel_values,
        label_padding_value=st.integers(0, 255),
    ),
    one_of_type(
        "PaddingByAspectRatio",
        {},
        aspect_ratio=st.integers(1, 4) | st.floats(0.25, 4),
        im_padding_value=pixel_values,
    ),
)
triples = {
    "mean": st.lists(st.floats(-1, 1), min_size=1, max_size=1)
    | st.lists(st.floats(-1, 1), min_size=3, max_size=3),
    "std": st.lists(st.floats(0.05, 2), min_size=1, max_size=1)
    | st.lists(st.floats(0.05, 2), min_size=3, max_size=3),
}
normalizes = one_of_type("Normalize", {}, **triples)


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    """`Deploy: transforms:` with one to three steps, and Normalize somewhere or nowhere."""
    found = draw(st.lists(resizes | paddings, min_size=1, max_size=3))
    if draw(st.integers(0, 5)):
        found.insert(draw(st.integers(0, len(found))), draw(normalizes))
    return found


def parsed(transforms: list[Entry]) -> Transforms:
    """Read the entries as those of a `deploy.yaml`."""
    data = {"Deploy": {"transforms": transforms}}
    values = from_mapping(data, Path("deploy.yaml"), paddleseg=True).values
    assert values["resize_in"] == "float32"
    return Transforms.parse(values["transforms"], resize_in=values["resize_in"])


def paddles(transforms: list[Entry]) -> Any:
    """The same entries in PaddleSeg; ResizeByShort keeps a state, so each image needs its own."""
    built = [dict(entry) for entry in transforms]
    return paddleseg.Compose([getattr(paddleseg, e.pop("type"))(**e) for e in built])


def small(layout: Layout, pixels: int) -> bool:
    return all(height * width <= pixels for _, (height, width) in layout.steps)


def trace(layout: Layout) -> list[tuple[str, tuple[int, int]]]:
    """`trans_info` of PaddleSeg: each step with the (height, width) before it."""
    before, found = layout.source, []
    for step, after in layout.steps:
        found.append(("padding" if isinstance(step, PADDINGS) else "resize", before))
        before = after
    return found


def undone(labels: NDArray[Any], info: list[tuple[str, tuple[int, int]]]) -> NDArray[Any]:
    """PaddleSeg's `reverse_transform`, with OpenCV's nearest neighbour."""
    for kind, (height, width) in reversed(info):
        if kind == "padding":
            labels = labels[:height, :width]
        else:
            labels = cv2.resize(
                np.ascontiguousarray(labels), (width, height), interpolation=cv2.INTER_NEAREST
            )
    return labels


@settings(max_examples=200, deadline=None)
@given(entries(), st.tuples(sides, sides), st.integers(0, 2**32 - 1))
def test_a_batch_is_that_of_paddleseg(
    transforms: list[Entry], source: tuple[int, int], seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*source, 3), np.uint8)
    own = parsed(transforms)
    try:
        layout = own.layout(source)
    except InputError:
        event("refused")
        # segrt refuses what PaddleSeg refuses: a Padding smaller than the image. It may meet one
        # after a side that PaddleSeg can't resize to 0.
        with pytest.raises((ValueError, cv2.error)):
            paddles(transforms)({"img": image.astype(np.float32)})
        return
    assume(small(layout, 300_000))
    batch = own.batch([own.fit(image, layout)])
    assert batch.dtype == np.float32
    assert batch.shape == (1, 3, *layout.size)
    assert np.isfinite(batch).all()
    try:
        data = paddles(transforms)({"img": image.astype(np.float32)})
    except cv2.error:  # a side resized to 0: segrt keeps a pixel
        event("side of 0")
        resized = [size for step, size in layout.steps if not isinstance(step, PADDINGS)]
        divisors = [entry.get("size_divisor") or 1 for entry in transforms]
        assert any(min(size) in (1, *divisors) for size in [source, *resized])
        return
    want = data["img"]
    event("normalised" if any(e["type"] == "Normalize" for e in transforms) else "not normalised")
    assert want.shape == batch.shape[1:]
    np.testing.assert_allclose(
        batch[0], want, rtol=0, atol=TOLERANCE * max(1, float(np.abs(want).max()))
    )
    if all(entry["type"] != "ResizeRangeScaling" for entry in transforms):  # it leaves no trace
        sizes = [*(tuple(size) for _, size in data["trans_info"]), want.shape[1:]]
        changed = [
            (kind, before)
            for (kind, before), after in zip(data["trans_info"], sizes[1:], strict=True)
            if before != after
        ]
        assert trace(layout) == changed


@pytest.mark.parametrize(
    "entry", [{"type": "Resize", "interp": "RANDOM"}, {"type": "ResizeRangeScaling"}]
)
def test_random_sizes_and_interpolations_are_refused(entry: Entry) -> None:
    with pytest.raises(ModelError):
        parsed([entry])


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """The layout of any mix of steps that fits its image."""
    found = draw(st.lists(resizes | paddings | of_matting, min_size=1, max_size=4))
    own, source = parsed(found), draw(st.tuples(sides, sides))
    try:
        layout = own.layout(source)
    except InputError:
        assume(False)
    assume(small(layout, 60_000))
    return layout


@settings(max_examples=200, deadline=None)
@given(layouts(), st.integers(0, 2**32 - 1))
def test_labels_go_back_step_by_step(layout: Layout, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 1000, layout.size, np.int32)
    np.testing.assert_array_equal(to_source(labels, layout), undone(labels, trace(layout)))


def bilinear(low: int, full: int) -> NDArray[np.float64]:
    """Weights (full, low) of half-pixel bilinear upsampling."""
    position = np.clip((np.arange(full) + 0.5) * low / full - 0.5, 0, low - 1)
    first = np.minimum(position.astype(int), max(low - 2, 0))
    weights = np.zeros((full, low))
    weights[np.arange(full), first] = 1 - (position - first)
    if low > 1:
        weights[np.arange(full), first + 1] = position - first
    return weights


@settings(max_examples=200, deadline=None)
@given(
    layouts(),
    st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20)),
    st.integers(0, 2**32 - 1),
)
def test_labels_are_those_of_upsampled_logits(
    layout: Layout, shape: tuple[int, int, int], seed: int
) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, shape).astype(np.float32)
    height, width = layout.size
    rows, columns = bilinear(shape[1], height), bilinear(shape[2], width)
    full = (rows @ logits.astype(np.float64) @ columns.T).reshape(len(logits), -1)
    pixels = undone(np.arange(height * width, dtype=np.int32).reshape(height, width), trace(layout))
    values = full[:, pixels]

    labels, scores = finish(logits, ModelMeta(name="m"), layout)

    assert scores is None
    assert labels.dtype == np.int32
    assert labels.shape == layout.source
    # Where the labels differ, two classes are tied within the rounding of float32.
    chosen = np.take_along_axis(values, labels[None], 0)[0]
    assert (values.max(0) - chosen).max() < 1e-5
    different = labels != values.argmax(0)
    if different.any():
        event("ties")
        assert different.sum() <= max(1, 0.001 * different.size)
