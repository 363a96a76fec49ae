from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import Net, images, run
from hypothesis import given, settings
from hypothesis import strategies as st

from segrt_export.count import multiply_adds
from segrt_export.passes.kernel_before_resize import kernel_before_resize

MODES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


def _head(
    net: Net,
    maps: list[int],
    *,
    size: int = 3,
    mode: str = "half_pixel",
    channels: int = 96,
    **options: Any,
) -> str:
    """Add maps at these strides, upsampled, concatenated with the input and convolved."""
    inputs, total = ["x"], 3
    for stride in maps:
        low = net.add(
            "AveragePool", "x", kernel_shape=[stride] * 2, strides=[stride] * 2, ceil_mode=1
        )
        low = net.conv(low, 3, channels)
        up = net.sizes("x", channels)
        inputs.append(
            net.add("Resize", low, "", "", up, mode="linear", coordinate_transformation_mode=mode)
        )
        total += channels
    concat = net.add("Concat", *inputs, axis=1)
    options = {"kernel_shape": [size] * 2, "pads": [size // 2] * 4, **options}
    return net.add("Relu", net.conv(concat, total, 9, **options))


@settings(deadline=None, max_examples=30)
@given(
    strides=st.lists(st.sampled_from([16, 24, 32]), min_size=1, max_size=3),
    size=st.sampled_from([3, 5]),
    bias=st.booleans(),
    mode=st.sampled_from(MODES),
    shape=st.tuples(st.integers(1, 2), st.integers(5, 80), st.integers(5, 80)),
    seed=st.integers(0, 1000),
)
def test_same_result_with_fewer_multiply_adds(
    strides: list[int], size: int, bias: bool, mode: str, shape: tuple[int, int, int], seed: int
) -> None:
    net = Net(seed)
    model = net.model(_head(net, strides, size=size, bias=bias, mode=mode, channels=600))
    x = images(*shape)
    expected, work = run(model, x)[0], multiply_adds(model)
    assert kernel_before_resize(model) == 1
    assert multiply_adds(model) < work
    scale = np.abs(expected).max()
    np.testing.assert_allclose(run(model, x)[0] / scale, expected / scale, atol=1e-5)


def test_an_input_upsampled_by_little_is_kept() -> None:
    net = Net()
    model = net.model(_head(net, [2, 32]))
    x = images(1, 40, 64)
    expected = run(model, x)[0]
    assert kernel_before_resize(model) == 1
    resized = [n for n in model.graph.node if n.op_type == "Concat" and n.input[0] == "x"]
    assert len(resized) == 1
    np.testing.assert_allclose(run(model, x)[0], expected, atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"size": 1},
        {"pads": [0, 0, 0, 0]},
        {"strides": [2, 2]},
        {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
        {"group": 3},
        {"mode": "tf_crop_and_resize"},
        {"maps": [2]},
    ],
)
def test_other_graphs_are_unchanged(options: dict[str, Any]) -> None:
    net = Net()
    model = net.model(_head(net, **{"maps": [32], **options}))
    before = model.SerializeToString()
    assert kernel_before_resize(model) == 0
    assert model.SerializeToString() == before
