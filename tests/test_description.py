from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from graphs import Net, pixel_network
from onnx import ModelProto, helper, save
from onnx import TensorProto as T
from PIL import Image

import segrt
from segrt.backends.footprint import UNKNOWN, measure
from segrt.errors import ConfigError, InputError, ModelError
from segrt.result import SegResult

Pixels = npt.NDArray[np.uint8]

ARGMAX = [("ArgMax", {"axis": 1, "keepdims": 0})]
YML = "Deploy: {transforms: [{type: Normalize, mean: 0.2, std: 0.25}]}\n"
NAMES = "PostProcess: {label_list: [background, crack]}\n"


@pytest.fixture
def halves() -> Pixels:
    """Left half 100 / 255 = 0.39, right half 200 / 255 = 0.78."""
    image = np.full((64, 96, 3), 100, np.uint8)
    image[:, 48:] = 200
    return image


def _labels(pipeline: segrt.Pipeline, image: npt.NDArray[Any], **options: Any) -> SegResult:
    (result,) = pipeline.predict(image, **options)
    assert isinstance(result, SegResult)
    return result


def _left_and_right(result: SegResult) -> tuple[list[int], list[int]]:
    return np.unique(result.labels[:, :48]).tolist(), np.unique(result.labels[:, 48:]).tolist()


def test_inference_yml_next_to_an_onnx_file_is_read(tmp_path: Path, halves: Pixels) -> None:
    pixel_network(tmp_path / "inference.onnx", tail=ARGMAX, output=T.INT64)
    (tmp_path / "inference.yml").write_text("Global: {model_name: cracks}\n" + YML + NAMES)
    pipeline = segrt.create_pipeline(model_dir=tmp_path)
    assert _labels(pipeline, halves).areas() == {"crack": 1.0}
    described = pipeline.describe()
    assert described["mean"] == ("0.2, 0.2, 0.2", "inference.yml")
    assert described["model"] == ("cracks", "inference.yml")
    assert described["classes"] == ("2: background, crack", "inference.yml")


def test_deploy_yaml_next_to_an_onnx_file_is_read(tmp_path: Path, halves: Pixels) -> None:
    pixel_network(tmp_path / "model.onnx")
    (tmp_path / "deploy.yaml").write_text(
        "Deploy:\n  output_op: none\n  transforms:\n  - {type: Resize, target_size: [48, 32]}\n"
        "  - {type: Normalize, mean: [0.2, 0.2, 0.2], std: [0.25, 0.25, 0.25]}\n"
    )
    pipeline = segrt.create_pipeline(model_dir=tmp_path)
    assert pipeline.transforms.size((64, 96)) == (32, 48)  # PaddleSeg: keep_ratio is false
    assert pipeline.transforms.resize_in == "float32"
    assert _left_and_right(_labels(pipeline, halves)) == ([1], [1])


def test_arguments_win_over_all_files(tmp_path: Path, halves: Pixels) -> None:
    pixel_network(tmp_path / "m.onnx")
    (tmp_path / "inference.yml").write_text(YML + NAMES)
    given: dict[str, Any] = {"transforms": [{"type": "Normalize"}], "class_names": ["a", "b"]}
    pipeline = segrt.create_pipeline(model_dir=tmp_path, **given)
    assert _labels(pipeline, halves).areas() == {"a": 0.5, "b": 0.5}
    assert pipeline.describe()["mean"][1] == "transforms="
    module = {"model_dir": str(tmp_path), **given}
    config = {
        "pipeline_name": "semantic_segmentation",
        "SubModules": {"SemanticSegmentation": module},
    }
    assert segrt.create_pipeline(config=config).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("transforms", "names"),
    [("[{type: Normalize, mean: 0.5, std: 0.25}]", "[background, crack]"), ("", "[bg, crack]")],
)
def test_sources_that_contradict_each_other_are_an_error(
    tmp_path: Path, transforms: str, names: str
) -> None:
    pixel_network(tmp_path / "m.onnx")
    (tmp_path / "inference.yml").write_text(YML + NAMES)
    listed = f"Deploy: {{transforms: {transforms}}}\n" if transforms else ""
    (tmp_path / "deploy.yaml").write_text(listed + f"PostProcess: {{label_list: {names}}}\n")
    what = "transforms" if transforms else "class names"
    with pytest.raises(
        ModelError, match=rf"inference\.yml and deploy\.yaml state different {what}"
    ):
        segrt.create_pipeline(model_dir=tmp_path)
    given: dict[str, Any] = {"class_names": ["a", "b"], "transforms": [{"type": "Normalize"}]}
    assert segrt.create_pipeline(model_dir=tmp_path, **given).class_names == ("a", "b")


def test_corrected_configuration_contradicts_old_metadata(tmp_path: Path) -> None:
    metadata = {"name": "m", "transforms": [{"type": "Normalize"}], "class_names": ["a", "b"]}
    pixel_network(tmp_path / "m.onnx", metadata=metadata)
    (tmp_path / "inference.yml").write_text("PostProcess: {label_list: [a, c]}\n")
    with pytest.raises(ModelError, match=r"the metadata of m\.onnx and inference\.yml state"):
        segrt.create_pipeline(model_dir=tmp_path)


def test_default_is_used_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = pixel_network(tmp_path / "m.onnx")
    pipeline = segrt.create_pipeline(model_dir=file)
    assert "m.onnx does not say how images are prepared" in caplog.text
    assert pipeline.describe()["mean"] == ("0.5, 0.5, 0.5", "default")
    assert pipeline.class_names == ("class_0", "class_1")


def test_zoo_model_without_names_has_those_of_the_zoo(tmp_path: Path) -> None:
    weight = np.zeros((150, 3), np.float32)
    metadata = {"name": "SegFormer-B0 (slice)"}
    file = pixel_network(tmp_path / "m.onnx", weight[:19], weight[:19, 0], metadata=metadata)
    pipeline = segrt.create_pipeline(model_dir=file)
    assert pipeline.class_names[:2] == ("road", "sidewalk")
    assert pipeline.palette[0].tolist() == [128, 64, 128]
    # With other classes, it is a model that was trained again.
    pixel_network(file, weight[:7], weight[:7, 0], metadata=metadata)
    assert segrt.create_pipeline(model_dir=file).class_names[0] == "class_0"


@pytest.mark.parametrize("names", [["crack"], ["a", "b", "c"]])
def test_number_of_class_names_is_checked_when_loading(tmp_path: Path, names: list[str]) -> None:
    tails: list[Any] = [[], ARGMAX]
    for index, tail in enumerate(tails):
        file = pixel_network(
            tmp_path / f"{index}.onnx", tail=tail, output=T.INT64 if tail else T.FLOAT
        )
        with pytest.raises(ModelError, match=rf"has {len(names)} class names? for the 2 classes"):
            segrt.create_pipeline(model_dir=file, class_names=names)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("kind", [T.INT64, T.INT32, T.UINT8, T.INT8, T.UINT16, T.FLOAT])
def test_labels_of_any_type(tmp_path: Path, halves: Pixels, keepdims: int, kind: int) -> None:
    tail = [("ArgMax", {"axis": 1, "keepdims": keepdims}), ("Cast", {"to": kind})]
    pipeline = segrt.create_pipeline(
        model_dir=pixel_network(tmp_path / "m.onnx", tail=tail, output=kind)
    )
    assert _left_and_right(_labels(pipeline, halves)) == ([0], [1])
    assert pipeline.class_names == ("class_0", "class_1")  # from the input of the ArgMax


@pytest.mark.parametrize("tail", [[], [("Sigmoid", {})]])
def test_one_channel_is_two_classes(tmp_path: Path, halves: Pixels, tail: Any) -> None:
    file = pixel_network(tmp_path / "m.onnx", [[10, 0, 0]], [0], tail=tail)
    pipeline = segrt.create_pipeline(model_dir=file)
    result = _labels(pipeline, halves, scores=True)
    assert _left_and_right(result) == ([0], [1])
    assert result.areas() == {"background": 0.5, "foreground": 0.5}
    logits = 10 * (np.array([100, 200]) / 255 - 0.5) / 0.5
    foreground = 1 / (1 + np.exp(-logits))
    assert result.scores is not None
    np.testing.assert_allclose(
        result.scores[0, [0, 95]], [1 - foreground[0], foreground[1]], rtol=1e-5
    )
    named = segrt.create_pipeline(model_dir=file, class_names=["crack"])
    assert named.class_names == ("background", "crack")
    windowed = _labels(pipeline, halves, slide="32,16", scores=True)
    np.testing.assert_array_equal(windowed.labels, result.labels)
    assert windowed.scores is not None
    np.testing.assert_allclose(windowed.scores, result.scores, rtol=1e-5)


def test_one_channel_of_unknown_meaning_is_refused(tmp_path: Path) -> None:
    file = pixel_network(tmp_path / "m.onnx", [[10, 0, 0]], [0], tail=[("Tanh", {})])
    with pytest.raises(ModelError, match="one channel, computed by Tanh"):
        segrt.create_pipeline(model_dir=file)


def _squashed(ends: Sequence[tuple[str, Sequence[str]]], out: int) -> ModelProto:
    """A network of `out` channels, and what is done with their logits `x`; `two` is a constant."""
    net = Net()
    net.const(2.0)  # c0
    net.conv("x", 3, out, output="logits")
    for number, (op_type, inputs) in enumerate(ends, 1):
        options = {"axis": 1} if op_type in ("Softmax", "Concat") else {}
        net.add(op_type, *inputs, output=f"y{number}", **options)
    return net.model(f"y{len(ends)}")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ([("Sigmoid", ["logits"]), ("Mul", ["y1", "c0"])], "Mul of Sigmoid"),
        ([("Sigmoid", ["logits"]), ("Sub", ["c0", "y1"]), ("Identity", ["y2"])], "Sub of Sigmoid"),
        ([("Tanh", ["logits"]), ("Add", ["y1", "c0"])], "Add of Tanh"),
        ([("Softmax", ["logits"]), ("Add", ["y1", "y1"]), ("Div", ["y2", "c0"])], "Div of Softmax"),
        ([("Exp", ["logits"])], "Exp"),
    ],
)
def test_ends_that_are_neither_logits_nor_probabilities(
    tmp_path: Path, halves: Pixels, channels: int, ends: Any, words: str
) -> None:
    file = tmp_path / "m.onnx"
    save(_squashed(ends, channels), str(file))
    if channels == 1:
        with pytest.raises(ModelError, match=f"one channel, computed by {words}:"):
            segrt.create_pipeline(model_dir=file)
        return
    pipeline = segrt.create_pipeline(model_dir=file, device="cpu")
    pipeline.segment(halves)  # the largest is the largest
    with pytest.raises(ConfigError, match=f"m has no scores: it ends in {words}"):
        next(pipeline.predict(halves, scores=True))


def test_arithmetic_with_logits_gives_logits(tmp_path: Path, halves: Pixels) -> None:
    ends = [("Mul", ["logits", "c0"]), ("Add", ["y1", "logits"])]
    save(_squashed(ends, 1), str(tmp_path / "m.onnx"))
    pipeline = segrt.create_pipeline(model_dir=tmp_path / "m.onnx", device="cpu")
    result = next(pipeline.predict(halves, scores=True))
    assert isinstance(result, segrt.SegResult)
    assert result.scores is not None


def test_probabilities_are_the_scores(tmp_path: Path, halves: Pixels) -> None:
    logits = pixel_network(tmp_path / "logits.onnx")
    soft = pixel_network(tmp_path / "soft.onnx", tail=[("Softmax", {"axis": 1})])
    one, other = (
        _labels(segrt.create_pipeline(model_dir=file), halves, scores=True)
        for file in (logits, soft)
    )
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.scores is not None
    assert other.scores is not None
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (("N", "H", "W", 3), T.FLOAT),
        (("N", 3, "H", "W"), T.FLOAT16),
        (("N", 3, "H", "W"), T.DOUBLE),
        (("N", "H", "W", 3), T.FLOAT16),
    ],
)
def test_input_forms(tmp_path: Path, halves: Pixels, shape: Any, kind: int) -> None:
    file = pixel_network(tmp_path / "m.onnx", shape=shape, dtype=kind)
    assert _left_and_right(_labels(segrt.create_pipeline(model_dir=file), halves)) == ([0], [1])


def test_output_with_channels_last(tmp_path: Path, halves: Pixels) -> None:
    tail = [("Transpose", {"perm": [0, 2, 3, 1]})]
    file = pixel_network(tmp_path / "m.onnx", tail=tail, shape=("N", "H", "W", 3))
    assert _left_and_right(_labels(segrt.create_pipeline(model_dir=file), halves)) == ([0], [1])


def test_uint8_input_takes_pixels(tmp_path: Path, halves: Pixels) -> None:
    file = pixel_network(tmp_path / "m.onnx", bias=[0, -150], dtype=T.UINT8)
    assert _left_and_right(_labels(segrt.create_pipeline(model_dir=file), halves)) == ([0], [1])
    with pytest.raises(ModelError, match="takes pixels from 0 to 255"):
        segrt.create_pipeline(model_dir=file, transforms=[{"type": "Normalize"}])


def test_grey_input(tmp_path: Path, halves: Pixels) -> None:
    file = pixel_network(tmp_path / "m.onnx", [[0], [1]], shape=("N", 1, "H", "W"))
    assert _left_and_right(_labels(segrt.create_pipeline(model_dir=file), halves)) == ([0], [1])
    with pytest.raises(ModelError, match="a mean and std for each of three channels"):
        segrt.create_pipeline(
            model_dir=file, transforms=[{"type": "Normalize", "mean": [0.1, 0.2, 0.3]}]
        )


@pytest.mark.parametrize("shape", [("N", 600, "H", "W"), ("N", 3, "H")])
def test_other_inputs_are_refused_when_loading(tmp_path: Path, shape: Any) -> None:
    file = tmp_path / "m.onnx"
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", T.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", T.FLOAT, None)],
    )
    opset = helper.make_opsetid("", 17)
    save(helper.make_model(graph, opset_imports=[opset], ir_version=9), str(file))
    with pytest.raises(ModelError, match=r"m\.onnx takes .*float.*: segrt runs networks with"):
        segrt.create_pipeline(model_dir=file)


@pytest.mark.parametrize("batch", [1, 3, "N"])
def test_fixed_size_and_batch(tmp_path: Path, halves: Pixels, batch: Any) -> None:
    pipeline = segrt.create_pipeline(
        model_dir=pixel_network(tmp_path / "m.onnx", shape=(batch, 3, 64, 96))
    )
    large = np.ascontiguousarray(halves.repeat(2, axis=0).repeat(3, axis=1))
    for size in (1, 2, 4):
        results = list(pipeline.predict([halves, large, halves, halves], batch_size=size))
        for result, image in zip(results, (halves, large, halves, halves), strict=True):
            assert isinstance(result, SegResult)
            assert result.labels.shape == image.shape[:2]
            assert np.unique(result.labels[:, : result.labels.shape[1] // 2]).tolist() == [0]
    np.testing.assert_array_equal(
        _labels(pipeline, large, slide="64,96,32,48").labels[:, 144:], np.ones((128, 144))
    )
    with pytest.raises(ConfigError, match="takes images of 64 x 96"):
        pipeline.predict(halves, target_size=512)
    with pytest.raises(ConfigError, match="takes images of 64 x 96"):
        pipeline.predict(halves, slide="32,16")


def test_several_outputs(tmp_path: Path, halves: Pixels, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "m.onnx"
    pixel_network(file, extra=[("aux", "t0")])
    assert _left_and_right(_labels(segrt.create_pipeline(model_dir=file), halves)) == ([0], [1])
    assert "output is used, not aux" in caplog.text
    pooled = [("ReduceMean", {"axes": [2, 3], "keepdims": 0})]
    pixel_network(file, tail=pooled, extra=[("seg", "t0")])
    pipeline = segrt.create_pipeline(model_dir=file)
    assert pipeline.describe()["output"][0] == "seg: logits"
    pixel_network(file, tail=[("Softmax", {"axis": 1})], extra=[("seg", "t0")])
    with pytest.raises(ModelError, match="set output to one of output, seg"):
        segrt.create_pipeline(model_dir=file)
    assert segrt.create_pipeline(model_dir=file, output="seg").describe()["output"] == (
        "seg: logits",
        "output=",
    )
    with pytest.raises(ModelError, match="no output 'other'"):
        segrt.create_pipeline(model_dir=file, output="other")


@pytest.mark.parametrize(
    "metadata", [None, {"name": "m", "class_names": [f"n{i}" for i in range(300)]}]
)
def test_more_than_256_classes(tmp_path: Path, metadata: Any) -> None:
    weight, bias = np.zeros((300, 3), np.float32), np.full(300, -9, np.float32)
    bias[[20, 299]], weight[299, 0] = 0, 1
    file = pixel_network(tmp_path / "m.onnx", weight, bias, metadata=metadata)
    pipeline = segrt.create_pipeline(model_dir=file)
    assert len({*map(tuple, pipeline.palette.tolist())}) == len(pipeline.palette) == 300
    names = set()
    for value, label in ((10, 20), (250, 299)):
        result = _labels(pipeline, np.full((32, 48, 3), value, np.uint8))
        (saved,) = result.save_to_img(tmp_path / f"{value}.png")
        assert np.unique(np.asarray(Image.open(saved))).tolist() == [label]
        names.add(result.class_names)
    assert len(names) == 1


def test_padding_is_cut_off_the_labels(tmp_path: Path) -> None:
    metadata = {
        "name": "m",
        "transforms": [
            {"type": "ResizeByLong", "long_size": 48},
            {"type": "Padding", "target_size": [64, 80]},
            {"type": "Normalize"},
        ],
    }
    pipeline = segrt.create_pipeline(
        model_dir=pixel_network(tmp_path / "m.onnx", metadata=metadata)
    )
    image = np.full((40, 96, 3), 250, np.uint8)
    assert pipeline.transforms.size((40, 96)) == (80, 64)
    assert np.unique(_labels(pipeline, image).labels).tolist() == [1]
    with pytest.raises(InputError, match="larger than the 8 x 8 that the model's Padding makes"):
        segrt.create_pipeline(
            model_dir=pixel_network(
                tmp_path / "n.onnx",
                metadata={"name": "n", "transforms": [{"type": "Padding", "target_size": [8, 8]}]},
            )
        ).transforms.size((40, 96))


def test_hugging_face_folder(tmp_path: Path, halves: Pixels) -> None:
    pixel_network(tmp_path / "onnx" / "model.onnx")
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
                "do_reduce_labels": True,
                "image_mean": [0.2, 0.2, 0.2],
                "image_std": [0.25, 0.25, 0.25],
            }
        )
    )
    pipeline = segrt.create_pipeline(model_dir=tmp_path / "onnx" / "model.onnx")
    assert pipeline.class_names == ("sky", "road")
    assert pipeline.transforms.size((64, 96)) == (32, 48)
    assert pipeline.describe()["labels at"] == ("source image", "config.json")
    assert pipeline.session.meta.reduce_labels
    assert _left_and_right(_labels(pipeline, halves)) == ([1], [1])


BANDS = ("red", "green", "blue", "nir")
NDVI: Any = ((0, 0, 0, 0), (-1, 0, 0, 1))  # class 1 where near infrared is above red
RAW = {"type": "Normalize", "scale": 1.0, "mean": 0.0, "std": 1.0}


@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        (("N", 4, "H", "W"), (None, None, None)),
        (("N", "H", "W", 4), (None, None, None)),
        ((1, 4, 64, 96), (1, 64, 96)),
        ((1, 64, 96, 4), (1, 64, 96)),
        (("N", "C", "H", "W"), (None, None, None)),
    ],
)
def test_network_that_takes_bands(tmp_path: Path, shape: Any, dims: Any) -> None:
    file = pixel_network(tmp_path / "m.onnx", NDVI, shape=shape)
    pipeline = segrt.create_pipeline(model_dir=file, bands=list(BANDS), transforms=[RAW])
    assert (pipeline.transforms.channels, pipeline.session.meta.bands) == (4, BANDS)
    assert pipeline.session.description.input.dims == dims
    assert pipeline.describe()["channel order"] == ("red, green, blue, nir", "bands=")
    assert pipeline.describe()["mean"] == ("0, 0, 0, 0", "transforms=")
    image = np.zeros((64, 96, 4), np.uint16)
    image[:, 48:, 3] = 1  # less than a step of 8 bits
    assert _left_and_right(_labels(pipeline, image)) == ([0], [1])
    assert (measure(file) == UNKNOWN) == ("C" in shape)  # only named bands say how many


@pytest.mark.parametrize("shape", [("N", 4, "H", "W"), (1, 64, 96, 4), ("N", 2, "H", "W")])
def test_channels_that_nothing_names_are_refused(tmp_path: Path, shape: Any) -> None:
    count = 2 if 2 in shape else 4
    file = pixel_network(tmp_path / "m.onnx", np.ones((2, count)), shape=shape)
    with pytest.raises(ModelError, match=rf"takes {count} channels, and nothing says which bands"):
        segrt.create_pipeline(model_dir=file, transforms=[RAW])


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (None, "does not say how its 4 bands are prepared: set transforms to a Normalize"),
        ([{"type": "Normalize", "std": 1.0}], "transforms=: .*Normalize.*mean is missing"),
        ([RAW | {"mean": [1, 2, 3]}], "transforms=: .*mean: give 1 or 4 numbers, not 3"),
        ([RAW, {"type": "Padding", "target_size": [8, 8]}], "Padding.*im_padding_value is missing"),
    ],
)
def test_bands_have_no_default_preparation(tmp_path: Path, transforms: Any, message: str) -> None:
    file = pixel_network(tmp_path / "m.onnx", NDVI, shape=("N", 4, "H", "W"))
    with pytest.raises(ModelError, match=message):
        segrt.create_pipeline(model_dir=file, bands=BANDS, transforms=transforms)


def test_bands_must_be_those_of_the_network(tmp_path: Path) -> None:
    file = pixel_network(tmp_path / "m.onnx", NDVI, shape=("N", 4, "H", "W"))
    with pytest.raises(ModelError, match=r"takes 4 channels .*, but 3 bands are named"):
        segrt.create_pipeline(model_dir=file, bands=BANDS[:3], transforms=[RAW])
    for names in ([], "red", ["red", "red"], ["red", 3], [""]):
        with pytest.raises(ConfigError, match=r"bands .* is not valid: give a list"):
            segrt.create_pipeline(model_dir=file, bands=names, transforms=[RAW])  # type: ignore[arg-type]


def test_bands_in_metadata_and_configurations(tmp_path: Path) -> None:
    shape, listed = ("N", 4, "H", "W"), [RAW | {"mean": [1, 2, 3, 4]}]
    metadata = {"name": "m", "bands": BANDS, "transforms": listed}
    pixel_network(tmp_path / "m.onnx", NDVI, shape=shape, metadata=metadata)
    described = segrt.create_pipeline(model_dir=tmp_path).describe()
    assert described["mean"] == ("1, 2, 3, 4", "the metadata of m.onnx")
    assert described["channel order"] == (", ".join(BANDS), "the metadata of m.onnx")
    yml = "Deploy:\n  bands: [red, green, blue, nir]\n  transforms: [{type: Normalize, mean: [1, 2, 3, 4], std: 1, scale: 1}]\n"  # noqa: E501
    (tmp_path / "inference.yml").write_text(yml)
    segrt.create_pipeline(model_dir=tmp_path)  # they agree
    pixel_network(tmp_path / "m.onnx", NDVI, shape=shape)
    described = segrt.create_pipeline(model_dir=tmp_path).describe()
    assert described["channel order"] == (", ".join(BANDS), "inference.yml")
    (tmp_path / "deploy.yaml").write_text(yml.replace("nir", "swir"))
    with pytest.raises(ModelError, match=r"inference\.yml and deploy\.yaml state different bands"):
        segrt.create_pipeline(model_dir=tmp_path)
    (tmp_path / "deploy.yaml").write_text(yml.replace("nir", "red"))
    with pytest.raises(ModelError, match=r"deploy\.yaml: Deploy\.bands.*'red' is named twice"):
        segrt.create_pipeline(model_dir=tmp_path)


def test_three_bands_are_no_picture(tmp_path: Path) -> None:
    file = pixel_network(tmp_path / "m.onnx", ((0, 0, 0), (1, 0, 0)))
    pipeline = segrt.create_pipeline(
        model_dir=file, bands=["nir", "red", "green"], transforms=[RAW | {"mean": 300}]
    )
    image = np.zeros((64, 96, 3), np.uint16)
    image[:, 48:, 0] = 301
    assert _left_and_right(_labels(pipeline, image)) == ([0], [1])


def test_bands_of_uint8_for_a_network_of_uint8(tmp_path: Path) -> None:
    file = pixel_network(tmp_path / "m.onnx", NDVI, dtype=T.UINT8, shape=("N", 4, "H", "W"))
    pipeline = segrt.create_pipeline(model_dir=file, bands=BANDS, transforms=[RAW])
    image = np.zeros((64, 96, 4), np.uint8)
    image[:, 48:, 3] = 200
    assert _left_and_right(_labels(pipeline, image)) == ([0], [1])
    with pytest.raises(InputError, match="takes bands of uint8, not uint16"):
        pipeline.segment(image.astype(np.uint16))
