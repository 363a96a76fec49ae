"""ONNX files of other exporters: optimised, and compared with the original."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from graphs import Net, pixel_network
from onnx import TensorProto as T

import segrt
from segrt.errors import ExportError, ModelError
from segrt.result import SegResult

pytest.importorskip("onnxslim", reason="needs the extra export")

from segrt_export.cli import app
from segrt_export.device import to_device
from segrt_export.exporter import export
from segrt_export.onnx_model import OnnxModel
from segrt_export.quantization import quantize

YML = "Deploy: {transforms: [{type: Normalize, mean: 0.2, std: 0.25}]}\n"


def _network(path: Path, *, softmax: bool = False, labels: bool = False) -> Path:
    """A network of stride 4 that upsamples its logits, as PaddleSeg's and torchvision's do."""
    net = Net()
    low = net.conv("x", 3, 5, kernel_shape=[4, 4], strides=[4, 4])
    none = net.const([], np.float32)
    size = net.sizes("x", 5)
    out = net.add("Resize", low, none, none, size, mode="linear")
    if softmax:
        out = net.add("Softmax", out, axis=1)
    if labels:
        out = net.add("ArgMax", out, axis=1, keepdims=1)
    model = net.model(out)
    if labels:
        model.graph.output[0].type.tensor_type.elem_type = T.INT64
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("tail", [{}, {"softmax": True}, {"labels": True}])
def test_the_tail_is_cut_and_labels_stay(tmp_path: Path, tail: dict[str, bool]) -> None:
    file = _network(tmp_path / "roads" / "model.onnx", **tail)
    (file.parent / "inference.yml").write_text(YML)
    source = OnnxModel.open(file)
    assert source.name == "roads"  # PaddleX, optimum and mmdeploy give every file one name
    exported = export(source, tmp_path / "out.onnx")
    assert exported.report["parity"]["worst"] == 1
    assert "model.onnx on ONNX Runtime" in exported.report["parity"]["reference"]
    kinds = {node.op_type for node in onnx.load(str(exported.file)).graph.node}
    assert not kinds & {"Resize", "Softmax", "ArgMax"}
    image = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)
    results = []
    for model in (file, exported.file):
        (result,) = segrt.create_pipeline(model_dir=model).predict(image)
        assert isinstance(result, SegResult)
        results.append(result.labels)
    assert (results[0] == results[1]).mean() > 0.9999


def test_class_names_and_preparation_are_kept(tmp_path: Path) -> None:
    file = pixel_network(tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "segformer", "id2label": {"0": "sky", "1": "road"}})
    )
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "do_resize": True,
                "resample": 2,
                "size": {"height": 32, "width": 48},
                "do_normalize": True,
                "image_mean": [0.2, 0.2, 0.2],
                "image_std": [0.25, 0.25, 0.25],
            }
        )
    )
    exported = export(OnnxModel.open(file), tmp_path / "out" / "m.onnx")
    before, after = (
        segrt.create_pipeline(model_dir=model).describe() for model in (file, exported.file)
    )
    same = ("size", "scale", "mean", "std", "labels at", "classes", "ignore index")
    assert {key: before[key][0] for key in same} == {key: after[key][0] for key in same}
    assert after["mean"][1] == "the metadata of m.onnx"


def test_one_of_several_outputs_is_kept(tmp_path: Path) -> None:
    file = pixel_network(tmp_path / "m.onnx", extra=[("aux", "t0")])
    config = tmp_path / "other" / "inference.yml"
    config.parent.mkdir()
    config.write_text(YML)
    exported = export(OnnxModel.open(file, config), tmp_path / "out.onnx")
    assert len(ort.InferenceSession(str(exported.file)).get_outputs()) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "does not say how images are prepared"),
        ({"dtype": T.FLOAT16}, "takes float16"),
        ({"shape": ("N", "H", "W", 3)}, "channels last"),
        ({"metadata": {"name": "m"}}, "comes from segrt-export"),
    ],
)
def test_what_can_not_be_exported_is_one_sentence(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    file = pixel_network(tmp_path / "m.onnx", **options)
    with pytest.raises(ExportError, match=words):
        OnnxModel.open(file)


def test_files_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for name in ("one", "two"):
        file = pixel_network(tmp_path / name / "model.onnx")
        (file.parent / "inference.yml").write_text(YML)
    files = [str(tmp_path / name / "model.onnx") for name in ("one", "two")]
    with pytest.raises(SystemExit) as ended:
        app([*files, "-o", str(tmp_path / "out")], exit_on_error=False, print_error=False)
    assert ended.value.code == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.onnx")) == [
        "one.onnx",
        "two.onnx",
    ]


@pytest.mark.parametrize("channels", [2, 4, 12])
def test_network_that_takes_bands(tmp_path: Path, channels: int) -> None:
    net = Net()
    low = net.conv("x", channels, 5, kernel_shape=[3, 3], strides=[4, 4], pads=[1, 1, 1, 1])
    up = net.add("Resize", low, "", "", net.sizes("x", 5), mode="linear")
    model = net.model(net.add("Softmax", up, axis=1))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = channels
    file = tmp_path / "land.onnx"
    onnx.save(model, str(file))
    bands = tuple(f"b{band}" for band in range(channels))
    with pytest.raises(ModelError, match=f"takes {channels} channels, and nothing says which"):
        OnnxModel.open(file)
    with pytest.raises(ModelError, match=f"does not say how its {channels} bands are prepared"):
        OnnxModel.open(file, bands=bands)
    means = [100 * band for band in range(channels)]
    (tmp_path / "inference.yml").write_text(
        f"Deploy: {{transforms: [{{type: Normalize, scale: 1, mean: {means}, std: 500}}]}}"
    )
    source = OnnxModel.open(file, bands=bands)
    with pytest.raises(ExportError, match=r"takes bands .*, and no photos"):
        export(source, tmp_path / "out" / "m.onnx", images=[tmp_path / "a.png"])
    exported = export(source, tmp_path / "out" / "m.onnx")
    parity = exported.report["parity"]
    assert parity["worst"] == 1
    assert [case["shape"][:2] for case in parity["cases"]] == [[1, channels]] * 4 + [[3, channels]]
    assert exported.report["passes"]["cut_tail"] == 1
    labels = []
    image = np.random.default_rng(1).integers(0, 4000, (64, 96, channels), np.uint16)
    for model_file in (file, exported.file):
        given = bands if model_file == file else None  # the exported file states its bands
        pipeline = segrt.create_pipeline(model_dir=model_file, bands=given)
        labels.append(pipeline.segment(image).labels)
    assert len(np.unique(labels[0])) > 1
    assert (labels[0] == labels[1]).mean() > 0.999
    device = to_device(exported.file, tmp_path / "m.ort", size=(64, 96))
    assert device.report["parity"]["worst"] == 1
    with pytest.raises(ModelError, match=r"takes .* bands .*: segrt calibrates and measures"):
        quantize(exported.file, tmp_path / "m.int8.onnx", tmp_path)
