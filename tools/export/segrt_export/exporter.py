"""Exports a Paddle inference model: one self-contained `.onnx` file and its parity report."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import onnx
from onnx import ModelProto, helper, shape_inference
from onnx.shape_inference import InferenceError

from segrt import second_graph
from segrt.errors import ExportError
from segrt.files import write_atomic
from segrt.metadata import KEY, ModelMeta
from segrt_export.convert import OPSET, convert, failure_reason
from segrt_export.count import multiply_adds
from segrt_export.onnx_model import OnnxModel
from segrt_export.parity import AWKWARD_SIZES, compare
from segrt_export.passes import FLOAT32_REWRITES, REWRITES, adaptive_pool, check_names
from segrt_export.passes.cut_tail import cut_tail
from segrt_export.passes.half_weights import half_weights
from segrt_export.program import (
    OutputKind,
    PaddleModel,
    check_interface,
    output_kind,
    paddle3_program,
)
from segrt_export.requirements import require

IR_VERSION = 9
"""The newest IR version that every ONNX Runtime since 1.17 reads."""


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        name: the model's name.
        file: the `.onnx` file.
        report_file: the parity report, JSON.
        report: the content of the report.
    """

    name: str
    file: Path
    report_file: Path
    report: dict[str, Any]


@dataclass
class _Rewrites:
    """Runs graph rewrites and records their effect.

    Attributes:
        without: names of the rewrites to leave out.
        passes: how often each pass applied.
        multiply_adds: multiply-adds for one 512 x 1024 image, or one of the size that the graph
            fixes: "stock" before the rewrites, then after each rewrite that applied.
    """

    without: Collection[str]
    passes: dict[str, int] = field(default_factory=dict)
    multiply_adds: dict[str, int] = field(default_factory=dict)

    def run(self, model: ModelProto, rewrites: Mapping[str, Callable[[ModelProto], int]]) -> None:
        """Run `rewrites` on `model`, in place."""
        for name, rewrite in rewrites.items():
            if name not in self.without:
                self.passes[name] = rewrite(model)
                if self.passes[name]:
                    self.count(name, model)

    def count(self, name: str, model: ModelProto) -> None:
        """Record the multiply-adds of `model`, unless a shape depends on values."""
        # Networks of users may contain what can't be counted: that is no reason to refuse them.
        with suppress(ValueError, KeyError, InferenceError):
            self.multiply_adds[name] = multiply_adds(model)


def export(
    source: PaddleModel | OnnxModel,
    file: Path,
    *,
    images: Sequence[Path] = (),
    sizes: Sequence[tuple[int, int]] = AWKWARD_SIZES,
    opset: int = OPSET,
    weights: Literal["float32", "float16"] = "float32",
    without: Collection[str] = (),
) -> Exported:
    """Convert or optimise a model, compare it with the original, and write the `.onnx` file.

    The parity report is written next to it, with the suffix `.parity.json`.

    Example:
        >>> exported = export(PaddleModel.open(Path("my_model")), Path("out/my_model.onnx"))
        >>> exported.report["parity"]["agreement"]
        1.0

    Args:
        source: the Paddle or ONNX model.
        file: path of the `.onnx` file; missing folders are created.
        images: photos to compare on; by default the sample image of the package. A network that
            takes bands is compared on random values.
        sizes: (height, width) of further comparisons.
        opset: ONNX operator set of the result.
        weights: data type of stored weights. "float16" halves the file and rounds each weight to
            11 significant bits.
        without: rewrites to leave out, keys of `segrt_export.passes.REWRITES` and
            `FLOAT32_REWRITES`.

    Returns:
        Exported: the paths of both files, and the report.

    Raises:
        ExportError: `without` contains an unknown name, the converter fails, the result is not
            plain ONNX, or its labels differ from the original's on more pixels than
            `segrt_export.parity.THRESHOLD` allows. Nothing is written in that case.
        MissingExtraError: the export extra is not installed.
    """
    for module in ("onnxslim", "onnxruntime"):
        require(module)
    check_names(without)
    with tempfile.TemporaryDirectory(prefix="segrt-export-") as work:
        graphs, report = _convert(source, Path(work), opset, weights, without)
        report |= compare(source, graphs, Path(work), images, sizes)
    report_file = file.with_suffix(".parity.json")
    write_atomic(file, graphs["parity"])
    write_atomic(report_file, (json.dumps(report, indent=2) + "\n").encode())
    return Exported(source.name, file, report_file, report)


def export_stock(source: PaddleModel, file: Path, *, opset: int = OPSET) -> None:
    """Write a Paddle model as paddle2onnx converts it, without segrt's passes, for comparisons.

    The graph keeps its own upsampling and argmax. Only adaptive pooling, which paddle2onnx refuses
    for inputs of any size, is segrt's; and the dimensions of the input are called N, H and W.

    Example:
        >>> export_stock(PaddleModel.open(Path("my_model")), Path("stock.onnx"))

    Args:
        source: the Paddle model.
        file: path of the `.onnx` file.
        opset: ONNX operator set of the result.

    Raises:
        ExportError: the converter fails.
        MissingExtraError: the export extra is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="segrt-export-") as work:
        model, _ = _to_onnx(source, Path(work), opset)
    model.ir_version = IR_VERSION
    _name_dimensions(model)
    write_atomic(file, model.SerializeToString())


def _convert(
    source: PaddleModel | OnnxModel, work: Path, opset: int, weights: str, without: Collection[str]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Convert the model.

    Returns:
        tuple: the models to compare with the original, by report key ("parity" is the content of
        the `.onnx` file), and the report without the results of that comparison.
    """
    started = perf_counter()
    model, raw_nodes = _to_onnx(source, work, opset)
    rewrites = _Rewrites(without)
    meta = _transform(model, source, weights, rewrites)
    graphs = _serialize(model, meta, rewrites)
    return graphs, {
        "model": source.name,
        "source": meta.source,
        "tools": meta.tools,
        "opset": opset,
        "weights": weights,
        "passes": rewrites.passes,
        "multiply_adds": rewrites.multiply_adds,
        "nodes": {"converter": raw_nodes, "exported": len(model.graph.node)},
        "bytes": len(graphs["parity"]),
        "export_seconds": round(perf_counter() - started, 2),
    }


def _to_onnx(source: PaddleModel | OnnxModel, work: Path, opset: int) -> tuple[ModelProto, int]:
    """The model as ONNX, before any pass, and its number of nodes."""
    if isinstance(source, OnnxModel):
        model = source.load()
        return model, len(model.graph.node)
    program, params = paddle3_program(source, work)
    check_interface(program, source.config.bands)
    _check_output_op(source, output_kind(program))
    bins = adaptive_pool.mark(program)
    marked, raw = work / "marked.json", work / "raw.onnx"
    marked.write_text(json.dumps(program), "utf-8")
    convert(marked, params, raw, opset=opset)
    model = onnx.load(str(raw))
    nodes = len(model.graph.node)
    adaptive_pool.restore(model, bins)
    return model, nodes


def _transform(
    model: ModelProto, source: PaddleModel | OnnxModel, weights: str, rewrites: _Rewrites
) -> ModelMeta:
    """Run the passes on `model`, in place, and return its metadata."""
    # The converter's shapes are those of the marked program, not of the model's own operators.
    del model.graph.value_info[:]
    if bands := source.meta.bands:  # a Paddle program may leave their number open
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = len(bands)
    _simplify(model)
    tail = cut_tail(model)
    if isinstance(source, PaddleModel):
        _check_class_names(source, tail.classes)
    rewrites.passes["cut_tail"] = int(tail.cut)
    rewrites.count("stock", model)
    rewrites.run(model, REWRITES)
    if weights == "float16":
        rewrites.passes["half_weights"] = half_weights(model)
    model.ir_version = IR_VERSION
    _name_dimensions(model)
    model.CopyFrom(shape_inference.infer_shapes(model, strict_mode=True))
    dims = model.graph.output[0].type.tensor_type.shape.dim
    if tail.output != "labels" and len(dims) != 4:
        raise ExportError(
            f"the model's output, floating-point numbers with {len(dims)} dimensions, is neither"
            " labels nor N x classes x height x width"
        )
    # Inferred shapes of inner tensors would have to be kept correct by every later pass.
    del model.graph.value_info[:]
    packages = ["segrt", "onnx", "onnxslim"]
    if isinstance(source, PaddleModel):
        packages += ["paddle2onnx", "paddlepaddle"]
    done = {
        "output": tail.output,
        "upsample": tail.upsample,
        "source": source.sha256(),
        "tools": {name: version(name) for name in packages},
        "passes": tuple(name for name, count in rewrites.passes.items() if count),
    }
    return source.meta.model_copy(update=done)


def _simplify(model: ModelProto) -> None:
    """Run onnxslim on `model`, in place, and refuse control flow that remains."""
    import onnxslim

    branches = _control_flow(model)
    try:
        # Repeated shape inference would take half of onnxslim's time.
        model.CopyFrom(onnxslim.slim(model, no_shape_infer=True))
    except Exception as error:  # its errors have no common type
        if not branches:
            reason = failure_reason(str(error))
            raise ExportError(f"onnxslim could not simplify the model: {reason}") from None
    else:
        branches = _control_flow(model)
    if branches:
        raise ExportError(
            f"the network contains control flow ({', '.join(branches)}), which segrt-export can't"
            " convert: MaskFormer is not supported, and PP-MobileSeg must be exported without its"
            " upsampling 'vim'"
        )


def _control_flow(model: ModelProto) -> list[str]:
    """The types of a graph's operators that contain graphs: If, Loop and Scan."""
    return sorted(
        {
            node.op_type
            for node in model.graph.node
            for attribute in node.attribute
            if attribute.type == onnx.AttributeProto.GRAPH
        }
    )


def _serialize(model: ModelProto, meta: ModelMeta, rewrites: _Rewrites) -> dict[str, bytes]:
    """The content of the `.onnx` file, "parity", and the model of its second graph, if any."""
    helper.set_model_props(model, {KEY: meta.model_dump_json(exclude_defaults=True)})
    _check(model)
    second = _second_graph(model, meta, rewrites)
    if second is None:
        return {"parity": model.SerializeToString()}
    _check(second)
    _attach(model, second)
    data = model.SerializeToString()
    assembled = second_graph.assemble(memoryview(data))
    assert assembled is not None
    return {"parity": data, "parity_float32": assembled}


def _second_graph(model: ModelProto, meta: ModelMeta, rewrites: _Rewrites) -> ModelProto | None:
    """The graph for FP32 plans on the CPU (see `segrt.second_graph`); None if it is the same."""
    second = ModelProto()
    second.CopyFrom(model)
    rewrites.run(second, FLOAT32_REWRITES)
    applied = tuple(name for name in FLOAT32_REWRITES if rewrites.passes.get(name))
    meta = meta.model_copy(update={"passes": (*meta.passes, *applied)})
    helper.set_model_props(second, {KEY: meta.model_dump_json(exclude_defaults=True)})
    return second if applied else None


def _attach(model: ModelProto, second: ModelProto) -> None:
    """Store the second graph in the metadata of `model`, without the weights that both share."""
    shared = {initializer.name for initializer in model.graph.initializer}
    own = ModelProto()
    own.CopyFrom(second)
    del own.graph.initializer[:]
    own.graph.initializer.extend(i for i in second.graph.initializer if i.name not in shared)
    text = base64.b64encode(own.SerializeToString()).decode()
    props = {item.key: item.value for item in model.metadata_props}
    helper.set_model_props(model, props | {second_graph.KEY: text})


def _name_dimensions(model: ModelProto) -> None:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, name in zip((dims[0], dims[2], dims[3]), ("N", "H", "W"), strict=True):
        if not dim.dim_value > 0:
            dim.dim_param = name


def _check_output_op(source: PaddleModel, kind: OutputKind) -> None:
    """Refuse a program that does not end as its configuration says."""
    # "none" appends nothing: the network itself may end in labels, as PP-MobileSeg can.
    stated = source.config.output_op
    if (stated == "argmax" and kind != "labels") or (stated == "softmax" and kind == "labels"):
        raise ExportError(
            f"{source.config.files[-1]} states output_op: {stated}, but the output of"
            f" {source.program} is {kind}; correct one of them"
        )


def _check_class_names(source: PaddleModel, classes: int | None) -> None:
    names = len(source.class_names)
    if classes is not None and names not in (0, classes):
        raise ExportError(
            f"{source.config.files[0]}: label_list has {names} name{'s' * (names != 1)} for"
            f" {classes} classes"
        )


def _check(model: ModelProto) -> None:
    """Refuse a graph with anything but standard ONNX operators."""
    foreign = sorted(
        {node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    )
    if foreign:
        raise ExportError(
            f"the converter left operators that are not standard ONNX: {', '.join(foreign)}"
        )
    onnx.checker.check_model(model, full_check=True)
