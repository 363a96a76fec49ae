from __future__ import annotations

import numpy as np
import pytest
from graphs import Net, images, kinds, run
from hypothesis import given, settings
from hypothesis import strategies as st

from segrt_export.count import multiply_adds
from segrt_export.passes.linear_as_conv import linear_as_conv


def _block(
    net: Net, *, channels: int = 3, wide: int = 7, read_shape: bool = False, bias: bool = True
) -> tuple[str, str]:
    """SegFormer's layer on tokens and depthwise convolution, in the converter's form.

    Args:
        net: collects the nodes.
        channels: channels of the tokens.
        wide: channels of the map.
        read_shape: read the batch size and channels of the map from the layer's result.
        bias: the layer has a bias.

    Returns:
        tuple: names of the resulting tokens and of the layer's result.
    """
    flat = net.add(
        "Reshape",
        "x" if channels == 3 else net.conv("x", 3, channels),
        net.const([0, 0, -1], np.int64),
    )
    tokens = net.add("Relu", net.add("Transpose", flat, perm=[0, 2, 1]))
    layer = net.add("MatMul", tokens, net.weight(channels, wide))
    if bias:
        layer = net.add("Add", layer, net.weight(wide))
    if read_shape:
        shape = net.add("Shape", layer)
        batch = net.add("Slice", shape, net.const([0], np.int64), net.const([1], np.int64))
        inner = net.add("Slice", shape, net.const([2], np.int64), net.const([3], np.int64))
        size = net.add(
            "Slice", net.add("Shape", "x"), net.const([2], np.int64), net.const([4], np.int64)
        )
        target = net.add("Concat", batch, inner, size, axis=0)
    else:
        target = net.sizes("x", wide)
    feature_map = net.add("Reshape", net.add("Transpose", layer, perm=[0, 2, 1]), target)
    conv = net.conv(feature_map, wide, wide, group=wide, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    back = net.add("Reshape", conv, net.const([0, wide, -1], np.int64))
    return net.add("Transpose", back, perm=[0, 2, 1]), layer


@settings(deadline=None, max_examples=40)
@given(
    channels=st.integers(1, 6),
    more=st.integers(1, 9),
    read_shape=st.booleans(),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0, 1000),
)
def test_same_result_with_as_many_multiply_adds(
    channels: int, more: int, read_shape: bool, shape: tuple[int, int, int], seed: int
) -> None:
    net = Net(seed)
    model = net.model(
        _block(net, channels=channels, wide=channels + more, read_shape=read_shape)[0]
    )
    x = images(*shape)
    expected, work = run(model, x)[0], multiply_adds(model)
    assert linear_as_conv(model) == 1
    assert "MatMul" not in kinds(model)
    assert multiply_adds(model) == work
    np.testing.assert_allclose(run(model, x)[0], expected, atol=1e-4)


def test_every_block_is_rewritten() -> None:
    net = Net()
    outputs = [
        _block(net, wide=wide, read_shape=read_shape)[0]
        for wide, read_shape in ((4, True), (5, False), (9, True))
    ]
    model = net.model(*outputs)
    x = images(2, 9, 7)
    expected = run(model, x)
    assert linear_as_conv(model) == 3
    for ours, theirs in zip(run(model, x), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    "case", ["narrow", "no bias", "read by others", "tokens are not transposed"]
)
def test_other_graphs_are_unchanged(case: str) -> None:
    net = Net()
    if case == "narrow":
        outputs = [_block(net, channels=5, wide=5)[0]]
    elif case == "no bias":
        outputs = [_block(net, bias=False)[0]]
    elif case == "read by others":
        tokens, layer = _block(net)
        outputs = [tokens, net.add("Relu", layer)]
    else:
        outputs = [_block(net)[0]]
        swap = [node for node in net.nodes if node.op_type == "Transpose"][1]
        swap.attribute[0].ints[:] = [0, 1, 2]
    model = net.model(*outputs)
    before = model.SerializeToString()
    assert linear_as_conv(model) == 0
    assert model.SerializeToString() == before
