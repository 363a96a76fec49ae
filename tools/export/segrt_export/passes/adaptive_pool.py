"""Adaptive average pooling for inputs of any size, in standard ONNX operators.

ONNX has no such operator, so paddle2onnx rejects it ("Adaptive only support static input shape").
It does convert global average pooling. So `mark` replaces one by the other in the Paddle program,
and `restore` replaces that placeholder in the ONNX graph by the original operation.

Pooling n rows to k bins is linear: P X, where P is the (k, n) matrix that averages rows
floor(i n / k) to ceil((i + 1) n / k) - 1 into bin i, as torch.nn.AdaptiveAvgPool2d and
paddle.nn.AdaptiveAvgPool2D do. In two dimensions this is P_h X P_w^T, and the graph can compute
both matrices from the input's shape.
"""

from __future__ import annotations

from typing import Any

from onnx import ModelProto, TensorProto

from segrt.errors import ExportError
from segrt_export.graph import Builder, producers
from segrt_export.program import attribute, operators

Bins = dict[str, tuple[int, int]]
"""(height, width) of the result of each adaptive pooling, by the name of its ONNX tensor."""


def mark(program: dict[str, Any]) -> Bins:
    """Replace each adaptive average pooling of a Paddle program by a global one, in place.

    Args:
        program: a Paddle 3 program from `segrt_export.program.load_program`.

    Returns:
        Bins: what to pass to `restore`. The names are those that paddle2onnx assigns: it numbers
        the operators of a type in the order of the program.

    Raises:
        ExportError: an adaptive pooling computes maxima, or its number of bins is not constant.
    """
    ops = operators(program)
    values = {op["O"][0]["%"]: op for op in ops if op["#"] == "1.full_int_array"}
    bins: Bins = {}
    for index, op in enumerate(o for o in ops if o["#"] == "1.pool2d"):
        if not attribute(op, "adaptive")["D"]:
            continue
        sizes = values.get(op["I"][1]["%"])
        if attribute(op, "pooling_type")["D"] != "avg" or sizes is None:
            raise ExportError(
                "the model has an adaptive pooling other than averages of a constant number of bins"
            )
        height, width = ([v["D"] for v in attribute(sizes, "value")["D"]] * 2)[:2]
        attribute(op, "adaptive")["D"] = False
        attribute(op, "global_pooling")["D"] = True
        bins[f"p2o.pd_op.pool2d.{index}.0"] = (height, width)
    return bins


def restore(model: ModelProto, bins: Bins) -> int:
    """Replace the placeholders by adaptive average pooling, in place.

    Returns:
        int: the number of replaced placeholders; a pooling to 1 x 1 bins is global and stays.

    Raises:
        ExportError: a placeholder is missing, because the converter uses other names.
    """
    made_by = producers(model.graph)
    count = 0
    for name, (height, width) in bins.items():
        node = made_by.get(name)
        if node is None or node.op_type != "GlobalAveragePool":
            raise ExportError(
                f"expected a GlobalAveragePool with the output {name}: is this paddle2onnx 2.1.0?"
            )
        if (height, width) == (1, 1):
            continue
        build = Builder(model.graph, f"adaptive_pool.{count}")
        shape = build.add("Shape", node.input[0])
        across = _matrix(build, shape, 3, width)
        pooled = build.add("MatMul", node.input[0], build.add("Transpose", across, perm=[1, 0]))
        build.add("MatMul", _matrix(build, shape, 2, height), pooled, output=name)
        build.replace(node)
        count += 1
    return count


def _matrix(build: Builder, shape: str, axis: int, bins: int) -> str:
    """The averaging matrix, float32 (bins, n), with n = shape[axis]."""
    n = build.add("Gather", shape, build.const(axis), axis=0)
    index = build.add("Range", build.const(0), n, build.const(1))
    lower = build.add("Mul", build.const([[i] for i in range(bins)]), n)
    first = build.add("Div", lower, build.const(bins))
    # For integers, ceil(a / k) is floor((a + k - 1) / k).
    upper = build.add("Mul", build.const([[i + 1] for i in range(bins)]), n)
    last = build.add("Div", build.add("Add", upper, build.const(bins - 1)), build.const(bins))
    inside = build.add(
        "And", build.add("GreaterOrEqual", index, first), build.add("Less", index, last)
    )
    width = build.add("Cast", build.add("Sub", last, first), to=TensorProto.FLOAT)
    return build.add("Div", build.add("Cast", inside, to=TensorProto.FLOAT), width)
