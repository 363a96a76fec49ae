from __future__ import annotations

import numpy as np
import pytest
from graphs import Net, images, run

from segrt_export.count import multiply_adds, shapes


def test_convolutions() -> None:
    net = Net()
    a = net.conv("x", 3, 8, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    b = net.conv(a, 8, 8, kernel_shape=[3, 3], group=8, pads=[1, 1, 1, 1])
    net.conv(b, 8, 5, bias=False)
    model = net.model("t2")
    pixels = 10 * 12
    assert multiply_adds(model, (20, 24)) == pixels * (8 * 3 * 9 + 8 * 9 + 5 * 8)


def test_transposed_convolution_and_products() -> None:
    net = Net()
    a = net.add("ConvTranspose", "x", net.weight(3, 4, 2, 2), strides=[2, 2])
    b = net.add("MatMul", a, net.weight(14, 5))
    c = net.add("Flatten", b)
    net.add("Gemm", c, net.weight(6, 4 * 10 * 5), transB=1)
    d = net.add("Flatten", b, axis=3)
    net.add("Gemm", d, net.weight(40, 2), transA=1)
    model = net.model("t3", "t5")
    expected = 5 * 7 * 3 * 4 * 4 + 4 * 10 * 14 * 5 + 4 * 10 * 5 * 6 + 5 * 40 * 2
    assert multiply_adds(model, (5, 7)) == expected


def test_elementwise_operations_are_not_counted() -> None:
    net = Net()
    net.add("Relu", net.add("Add", "x", net.const(1.0)))
    assert multiply_adds(net.model("t1"), (64, 64)) == 0


@pytest.mark.parametrize("batch", [1, 3])
def test_shapes_behind_shape_arithmetic_match_those_of_a_run(batch: int) -> None:
    net = Net()
    size = net.add("Shape", "x")
    (height, width) = (net.add("Gather", size, net.const(i, np.int64)) for i in (2, 3))
    scalar = net.add("Reshape", height, net.const(np.zeros(0), np.int64))
    area = net.add("Unsqueeze", net.add("Mul", scalar, width), net.const([0], np.int64))
    target = net.add("Concat", net.const([-1, 3], np.int64), area, axis=0)
    flat = net.add("Reshape", "x", target)
    index = net.add("Range", net.const(0, np.int64), width, net.const(1, np.int64))
    wide = net.add("Cast", net.add("GreaterOrEqual", index, net.const([[1], [2]], np.int64)), to=1)
    model = net.model(flat, wide)
    known = shapes(model, (9, 14), batch=batch)
    assert [known[name] for name in (flat, wide)] == [
        out.shape for out in run(model, images(batch, 9, 14))
    ]


def test_a_shape_that_depends_on_values_is_left_out() -> None:
    net = Net()
    found = net.add("NonZero", "x")
    net.add(
        "MatMul", net.add("Cast", found, to=1), net.add("Transpose", net.add("Cast", found, to=1))
    )
    model = net.model("t4")
    assert found not in shapes(model)
    with pytest.raises(ValueError, match="can't be counted"):
        multiply_adds(model)
