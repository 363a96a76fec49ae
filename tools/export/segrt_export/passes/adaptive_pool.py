"""Adaptive average pooling on inputs of any size, in standard ONNX operators.

paddle2onnx gives up on it ("Adaptive only support static input shape") because ONNX has no such operator. It converts
global average pooling, though. So `mark` turns one into the other in the Paddle program, and `restore` puts the true
operation into the ONNX graph where the stand-in came out.

Pooling n rows to k bins is linear: P X, with P the (k, n) matrix that averages rows floor(i n / k) to
ceil((i + 1) n / k) - 1 into bin i (the bins of torch.nn.AdaptiveAvgPool2d and paddle.nn.AdaptiveAvgPool2D). In two
dimensions that is P_h X P_w^T, and the two matrices can be computed in the graph from the input's shape.
"""

from __future__ import annotations

from typing import Any

from onnx import ModelProto, TensorProto

from segrt.errors import ExportError
from segrt_export.graph import Builder, producers
from segrt_export.program import attribute, operators

Bins = dict[str, tuple[int, int]]


def mark(program: dict[str, Any]) -> Bins:
    """Make each adaptive average pooling of a Paddle program a global one, in place.

    Args:
        program: a Paddle 3 program, as `segrt_export.program.load_program` returns it.

    Returns:
        Bins: the pooled (height, width) by the name that paddle2onnx will give the output in the ONNX graph. It
        numbers operators of one kind in the order of the program.

    Raises:
        ExportError: adaptive maximum pooling, or a number of bins that is not written in the program.
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
                "the model has an adaptive pooling that is not an average to a fixed number of bins"
            )
        height, width = ([v["D"] for v in attribute(sizes, "value")["D"]] * 2)[:2]
        attribute(op, "adaptive")["D"] = False
        attribute(op, "global_pooling")["D"] = True
        bins[f"p2o.pd_op.pool2d.{index}.0"] = (height, width)
    return bins


def restore(model: ModelProto, bins: Bins) -> int:
    """Replace the stand-ins by adaptive average pooling, in place.

    Returns:
        int: how many were replaced; pooling to 1 x 1 is global pooling, and stays.

    Raises:
        ExportError: a stand-in is not where it should be: the converter has changed its naming.
    """
    made_by = producers(model.graph)
    count = 0
    for name, (height, width) in bins.items():
        node = made_by.get(name)
        if node is None or node.op_type != "GlobalAveragePool":
            raise ExportError(
                f"expected a GlobalAveragePool that makes {name}: is this paddle2onnx 2.1.0?"
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

    def whole(value: Any) -> str:
        return build.const(value, "int64")

    n = build.add("Gather", shape, whole(axis), axis=0)
    index = build.add("Range", whole(0), n, whole(1))
    first = build.add("Div", build.add("Mul", whole([[i] for i in range(bins)]), n), whole(bins))
    # ceil(a / k) of whole numbers is floor((a + k - 1) / k)
    upper = build.add("Mul", whole([[i + 1] for i in range(bins)]), n)
    last = build.add("Div", build.add("Add", upper, whole(bins - 1)), whole(bins))
    inside = build.add(
        "And", build.add("GreaterOrEqual", index, first), build.add("Less", index, last)
    )
    width = build.add("Cast", build.add("Sub", last, first), to=TensorProto.FLOAT)
    return build.add("Div", build.add("Cast", inside, to=TensorProto.FLOAT), width)
