"""Models for Deepness: run as the plugin runs them, in numpy."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from conftest import write_colour_model
from onnx import TensorProto, helper, numpy_helper

import segrt
import segrt_export
from segrt.errors import ConfigError, ExportError
from segrt.metadata import KEY, ModelMeta, Upsample
from segrt_export import deepness
from segrt_export.deepness import to_deepness
from segrt_export.parity import SAMPLE

SIDE = 64
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def as_deepness(file: Path, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Labels (N, H, W) of tiles (N, H, W, 3), RGB, as `ModelBase.process` and `_process_tile` of
    the plugin's version 0.6.5 find them."""
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    stated = session.get_modelmeta().custom_metadata_map
    [node] = session.get_inputs()
    [output] = session.get_outputs()
    assert node.shape == [1, 3, SIDE, SIDE]
    assert json.loads(stated["model_type"]).capitalize() == "Segmentor"
    assert output.shape[2:] == [SIDE, SIDE]
    names = sorted(json.loads(stated["class_names"]).items(), key=lambda item: int(item[0]))
    assert [int(key) for key, _ in names] == list(range(output.shape[1]))
    mean = np.array(json.loads(stated["standardization_mean"]), np.float32)
    std = np.array(json.loads(stated["standardization_std"]), np.float32)
    threshold = float(json.loads(stated["seg_thresh"]))
    values = (np.float32(tiles[:, :, :, :3] * 1.0 / 255.0) - mean) / std
    found = []
    for tile in np.transpose(values, (0, 3, 1, 2)):
        result = session.run(None, {node.name: tile[None]})[0]
        np.testing.assert_allclose(result.sum(axis=1), 1, atol=1e-5)
        result[result < threshold] = 0.0
        found.append(np.argmax(result, axis=1)[0])
    assert int(json.loads(stated["seg_small_segment"])) == 0
    return np.array(found)


def network(path: Path, *, channels: int = 5, meta: dict[str, Any], side: Any = ("H", "W")) -> Path:
    """A network of one convolution with stride 4."""
    random = np.random.default_rng(3)
    weight = random.standard_normal((channels, 3, 4, 4)).astype(np.float32)
    form = meta.get("output", "logits")
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"], kernel_shape=[4, 4], strides=[4, 4])]
    last = "a"
    if form == "probabilities":
        kind: dict[str, Any] = {"op_type": "Sigmoid"} if channels == 1 else {"op_type": "Softmax"}
        more = {} if channels == 1 else {"axis": 1}
        nodes.append(helper.make_node(kind["op_type"], ["a"], ["b"], **more))
        last = "b"
    graph = helper.make_graph(
        nodes,
        "stripes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, *side])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["N", channels, None, None])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    names = ("background", "other") if channels == 1 else tuple("abcdefg"[:channels])
    stated = ModelMeta(**({"name": "stripes", "class_names": names} | meta))
    helper.set_model_props(model, {KEY: stated.model_dump_json()})
    onnx.save(model, str(path))
    return path


def tiles() -> npt.NDArray[np.uint8]:
    """Three tiles, smooth, so that few pixels lie between two classes."""
    random = np.random.default_rng(4)
    small = random.integers(0, 256, (3, 8, 8, 3), np.uint8)
    return small.repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)


MODELS: dict[str, Callable[[Path], Path]] = {
    "colours": write_colour_model,
    "imagenet": lambda path: network(
        path,
        meta={"transforms": ({"type": "Normalize", **IMAGENET},), "upsample": Upsample(stride=4)},
    ),
    "corners": lambda path: network(
        path, meta={"upsample": Upsample(stride=4, align_corners=True)}
    ),
    "BGR from 0 to 255": lambda path: network(
        path,
        meta={
            "transforms": (
                {
                    "type": "Normalize",
                    "scale": 1,
                    "mean": [103.5, 116.3, 123.7],
                    "std": [57.4, 57.1, 58.4],
                    "to_rgb": False,
                },
            ),
            "upsample": Upsample(stride=4),
        },
    ),
    "probabilities": lambda path: network(
        path, meta={"output": "probabilities", "upsample": Upsample(stride=4)}
    ),
    "one channel": lambda path: network(path, channels=1, meta={"upsample": Upsample(stride=4)}),
    "one probability": lambda path: network(
        path, channels=1, meta={"output": "probabilities", "upsample": Upsample(stride=4)}
    ),
    "a fixed size": lambda path: network(
        path, meta={"upsample": Upsample(stride=4)}, side=(SIDE, SIDE)
    ),
    "own size": lambda path: network(
        path,
        meta={
            "transforms": ({"type": "Resize", "target_size": [96, 96]}, {"type": "Normalize"}),
            "upsample": Upsample(stride=4),
        },
    ),
}


@pytest.mark.parametrize("model", MODELS)
def test_deepness_finds_the_labels_of_segrt(tmp_path: Path, model: str) -> None:
    source = MODELS[model](tmp_path / "source.onnx")
    size = None if model == "a fixed size" else SIDE

    done = to_deepness(source, tmp_path / "new" / "x.deepness.onnx", size=size, images=[SAMPLE])

    pictures = tiles()
    found = as_deepness(done.file, pictures)
    # Both the model it was made of and, by its own metadata, the new file.
    for file in (source, done.file):
        pipeline = segrt.create_pipeline(model_dir=file, device="cpu")
        for picture, labels in zip(pictures, found, strict=True):
            result = pipeline.segment(picture, color="rgb", target_size=(SIDE, SIDE))
            assert np.mean(result.labels == labels) > 0.999
    assert len(np.unique(found)) > 1
    assert done.report["parity"]["worst"] >= 0.999
    assert json.loads(done.report_file.read_text()) == done.report


def test_metadata_are_those_of_the_plugin(tmp_path: Path) -> None:
    done = to_deepness(
        write_colour_model(tmp_path / "colours.onnx"),
        tmp_path / "x.onnx",
        size=SIDE,
        resolution=7.5,
        images=[SAMPLE],
    )

    session = ort.InferenceSession(str(done.file), providers=["CPUExecutionProvider"])
    stated = dict(session.get_modelmeta().custom_metadata_map)
    meta = ModelMeta.loads(stated.pop(KEY), file="x.onnx")
    assert {key: json.loads(text) for key, text in stated.items()} == {
        "model_type": "Segmentor",
        "class_names": {str(i): name for i, name in enumerate(meta.class_names)},
        "resolution": 7.5,
        "tile_size": SIDE,
        "tiles_overlap": 25,
        "standardization_mean": [0.5, 0.5, 0.5],
        "standardization_std": [0.5, 0.5, 0.5],
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }
    assert ast.literal_eval(stated["class_names"]) == json.loads(stated["class_names"])
    assert session.get_outputs()[0].shape == [1, len(meta.class_names), SIDE, SIDE]
    assert onnx.load(str(done.file)).ir_version <= 8


def test_what_deepness_cannot_take_is_refused(tmp_path: Path) -> None:
    labels = write_colour_model(tmp_path / "labels.onnx", labels=True, stride=1)
    with pytest.raises(ExportError, match="colours gives labels: Deepness takes a probability"):
        to_deepness(labels, tmp_path / "x.onnx")

    wide = network(tmp_path / "wide.onnx", meta={"upsample": Upsample(stride=4)}, side=(32, 64))
    with pytest.raises(ConfigError, match="stripes takes 32 x 64 only: Deepness has square tiles"):
        to_deepness(wide, tmp_path / "x.onnx")
    with pytest.raises(ConfigError, match="any x 32 x 64"):
        to_deepness(wide, tmp_path / "x.onnx", size=64)

    assert not (tmp_path / "x.onnx").exists()


def test_a_file_with_other_labels_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = lambda normalize: ([0.0] * 3, [-1.0] * 3)  # noqa: E731
    monkeypatch.setattr(deepness, "_standardisation", wrong)
    source = write_colour_model(tmp_path / "colours.onnx")

    with pytest.raises(ExportError, match=r"colours: .* of sample\.png in Deepness are not those"):
        to_deepness(source, tmp_path / "x.onnx", size=SIDE)

    assert not (tmp_path / "x.onnx").exists()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segrt_export import cli

    source = write_colour_model(tmp_path / "colours.onnx")
    arguments = "--format", "deepness", "--size", "64x64", "--resolution", "5", "-o", tmp_path / "o"
    monkeypatch.setattr("sys.argv", ["segrt-export", str(source), *map(str, arguments)])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert not ended.value.code
    assert as_deepness(tmp_path / "o" / "colours.deepness.onnx", tiles()).shape == (3, SIDE, SIDE)
    assert segrt_export.to_deepness is to_deepness
