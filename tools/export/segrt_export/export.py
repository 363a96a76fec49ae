"""Paddle inference model -> one `.onnx` file that holds all the runtime needs, with a parity report beside it."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from segrt import float32
from segrt.errors import ExportError
from segrt.files import write_atomic
from segrt.metadata import KEY, ModelMeta
from segrt_export.convert import convert, require
from segrt_export.parity import AWKWARD_SIZES, compare
from segrt_export.program import PaddleModel, paddle3_program

OPSET = 17
IR_VERSION = 9
"""The newest that every ONNX Runtime since 1.17 reads."""


@dataclass(frozen=True)
class Exported:
    """One finished export.

    Attributes:
        name: the model's name.
        file: the `.onnx` file.
        report_file: the parity report, JSON.
        report: its content.
    """

    name: str
    file: Path
    report_file: Path
    report: dict[str, Any]


def export(
    source: PaddleModel,
    file: Path,
    *,
    images: Sequence[Path] = (),
    sizes: Sequence[tuple[int, int]] = AWKWARD_SIZES,
    opset: int = OPSET,
    weights: Literal["float32", "float16"] = "float32",
    without: Collection[str] = (),
) -> Exported:
    """Convert one model, compare it with Paddle Inference, and write the `.onnx` file and a `.parity.json` beside it.

    Args:
        source: the Paddle model.
        file: path of the `.onnx` file; its folder is made when missing.
        images: photos to compare on; without any, the sample image of the package.
        sizes: (height, width) of further comparisons.
        opset: ONNX operator set of the result.
        weights: how they are stored. "float16" halves the file and rounds each weight to 11 significant bits.
        without: rewrites to leave out, names of `segrt_export.passes.REWRITES` and `FLOAT32_REWRITES`.

    Returns:
        Exported: names of the files and the report.

    Raises:
        ExportError: `without` names something else, the converter fails, the result is not plain ONNX, or its labels
            disagree with Paddle's on more pixels than `segrt_export.parity` allows. Nothing is written then.
        MissingExtraError: the export extra is not installed.
    """
    for module in ("onnx", "onnxslim", "onnxruntime"):
        require(module)

    import onnx

    from segrt_export.passes import check_names

    check_names(without)

    started = perf_counter()
    with tempfile.TemporaryDirectory(prefix="segrt-export-") as work:
        model, raw_nodes = _to_onnx(source, Path(work), opset)
        meta, passes, work_done = _transform(model, source, weights, without)
        onnx.helper.set_model_props(model, {KEY: meta.model_dump_json(exclude_defaults=True)})
        _check(model)
        second = _float32_graph(model, meta, without, passes, work_done)
        if second is not None:
            _check(second)
            _attach(model, second)
        data = model.SerializeToString()
        graphs = {"parity": data}
        if second is not None:
            assembled = float32.assemble(memoryview(data))
            assert assembled is not None
            graphs["parity_float32"] = assembled
        seconds = perf_counter() - started
        report = {
            "model": source.name,
            "source": meta.source,
            "tools": meta.tools,
            "opset": opset,
            "weights": weights,
            "passes": passes,
            "multiply_adds": work_done,
            "nodes": {"converter": raw_nodes, "exported": len(model.graph.node)},
            "bytes": len(data),
            "export_seconds": round(seconds, 2),
            **compare(source, graphs, Path(work), images, sizes),
        }
    report_file = file.with_suffix(".parity.json")
    write_atomic(file, data)
    write_atomic(report_file, (json.dumps(report, indent=2) + "\n").encode())
    return Exported(source.name, file, report_file, report)


def _to_onnx(source: PaddleModel, work: Path, opset: int) -> tuple[Any, int]:
    import onnx

    from segrt_export.passes import adaptive_pool

    program, params = paddle3_program(source, work)
    bins = adaptive_pool.mark(program)
    marked, raw = work / "marked.json", work / "raw.onnx"
    marked.write_text(json.dumps(program), "utf-8")
    convert(marked, params, raw, opset=opset)
    model = onnx.load(str(raw))
    nodes = len(model.graph.node)
    adaptive_pool.restore(model, bins)
    return model, nodes


def _transform(
    model: Any, source: PaddleModel, weights: str, without: Collection[str] = ()
) -> tuple[ModelMeta, dict[str, int], dict[str, int]]:
    """Run the passes on `model`, in place.

    Returns:
        tuple: the metadata; by pass, how often it applied; and the multiply-adds for one 512 x 1024 image before the
        rewrites ("stock") and after each that applied.
    """
    import onnxslim
    from onnx import shape_inference

    from segrt_export.count import multiply_adds
    from segrt_export.passes import REWRITES
    from segrt_export.passes.cut_tail import cut_tail
    from segrt_export.passes.half_weights import half_weights

    passes: dict[str, int] = {}
    # The converter's notes on shapes are those of the Paddle program, where a stand-in may have stood.
    del model.graph.value_info[:]
    model.CopyFrom(
        onnxslim.slim(model, no_shape_infer=True)
    )  # inferring again and again takes half its time
    tail = cut_tail(model)
    passes["cut_tail"] = int(tail.output == "logits")
    work_done = {"stock": multiply_adds(model)}
    _rewrite(model, REWRITES, without, passes, work_done)
    if weights == "float16":
        passes["half_weights"] = half_weights(model)
    model.ir_version = IR_VERSION
    _name_dimensions(model)
    model.CopyFrom(shape_inference.infer_shapes(model, strict_mode=True))
    del model.graph.value_info[
        :
    ]  # they would only hold the shapes that a later pass must keep right
    meta = ModelMeta(
        name=source.name,
        class_names=source.class_names,
        transforms=source.transforms,
        output=tail.output,
        upsample=tail.upsample,
        source=source.sha256(),
        tools={
            name: version(name)
            for name in ("segrt", "paddle2onnx", "paddlepaddle", "onnx", "onnxslim")
        },
        passes=tuple(name for name, count in passes.items() if count),
    )
    return meta, passes, work_done


def _rewrite(
    model: Any,
    rewrites: Mapping[str, Callable[[Any], int]],
    without: Collection[str],
    passes: dict[str, int],
    work_done: dict[str, int],
) -> None:
    """Run `rewrites` on `model`, in place, but those in `without`; note in `passes` how often each applied, and in
    `work_done` the multiply-adds after each that did."""
    from segrt_export.count import multiply_adds

    for name, rewrite in rewrites.items():
        if name not in without:
            passes[name] = rewrite(model)
            if passes[name]:
                work_done[name] = multiply_adds(model)


def _float32_graph(
    model: Any,
    meta: ModelMeta,
    without: Collection[str],
    passes: dict[str, int],
    work_done: dict[str, int],
) -> Any | None:
    """Make the graph for plans in float32 on the CPU: see `segrt.float32`.

    Args:
        model: the finished graph; it stays as it is.
        meta: what it says of itself.
        without: see `_rewrite`.
        passes: see `_rewrite`.
        work_done: see `_rewrite`.

    Returns:
        the second graph; None where it would be the same.
    """
    import onnx

    from segrt_export.passes import FLOAT32_REWRITES

    second = onnx.ModelProto()
    second.CopyFrom(model)
    _rewrite(second, FLOAT32_REWRITES, without, passes, work_done)
    applied = tuple(name for name in FLOAT32_REWRITES if passes.get(name))
    meta = meta.model_copy(update={"passes": (*meta.passes, *applied)})
    onnx.helper.set_model_props(second, {KEY: meta.model_dump_json(exclude_defaults=True)})
    return second if applied else None


def _attach(model: Any, second: Any) -> None:
    """Put the second graph into the metadata of `model`, without the weights that `model` has."""
    import onnx

    shared = {initializer.name for initializer in model.graph.initializer}
    own = onnx.ModelProto()
    own.CopyFrom(second)
    del own.graph.initializer[:]
    own.graph.initializer.extend(i for i in second.graph.initializer if i.name not in shared)
    text = base64.b64encode(own.SerializeToString()).decode()
    onnx.helper.set_model_props(
        model, {item.key: item.value for item in model.metadata_props} | {float32.KEY: text}
    )


def _name_dimensions(model: Any) -> None:
    graph = model.graph
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise ExportError(
            f"segrt runs models with one input and one output; this one has {len(graph.input)} and {len(graph.output)}"
        )
    dims = graph.input[0].type.tensor_type.shape.dim
    if len(dims) != 4:
        raise ExportError(
            f"the model's input has {len(dims)} dimensions, not N x 3 x height x width"
        )
    for dim, name in zip((dims[0], dims[2], dims[3]), ("N", "H", "W"), strict=True):
        if not dim.dim_value > 0:
            dim.dim_param = name


def _check(model: Any) -> None:
    """Refuse a graph with anything but standard ONNX operators."""
    import onnx

    foreign = sorted(
        {node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    )
    if foreign:
        raise ExportError(
            f"the converter left operators that are not standard ONNX: {', '.join(foreign)}"
        )
    onnx.checker.check_model(model, full_check=True)
