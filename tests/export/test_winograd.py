from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import Floats, Net, images, kinds, run
from hypothesis import given, settings
from hypothesis import strategies as st

from segrt_export.count import multiply_adds
from segrt_export.passes.half_weights import half_weights
from segrt_export.passes.winograd import POINTS, transforms, winograd

CHANNELS = 192  # enough for the saved products to outweigh the moved tiles


def _convolution(
    net: Net, x: str, channels: int, out: int, dilation: int = 1, **options: Any
) -> str:
    plain = {"kernel_shape": [3, 3], "pads": [dilation] * 4, "dilations": [dilation] * 2}
    return net.conv(x, channels, out, **{**plain, **options})


def _relative(ours: Floats, expected: Floats) -> float:
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("m", POINTS)
def test_transforms_compute_the_convolution(m: int) -> None:
    random = np.random.default_rng(m)
    taps, line = random.standard_normal(3), random.standard_normal(m + 2)
    outputs, kernel, inputs = transforms(m)
    expected = np.correlate(line, taps, mode="valid")
    np.testing.assert_allclose(outputs @ ((kernel @ taps) * (inputs @ line)), expected, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    more=st.integers(0, 5),
    dilation=st.sampled_from([1, 2, 3, 4, 8, 12, 24]),
    stride=st.sampled_from([4, 8, 16]),
    bias=st.booleans(),
    relu=st.booleans(),
    shared=st.booleans(),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 150), st.integers(1, 150)),
    seed=st.integers(0, 1000),
)
def test_same_result_with_fewer_multiply_adds(
    more: int,
    dilation: int,
    stride: int,
    bias: bool,
    relu: bool,
    shared: bool,
    shape: tuple[int, int, int],
    seed: int,
) -> None:
    net = Net(seed)
    small = net.add(
        "AveragePool", "x", kernel_shape=[stride] * 2, strides=[stride] * 2, ceil_mode=1
    )
    wide = net.conv(small, 3, CHANNELS)
    y = _convolution(net, wide, CHANNELS, CHANNELS + more, dilation, bias=bias)
    model = net.model(net.add("Relu", y) if relu else y, *[net.add("Neg", wide)] * shared)
    x = images(*shape)
    expected, work = run(model, x)[0], multiply_adds(model)
    done = winograd(model)
    assert done == int(multiply_adds(model) < work)
    assert done or dilation > 1
    ours = run(model, x)[0]
    assert ours.shape == expected.shape
    if expected.any():
        assert _relative(ours, expected) < 3e-5


def test_convolutions_over_maps_of_one_size_share_tile_indices() -> None:
    net = Net()
    first = net.add("Relu", _convolution(net, net.conv("x", 3, CHANNELS), CHANNELS, CHANNELS))
    second = _convolution(net, first, CHANNELS, CHANNELS)
    smaller = net.add("MaxPool", second, kernel_shape=[2, 2], strides=[2, 2])
    model = net.model(
        second,
        _convolution(net, smaller, CHANNELS, CHANNELS),
        _convolution(net, first, CHANNELS, CHANNELS, 2),
    )
    x = images(2, 18, 23)
    expected = run(model, x)
    assert winograd(model) == 4
    assert kinds(model).count("Where") == 3
    for ours, theirs in zip(run(model, x), expected, strict=True):
        assert _relative(ours, theirs) < 3e-5


def test_weights_stored_as_float16_are_rewritten() -> None:
    net = Net()
    model = net.model(_convolution(net, net.conv("x", 3, CHANNELS), CHANNELS, CHANNELS))
    assert half_weights(model) == 1
    x = images(1, 10, 12)
    expected = run(model, x)[0]
    assert winograd(model) == 1
    assert _relative(run(model, x)[0], expected) < 3e-5


def test_a_result_with_other_readers_is_kept() -> None:
    net = Net()
    y = _convolution(net, net.conv("x", 3, CHANNELS), CHANNELS, CHANNELS)
    model = net.model(net.add("Relu", y), y)
    x = images(1, 9, 9)
    expected = run(model, x)
    assert winograd(model) == 1
    for ours, theirs in zip(run(model, x), expected, strict=True):
        assert _relative(ours, theirs) < 3e-5


@pytest.mark.parametrize(
    "options",
    [
        {"channels": 24},
        {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]},
        {"kernel_shape": [3, 1], "pads": [1, 0, 1, 0]},
        {"strides": [2, 2]},
        {"pads": [0, 0, 0, 0]},
        {"pads": [1, 1, 2, 2]},
        {"dilations": [1, 2], "pads": [1, 2, 1, 2]},
        {"auto_pad": "VALID", "pads": [0, 0, 0, 0]},
        {"group": 3},
        {"dilation": 400},
    ],
)
def test_other_convolutions_are_unchanged(options: dict[str, Any]) -> None:
    net = Net()
    options = {"channels": CHANNELS, **options}
    model = net.model(
        _convolution(net, net.conv("x", 3, options["channels"]), out=CHANNELS, **options)
    )
    before = model.SerializeToString()
    assert winograd(model) == 0
    assert model.SerializeToString() == before
