from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import Net, images, kinds, run
from hypothesis import given, settings
from hypothesis import strategies as st

from segrt_export.count import multiply_adds
from segrt_export.passes.conv_before_resize import conv_before_resize

MODES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


def _half(net: Net, x: str) -> str:
    return net.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])


def _linear(net: Net, x: str, channels: int, out: int, *, bias: bool) -> str:
    """A linear layer on tokens, as the converter writes it."""
    flat = net.add("Reshape", x, net.const([0, 0, -1], np.int64))
    tokens = net.add(
        "MatMul", net.add("Transpose", flat, perm=[0, 2, 1]), net.weight(channels, out)
    )
    if bias:
        tokens = net.add("Add", tokens, net.weight(out))
    return net.add("Reshape", net.add("Transpose", tokens, perm=[0, 2, 1]), net.sizes(x, out))


def _head(
    net: Net,
    strides: list[int],
    *,
    whole: bool = True,
    linear: bool = False,
    mode: str = "half_pixel",
    interpolation: str = "linear",
    channels: int = 4,
    out: int = 3,
    bias: bool = True,
) -> str:
    """Maps at 1/stride, upsampled to the input's size, concatenated with it and convolved; returns the result."""
    inputs, total = (["x"], 3) if whole else ([], 0)
    for place, stride in enumerate(strides):
        low = net.add(
            "AveragePool", "x", kernel_shape=[stride] * 2, strides=[stride] * 2, ceil_mode=1
        )
        low = net.conv(low, 3, channels + place)
        if linear:
            low = _linear(net, low, channels + place, channels + place + 1, bias=bias)
        wide = channels + place + linear
        size = net.sizes("x", wide)
        inputs.append(
            net.add(
                "Resize", low, "", "", size, mode=interpolation, coordinate_transformation_mode=mode
            )
        )
        total += wide
    concat = net.add("Concat", *inputs, axis=1)
    return net.add("Relu", net.conv(concat, total, out, bias=bias))


@settings(deadline=None, max_examples=40)
@given(
    strides=st.lists(st.integers(2, 9), min_size=1, max_size=3),
    whole=st.booleans(),
    linear=st.booleans(),
    bias=st.booleans(),
    mode=st.sampled_from(MODES),
    channels=st.integers(1, 6),
    out=st.integers(1, 8),
    shape=st.tuples(st.integers(1, 2), st.integers(9, 33), st.integers(9, 33)),
    seed=st.integers(0, 1000),
)
def test_exact_and_less_work(
    strides: list[int],
    whole: bool,
    linear: bool,
    bias: bool,
    mode: str,
    channels: int,
    out: int,
    shape: tuple[int, int, int],
    seed: int,
) -> None:
    net = Net(seed)
    model = net.model(
        _head(
            net,
            strides,
            whole=whole,
            linear=linear,
            bias=bias,
            mode=mode,
            channels=channels,
            out=out,
        )
    )
    x = images(*shape)
    expected, work = run(model, x)[0], multiply_adds(model)
    assert conv_before_resize(model) == 1
    assert multiply_adds(model) < work
    np.testing.assert_allclose(run(model, x)[0], expected, atol=1e-4)


def test_a_linear_layer_is_composed_and_goes() -> None:
    net = Net()
    model = net.model(_head(net, [4, 8], linear=True))
    assert conv_before_resize(model) == 1
    assert not {"MatMul", "Transpose", "Reshape"} & set(kinds(model))
    assert (
        kinds(model).count("Conv") == 5
    )  # two before the layers, two of them composed, one on the input itself


def test_a_layer_with_more_inputs_than_outputs_stays() -> None:
    net = Net()
    low = net.conv(_half(net, "x"), 3, 9)
    low = _linear(net, low, 9, 2, bias=True)
    up = net.add("Resize", low, "", "", net.sizes("x", 2), mode="linear")
    model = net.model(net.conv(net.add("Concat", "x", up, axis=1), 5, 7))
    x = images(1, 16, 24)
    expected = run(model, x)[0]
    assert conv_before_resize(model) == 1
    assert "MatMul" in kinds(model)
    np.testing.assert_allclose(run(model, x)[0], expected, atol=1e-4)


def test_other_readers_of_the_concatenation_keep_it() -> None:
    net = Net()
    head = _head(net, [2, 4])
    concat = next(node.output[0] for node in net.nodes if node.op_type == "Concat" and len(node.input) == 3
                  and node.input[0] == "x")  # fmt: skip
    other = net.conv(concat, 12, 2, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    model = net.model(head, other)
    x = images(2, 19, 23)
    expected = run(model, x)
    assert conv_before_resize(model) == 1
    for ours, theirs in zip(run(model, x), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_scales_instead_of_sizes() -> None:
    net = Net()
    low = net.conv(_half(net, "x"), 3, 4)
    up = net.add("Resize", low, "", net.const([1, 1, 2, 2]), mode="linear")
    model = net.model(net.conv(net.add("Concat", up, up, axis=1), 8, 5))
    x = images(1, 10, 12)
    expected = run(model, x)[0]
    assert conv_before_resize(model) == 1
    np.testing.assert_allclose(run(model, x)[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    "case", ["nearest", "kernel", "group", "padding", "stride", "downsampling"]
)
def test_does_nothing_where_the_pattern_is_not_there(case: str) -> None:
    net = Net()
    if case == "nearest":
        out = _head(net, [2, 4], interpolation="nearest")
    else:
        small = _half(net, "x")
        like = _half(net, small) if case == "downsampling" else "x"
        up = net.add("Resize", small, "", "", net.sizes(like, 3), mode="linear")
        choices: dict[str, dict[str, Any]] = {
            "kernel": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
            "group": {"group": 2},
            "padding": {"pads": [1, 1, 1, 1]},
            "stride": {"strides": [2, 2]},
            "downsampling": {},
        }
        out = net.conv(net.add("Concat", up, up, axis=1), 6, 4, **choices[case])
    model = net.model(out)
    before = model.SerializeToString()
    assert conv_before_resize(model) == 0
    assert model.SerializeToString() == before
