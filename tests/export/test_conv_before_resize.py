from __future__ import annotations

from dataclasses import dataclass
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
    """A linear layer on tokens in the form that the converter writes."""
    flat = net.add("Reshape", x, net.const([0, 0, -1], np.int64))
    tokens = net.add(
        "MatMul", net.add("Transpose", flat, perm=[0, 2, 1]), net.weight(channels, out)
    )
    if bias:
        tokens = net.add("Add", tokens, net.weight(out))
    return net.add("Reshape", net.add("Transpose", tokens, perm=[0, 2, 1]), net.sizes(x, out))


@dataclass(frozen=True)
class Head:
    """Maps at 1/stride, upsampled to the input's size, concatenated and convolved.

    Attributes:
        strides: one for each map.
        full: concatenate the input too.
        linear: apply a linear layer to each map.
        bias: the convolution and the linear layers have biases.
        mode: convention of the upsampling.
        channels: channels of the first map.
        out: channels of the result.
        interpolation: kind of upsampling.
    """

    strides: list[int]
    full: bool = True
    linear: bool = False
    bias: bool = True
    mode: str = "half_pixel"
    channels: int = 4
    out: int = 3
    interpolation: str = "linear"

    def add(self, net: Net) -> str:
        """Add the nodes; returns the name of the result."""
        inputs, total = (["x"], 3) if self.full else ([], 0)
        options = {"mode": self.interpolation, "coordinate_transformation_mode": self.mode}
        for channels, stride in enumerate(self.strides, self.channels):
            low = net.add(
                "AveragePool", "x", kernel_shape=[stride] * 2, strides=[stride] * 2, ceil_mode=1
            )
            low = net.conv(low, 3, channels)
            if self.linear:
                low = _linear(net, low, channels, channels + 1, bias=self.bias)
            wide = channels + self.linear
            inputs.append(net.add("Resize", low, "", "", net.sizes("x", wide), **options))
            total += wide
        concat = net.add("Concat", *inputs, axis=1)
        return net.add("Relu", net.conv(concat, total, self.out, bias=self.bias))


HEADS = st.builds(
    Head,
    strides=st.lists(st.integers(2, 9), min_size=1, max_size=3),
    full=st.booleans(),
    linear=st.booleans(),
    bias=st.booleans(),
    mode=st.sampled_from(MODES),
    channels=st.integers(1, 6),
    out=st.integers(1, 8),
)


@settings(deadline=None, max_examples=40)
@given(
    head=HEADS,
    shape=st.tuples(st.integers(1, 2), st.integers(9, 33), st.integers(9, 33)),
    seed=st.integers(0, 1000),
)
def test_same_result_with_fewer_multiply_adds(
    head: Head, shape: tuple[int, int, int], seed: int
) -> None:
    net = Net(seed)
    model = net.model(head.add(net))
    x = images(*shape)
    expected, work = run(model, x)[0], multiply_adds(model)
    assert conv_before_resize(model) == 1
    assert multiply_adds(model) < work
    np.testing.assert_allclose(run(model, x)[0], expected, atol=1e-4)


def test_a_linear_layer_is_composed_and_removed() -> None:
    net = Net()
    model = net.model(Head([4, 8], linear=True).add(net))
    assert conv_before_resize(model) == 1
    assert not {"MatMul", "Transpose", "Reshape"} & set(kinds(model))
    # two before the layers, two composed with the layers, one on the input itself
    assert kinds(model).count("Conv") == 5


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


def test_a_concatenation_with_other_readers_is_kept() -> None:
    net = Net()
    head = Head([2, 4]).add(net)
    concat = next(
        node.output[0]
        for node in net.nodes
        if node.op_type == "Concat" and len(node.input) == 3 and node.input[0] == "x"
    )
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
def test_other_graphs_are_unchanged(case: str) -> None:
    net = Net()
    if case == "nearest":
        out = Head([2, 4], interpolation="nearest").add(net)
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
