from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference import nearest, upsample

from segrt import postprocess
from segrt.errors import ModelError
from segrt.postprocess import Upsampled, labels_from_logits, nearest_pixels, resize_labels

Size = tuple[int, int]
MakeLogits = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float32]]

TOLERANCE = 1e-6  # relative to the largest logit: closer classes may swap ranks in float32

many = settings(max_examples=150, deadline=None)
sides = st.integers(1, 9)
full_sides = st.integers(1, 60)
class_counts = st.sampled_from([1, 2, 3, 5, 11, 19, 150, 300])
seeds = st.integers(0, 2**32 - 1)


def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return rng.standard_normal(shape).astype(np.float32)


def smooth(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Large regions with a clear winner, as in photographs."""
    values = 9 * noise(rng, shape)
    return np.stack(
        [[cv2.GaussianBlur(c, (0, 0), 3).reshape(c.shape) for c in image] for image in values]
    )


def alternating(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A class that wins at no corner but in the middle of many cells."""
    values = noise(rng, shape) * 0.01
    checkers = np.indices(shape[2:]).sum(0) % 2
    values[:, 0] += 1 - 2 * checkers
    values[:, 1 % shape[1]] += 2 * checkers - 1
    values[:, -1] += 0.05
    return values


def uneven(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Magnitudes from 1e-30 to 1e30."""
    return (noise(rng, shape) * 10.0 ** rng.integers(-30, 31, (shape[0], shape[1], 1, 1))).astype(
        np.float32
    )


def shifted(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Small differences on top of a large common value."""
    return noise(rng, shape) + 1000


def constant(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.full(shape, rng.standard_normal(), np.float32)


def integers(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return rng.integers(-2, 3, shape).astype(np.float32)


kinds = st.sampled_from([noise, smooth, alternating, uneven, shifted, constant, integers])


def check(
    labels: NDArray[np.int32],
    logits: NDArray[Any],
    size: Size,
    source_size: Size,
    align_corners: bool,
) -> None:
    """Compare with the reference, except where the best two classes are almost equal."""
    up = upsample(logits, size, align_corners)
    expected = nearest(up.argmax(1), source_size)
    assert labels.dtype == np.int32
    assert labels.shape == expected.shape
    if logits.shape[1] == 1:
        assert not labels.any()
        return
    # NaN sorts last, i.e. as the largest value.
    second, best = np.moveaxis(np.sort(up, axis=1)[:, -2:], 1, 0)
    largest = np.abs(logits, where=np.isfinite(logits), out=np.zeros_like(logits)).max()
    with np.errstate(invalid="ignore"):
        near_tie = np.isfinite(best) & (best - second < TOLERANCE * largest)
    near_tie = nearest(near_tie, source_size)
    np.testing.assert_array_equal(labels[~near_tie], expected[~near_tie])
    # In a near-tie, any of the tied classes may win, but no other.
    with np.errstate(invalid="ignore"):
        lag = nearest(up.max(1, keepdims=True) - up, source_size)
    chosen = np.take_along_axis(lag, labels[:, None].astype(np.intp), axis=1)[:, 0]
    assert (chosen[near_tie] <= TOLERANCE * largest).all()


@many
@given(kinds, seeds, class_counts, sides, sides, st.tuples(full_sides, full_sides), st.booleans())
def test_labels_equal_the_reference(
    kind: MakeLogits, seed: int, classes: int, h: int, w: int, size: Size, align_corners: bool
) -> None:
    logits = kind(np.random.default_rng(seed), (1, classes, h, w))
    labels, scores = labels_from_logits(logits, size, align_corners=align_corners)
    assert scores is None
    check(labels, logits, size, size, align_corners)


@many
@given(
    kinds,
    seeds,
    st.sampled_from([1, 3, 11]),
    sides,
    sides,
    st.tuples(full_sides, full_sides),
    st.booleans(),
)
def test_labels_at_the_source_size(
    kind: MakeLogits,
    seed: int,
    classes: int,
    h: int,
    w: int,
    source_size: Size,
    align_corners: bool,
) -> None:
    size = (8 * h - 3, 4 * w + 1)
    logits = kind(np.random.default_rng(seed), (2, classes, h, w))
    labels, _ = labels_from_logits(logits, size, source_size, align_corners=align_corners)
    check(labels, logits, size, source_size, align_corners)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((1, 11, 45, 60), (360, 480)),
        ((1, 19, 64, 128), (64, 128)),
        ((1, 19, 65, 129), (33, 57)),
        ((1, 150, 16, 32), (128, 256)),
        ((1, 4, 47, 63), (375, 500)),
        ((1, 3, 2, 2), (300, 400)),
    ],
)
@pytest.mark.parametrize("kind", [noise, smooth])
@pytest.mark.parametrize("align_corners", [False, True])
def test_common_sizes(
    shape: tuple[int, ...], size: Size, kind: MakeLogits, align_corners: bool
) -> None:
    logits = kind(np.random.default_rng(0), shape)
    labels, _ = labels_from_logits(logits, size, align_corners=align_corners)
    check(labels, logits, size, size, align_corners)


@many
@given(
    seeds,
    class_counts,
    sides,
    sides,
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 3),
    st.booleans(),
)
def test_ties_go_to_the_lowest_class(
    seed: int, classes: int, h: int, w: int, scale: int, spread: int, align_corners: bool
) -> None:
    """Small integers and weights that are multiples of 1/16 are exact, so no label may differ."""
    logits = (
        np.random.default_rng(seed).integers(-spread, spread, (1, classes, h, w)).astype(np.float32)
    )
    size = ((h - 1) * scale + 1, (w - 1) * scale + 1) if align_corners else (h * scale, w * scale)
    labels, _ = labels_from_logits(logits, size, align_corners=align_corners)
    np.testing.assert_array_equal(labels, upsample(logits, size, align_corners).argmax(1))


@given(class_counts, full_sides, full_sides, st.booleans())
@settings(deadline=None)
def test_constant_logits_are_class_0(
    classes: int, height: int, width: int, align_corners: bool
) -> None:
    logits = np.full((1, classes, 4, 5), 0.1, np.float32)
    labels, _ = labels_from_logits(logits, (height, width), align_corners=align_corners)
    assert not labels.any()


@many
@given(
    seeds,
    st.sampled_from([1, 2, 11, 150]),
    sides,
    sides,
    full_sides,
    full_sides,
    st.booleans(),
    st.data(),
)
def test_non_finite_logits(
    seed: int,
    classes: int,
    h: int,
    w: int,
    height: int,
    width: int,
    align_corners: bool,
    data: st.DataObject,
) -> None:
    rng = np.random.default_rng(seed)
    logits = noise(rng, (1, classes, h, w))
    odd = data.draw(
        st.sampled_from([[np.nan], [np.inf], [-np.inf], [np.nan, np.inf, -np.inf], [3e38, -3e38]])
    )
    where = rng.random(logits.shape) < data.draw(st.sampled_from([0.05, 0.5, 1]))
    logits[where] = rng.choice(odd, where.sum())
    labels, _ = labels_from_logits(logits, (height, width), align_corners=align_corners)
    assert labels.min() >= 0
    assert labels.max() < classes
    check(labels, logits, (height, width), (height, width), align_corners)


def test_class_masked_with_minus_infinity_never_wins() -> None:
    logits = noise(np.random.default_rng(0), (1, 5, 6, 7))
    logits[:, 2] = -np.inf
    labels, scores = labels_from_logits(logits, (48, 56), with_scores=True)
    kept, kept_scores = labels_from_logits(np.delete(logits, 2, axis=1), (48, 56), with_scores=True)
    np.testing.assert_array_equal(labels, np.array([0, 1, 3, 4])[kept])
    assert scores is not None
    assert kept_scores is not None
    np.testing.assert_allclose(scores, kept_scores, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(seeds, class_counts, sides, sides, st.tuples(full_sides, full_sides), st.booleans())
def test_scores_are_the_highest_softmax_probability(
    seed: int, classes: int, h: int, w: int, source_size: Size, align_corners: bool
) -> None:
    size = (4 * h + 1, 8 * w)
    logits = 5 * noise(np.random.default_rng(seed), (2, classes, h, w))
    labels, scores = labels_from_logits(
        logits, size, source_size, align_corners=align_corners, with_scores=True
    )
    up = upsample(logits, size, align_corners)
    odds = np.exp(up - up.max(1, keepdims=True))
    assert scores is not None
    assert scores.dtype == np.float32
    assert (scores > 0).all()
    assert (scores <= 1).all()
    np.testing.assert_allclose(scores, nearest(1 / odds.sum(1), source_size), rtol=3e-5)
    plain, _ = labels_from_logits(logits, size, source_size, align_corners=align_corners)
    np.testing.assert_array_equal(labels, plain)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((2, 11, 9, 12), (72, 96)), ((1, 5, 7, 10), (51, 77)), ((1, 4, 20, 30), (11, 13))],
)
def test_labels_equal_onnx_resize_and_argmax(
    shape: tuple[int, ...], size: Size, align_corners: bool
) -> None:
    helper = pytest.importorskip("onnx.helper")
    ort = pytest.importorskip("onnxruntime")
    sizes = helper.make_tensor("sizes", 7, [4], [*shape[:2], *size])  # 7 is int64, 1 is float32
    mode = "align_corners" if align_corners else "half_pixel"
    nodes = [
        helper.make_node(
            "Resize",
            ["x", "", "", "sizes"],
            ["up"],
            mode="linear",
            coordinate_transformation_mode=mode,
        ),
        helper.make_node("ArgMax", ["up"], ["labels"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "tail",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("labels", 7, None)],
        [sizes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits = smooth(np.random.default_rng(1), shape)
    from_onnx = session.run(None, {"x": logits})[0].astype(np.int32)
    ours, _ = labels_from_logits(logits, size, align_corners=align_corners)
    check(from_onnx, logits, size, size, align_corners)  # the reference describes the operator
    assert (ours == from_onnx).mean() > 0.999


def test_nearest_equals_opencv_at_every_size() -> None:
    for full in [*range(1, 66), 97, 333, 720, 1000, 1025]:
        line = np.arange(full, dtype=np.int32)
        for pixels in [*range(1, 100), 333, 500, 719, 1080, 2049]:
            from_opencv = cv2.resize(line[:, None], (1, pixels), interpolation=cv2.INTER_NEAREST)
            np.testing.assert_array_equal(
                nearest_pixels(full, pixels), from_opencv.ravel(), err_msg=f"{full} -> {pixels}"
            )


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8])
def test_logits_of_other_types(dtype: type[np.generic]) -> None:
    logits = (10 * noise(np.random.default_rng(0), (1, 6, 5, 4))).astype(dtype)
    labels, _ = labels_from_logits(logits, (40, 32))
    check(labels, logits.astype(np.float32), (40, 32), (40, 32), False)


def test_non_contiguous_logits() -> None:
    logits = noise(np.random.default_rng(0), (2, 5, 4, 6)).transpose(0, 2, 3, 1)
    labels, _ = labels_from_logits(logits, (40, 48))
    check(labels, logits, (40, 48), (40, 48), False)


def test_thread_safety() -> None:
    logits = [smooth(np.random.default_rng(i), (1, 11, 30, 40)) for i in range(8)]
    alone = [labels_from_logits(one, (240, 320))[0] for one in logits]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda one: labels_from_logits(one, (240, 320))[0], logits * 4))
    for i, labels in enumerate(together):
        np.testing.assert_array_equal(labels, alone[i % 8])


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 0, 4, 4), (0, 3, 4, 4)])
def test_wrong_shapes_of_logits_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"expected logits of shape \(N, C, h, w\)"):
        labels_from_logits(np.zeros(shape, np.float32), (8, 8))


@pytest.mark.parametrize(("size", "source_size"), [((0, 8), None), ((8, 8), (8, -1))])
def test_sizes_must_be_positive(size: Size, source_size: Size | None) -> None:
    with pytest.raises(ValueError, match="positive"):
        labels_from_logits(np.zeros((1, 2, 3, 4), np.float32), size, source_size)


@given(
    seeds,
    st.sampled_from([np.uint8, np.int32, np.int64]),
    full_sides,
    full_sides,
    st.tuples(full_sides, full_sides),
)
@settings(deadline=None)
def test_resize_labels(
    seed: int, dtype: type[np.generic], height: int, width: int, source_size: Size
) -> None:
    labels = np.random.default_rng(seed).integers(0, 150, (2, height, width)).astype(dtype)
    resized = resize_labels(labels, source_size)
    assert resized.dtype == np.int32
    np.testing.assert_array_equal(resized, nearest(labels, source_size))


@pytest.mark.parametrize(
    "labels", [np.zeros((4, 4), int), np.zeros((1, 4, 4), np.float32), np.zeros((0, 4, 4), int)]
)
def test_wrong_kinds_of_labels_are_rejected(labels: NDArray[Any]) -> None:
    with pytest.raises(ModelError, match="expected integer labels"):
        resize_labels(labels, (8, 8))


@many
@given(st.data(), sides, sides, class_counts, st.booleans(), seeds)
def test_regions_of_the_upsampled_logits_while_forgetting_rows_above(
    data: st.DataObject, h: int, w: int, classes: int, align_corners: bool, seed: int
) -> None:
    size = data.draw(st.integers(h, 40)), data.draw(st.integers(w, 40))
    logits = noise(np.random.default_rng(seed), (classes, h, w))
    expected = upsample(logits[None], size, align_corners)[0]
    upsampled = Upsampled(logits, size, align_corners=align_corners)
    top = 0
    while top < size[0]:
        bottom, left = (
            data.draw(st.integers(top + 1, size[0])),
            data.draw(st.integers(0, size[1] - 1)),
        )
        columns = slice(left, data.draw(st.integers(left + 1, size[1])))
        part = np.stack(list(upsampled.rows(slice(top, bottom), columns)), axis=1)
        np.testing.assert_allclose(part, expected[:, top:bottom, columns], atol=1e-4)
        top = bottom
        if top < size[0]:
            upsampled.forget(top)


@many
@given(kinds, seeds, class_counts, sides, sides, st.tuples(full_sides, full_sides), st.booleans())
def test_numpy_and_the_compiled_loop_give_the_same_labels(
    kind: MakeLogits, seed: int, classes: int, h: int, w: int, size: Size, align_corners: bool
) -> None:
    [low] = kind(np.random.default_rng(seed), (1, classes, h, w))
    rows, cols = (
        postprocess._axis(low_side, side, side, align_corners)
        for low_side, side in zip((h, w), size, strict=True)
    )
    np.testing.assert_array_equal(
        postprocess._array_labels(low, rows, cols), postprocess._loop_labels(low, rows, cols)
    )


def test_the_loop_is_loaded_once_numpy_has_taken_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = Event()
    monkeypatch.setattr(postprocess, "_loop_is_ready", Event())
    monkeypatch.setattr(postprocess, "_spent", [])
    monkeypatch.setattr(postprocess, "load_loop", loaded.set)
    postprocess._count_towards_loading(postprocess._PATIENCE * 0.9)
    assert not loaded.wait(0.05)
    postprocess._count_towards_loading(postprocess._PATIENCE * 0.2)
    assert loaded.wait(10)
