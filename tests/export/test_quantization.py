from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from conftest import write_colour_model
from graphs import Net, kinds, pixel_network
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import segrt
from segrt import cli, graph_tail, second_graph, tuning
from segrt.errors import ConfigError, ExportError, InputError, ModelError, SegrtError
from segrt.metadata import KEY, ModelMeta, Upsample
from segrt_export import quantization
from segrt_export.cli import main
from segrt_export.quantization import Device, Limit, quantize

SIZE = (32, 48)
META = ModelMeta(
    name="blocks",
    class_names=("red", "green", "blue"),
    palette=((255, 0, 0), (0, 255, 0), (0, 0, 255)),
    upsample=Upsample(stride=1),
    ignore_index=9,
)

# A huge channel that no later layer uses leaves no digits to the three that decide.
LOUD = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [4000, 4000, 4000]]
PLAIN = np.eye(3, 4)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of ten photos of coloured blocks."""
    (tmp_path / "photos").mkdir()
    random = np.random.default_rng(3)
    for number in range(10):
        blocks = random.integers(0, 256, (8, 12, 3), np.uint8)
        image = Image.fromarray(blocks).resize(SIZE[::-1], Image.Resampling.NEAREST)
        image.save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


def _write(
    path: Path,
    *weights: npt.ArrayLike,
    batch: str | int = "N",
    half: bool = False,
    props: dict[str, str] | None = None,
) -> Path:
    """Write a chain of 1 x 1 convolutions with segrt's metadata."""
    net = Net()
    last = "x"
    for weight in weights:
        values = np.asarray(weight, np.float32)[:, :, None, None]
        name = net.const(values, np.float16 if half else np.float32)
        name = net.add("Cast", name, to=TensorProto.FLOAT) if half else name
        last = net.add("Conv", last, name, net.const(np.zeros(len(values))))
    model = net.model(net.add("Identity", last, output="logits"))
    model.graph.input[0].type.tensor_type.shape.dim[0].CopyFrom(
        onnx.TensorShapeProto.Dimension(
            **{"dim_value" if isinstance(batch, int) else "dim_param": batch}
        )
    )
    helper.set_model_props(
        model, {KEY: META.model_dump_json(exclude_defaults=True), **(props or {})}
    )
    onnx.save(model, str(path))
    return path


def _chain(tmp_path: Path, **options: Any) -> Path:
    random = np.random.default_rng(0)
    wide = np.concatenate([np.eye(3), random.normal(0, 0.3, (5, 3))])
    narrow = np.concatenate([np.eye(3), random.normal(0, 0.1, (3, 5))], axis=1)
    return _write(tmp_path / "blocks.onnx", wide, narrow, **options)


def _labels(file: Path, photos: Sequence[Path], **options: Any) -> list[segrt.SegResult]:
    pipeline = segrt.create_pipeline(model_dir=file, device="cpu", **options)
    results = list(pipeline.predict(photos))
    assert all(isinstance(result, segrt.SegResult) for result in results)
    return results


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("options", [{}, {"half": True}, {"batch": 2}])
def test_the_result_is_an_ordinary_model_file(
    device: Any, options: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    file, target = _chain(tmp_path, **options), tmp_path / "new" / "blocks.int8.onnx"
    done = quantize(file, target, photos, limit=Limit(max_drop=5), device=device)
    assert done.file == target
    model = onnx.load(str(target))
    assert kinds(model).count("QuantizeLinear") == 2
    (data,) = [p.value for p in model.metadata_props if p.key == KEY]
    assert ModelMeta.model_validate_json(data) == META.model_copy(update={"passes": ("int8",)})
    zeros = [
        numpy_helper.to_array(i)
        for i in model.graph.initializer
        if i.name in {n.input[2] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    ]
    assert all(zero.dtype == (np.int8 if device == "gpu" else np.uint8) for zero in zeros)
    assert device == "cpu" or not any(map(np.any, zeros))  # as TensorRT requires
    (result,) = _labels(target, [photos / "1.png"], mode="high-performance")
    assert result.precision == "int8"
    assert result.class_names == META.class_names
    (normal,) = _labels(target, [photos / "1.png"])
    assert normal.precision == "fp32"
    assert (result.labels == normal.labels).mean() > 0.99


def test_the_report_is_of_photos_that_did_not_calibrate(photos: Path, tmp_path: Path) -> None:
    file, target, steps = _chain(tmp_path), tmp_path / "int8.onnx", list[tuple[str, int, int]]()
    done = quantize(
        file, target, photos, limit=Limit(max_drop=5), progress=lambda *step: steps.append(step)
    )
    report = json.loads(done.report_file.read_text())
    assert done.report_file == tmp_path / "int8.json"
    assert report == done.report
    assert report["calibrated_on"] == [f"{n}.png" for n in range(0, 10, 2)]
    measured = [photos / f"{n}.png" for n in range(1, 10, 2)]
    assert [*report["photos"]] == [photo.name for photo in measured]
    same = [
        100 * (a.labels == b.labels).mean()
        for a, b in zip(_labels(file, measured), _labels(target, measured), strict=True)
    ]
    assert [*report["photos"].values()] == pytest.approx(same, abs=1e-3)
    assert report["agreement"] == pytest.approx(np.mean(same), abs=1e-3)
    assert report["worst"]["agreement"] == pytest.approx(min(same), abs=1e-3)
    assert (report["layers"], report["float_layers"]) == (2, [])
    assert report["bytes"] == target.stat().st_size
    assert ("calibrating", 5, 5) in steps
    assert ("measuring", 5, 5) in steps


def test_a_layer_that_costs_accuracy_stays_in_fp32(photos: Path, tmp_path: Path) -> None:
    file = _write(tmp_path / "m.onnx", np.eye(3), LOUD, PLAIN, np.eye(3))
    done = quantize(file, tmp_path / "int8.onnx", photos, limit=Limit(max_drop=2))
    (kept,) = done.report["float_layers"]
    convolutions = [n for n in onnx.load(str(file)).graph.node if n.op_type == "Conv"]
    assert kept["layer"] == convolutions[2].output[0]
    assert kept["labels_changed"] > 20
    assert done.report["agreement"] >= 98
    model = onnx.load(str(done.file))
    (float_layer,) = [
        n for n in model.graph.node if n.op_type == "Conv" and n.name == kept["layer"]
    ]
    assert float_layer.input[0] == convolutions[2].input[0]
    assert kinds(model).count("QuantizeLinear") == 3


@pytest.mark.parametrize("groups", [2, 3])
def test_layers_of_large_networks_are_compared_in_groups_first(
    groups: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "_GROUPS", groups)
    plain = [np.eye(3)] * 3
    file = _write(tmp_path / "m.onnx", *plain, LOUD, PLAIN, *plain)
    steps: list[tuple[str, int, int]] = []
    done = quantize(
        file,
        tmp_path / "int8.onnx",
        photos,
        limit=Limit(max_drop=2),
        progress=lambda *step: steps.append(step),
    )
    (kept,) = done.report["float_layers"]
    convolutions = [n for n in onnx.load(str(file)).graph.node if n.op_type == "Conv"]
    assert kept["layer"] == convolutions[4].output[0]
    compared = [step for step in steps if step[0] == "comparing layers"]
    assert compared == [("comparing layers", n, 2 * groups) for n in range(1, 2 * groups + 1)]
    assert done.report["agreement"] >= 98


def test_a_model_that_loses_too_much_is_not_written(photos: Path, tmp_path: Path) -> None:
    again = np.concatenate([PLAIN, [[4000, 4000, 4000, 0]]])
    file = _write(tmp_path / "m.onnx", LOUD, again, PLAIN)
    with pytest.raises(ExportError, match=r"int8 costs [\d.]+ % of the labels on 5 photos, more"):
        quantize(file, tmp_path / "out" / "int8.onnx", photos, limit=Limit(max_drop=1))
    assert not (tmp_path / "out").exists()


def test_miou_is_that_of_the_labels(photos: Path, tmp_path: Path) -> None:
    file, target, truth = _chain(tmp_path), tmp_path / "int8.onnx", tmp_path / "truth"
    truth.mkdir()
    measured = [photos / f"{n}.png" for n in range(1, 10, 2)]
    for result in _labels(file, measured):
        labels = result.labels.astype(np.uint8)
        labels[:4] = 9  # is ignored
        Image.fromarray(labels).save(truth / f"{Path(str(result.input_path)).stem}.png")
    done = quantize(file, target, photos, labels=truth, limit=Limit("miou", 5))
    assert done.report["miou_float"] == 100
    assert done.report["drop"] == pytest.approx(100 - done.report["miou"])
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(truth / "1.png")
    with pytest.raises(InputError, match=r"1.png: labels of shape \(3, 3\) don't fit"):
        quantize(file, target, photos, labels=truth)
    for void in truth.iterdir():
        Image.fromarray(np.full(SIZE, 9, np.uint8)).save(void)
    with pytest.raises(InputError, match="labels no pixel of the 5 photos that measure"):
        quantize(file, target, photos, labels=truth)
    (truth / "1.png").unlink()
    with pytest.raises(InputError, match=r"photos/1.png has no labels: .*truth/1.png does not"):
        quantize(file, target, photos, labels=truth)
    with pytest.raises(ConfigError, match="the metric miou needs labels"):
        quantize(file, target, photos, limit=Limit("miou"))


def test_labels_are_in_the_subfolders_of_the_photos(photos: Path, tmp_path: Path) -> None:
    file, truth = _chain(tmp_path), tmp_path / "truth"
    for number, photo in enumerate(sorted(photos.iterdir())):
        folder = photos / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        photo.rename(folder / f"{number // 2}.png")
    measured = sorted(photos.rglob("*.png"))[1::2]
    for result in _labels(file, measured):
        own = truth / Path(str(result.input_path)).relative_to(photos)
        own.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(result.labels.astype(np.uint8)).save(own)
    limit = Limit("miou", 5)
    done = quantize(file, tmp_path / "int8.onnx", photos, labels=truth, limit=limit)
    assert done.report["miou_float"] == 100
    assert list(done.report["photos"]) == [f.relative_to(photos).as_posix() for f in measured]
    (truth / "b").rename(truth / "c")
    with pytest.raises(InputError, match=r"photos/b/.* has no labels"):
        quantize(file, tmp_path / "int8.onnx", photos, labels=truth, limit=limit)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_how_values_are_rounded(photos: Path, tmp_path: Path, device: Device) -> None:
    file = _chain(tmp_path)
    done = quantize(file, tmp_path / "q.onnx", photos, limit=Limit(max_drop=9), device=device)
    assert graph_tail.rounded(done.file) == ("int8" if device == "gpu" else "uint8")
    assert graph_tail.rounded(file) == ""


def test_the_second_graph_is_left_out(photos: Path, tmp_path: Path) -> None:
    file = _chain(tmp_path, props={second_graph.KEY: "AAAA"})
    done = quantize(file, tmp_path / "int8.onnx", photos, limit=Limit(max_drop=5))
    assert second_graph.read(done.file) is None


def _refused(file: Path, photos: Path, words: str, error: type[SegrtError]) -> None:
    target = file.with_name("out") / "int8.onnx"
    with pytest.raises(error, match=words) as caught:
        quantize(file, target, photos)
    assert "\n" not in str(caught.value)
    assert not target.parent.exists()


def test_unusable_models_are_refused(photos: Path, tmp_path: Path) -> None:
    file = _chain(tmp_path)
    done = quantize(file, tmp_path / "int8.onnx", photos, limit=Limit(max_drop=5))
    _refused(done.file, photos, "is quantised already", ExportError)
    _refused(pixel_network(tmp_path / "p.onnx"), photos, "does not come from segrt", ExportError)
    colours = write_colour_model(tmp_path / "c.onnx")
    _refused(colours, photos, "colours has no convolution to quantise", ExportError)
    (tmp_path / "text.onnx").write_text("no model")
    _refused(tmp_path / "text.onnx", photos, "text.onnx", ModelError)
    with pytest.raises(ConfigError, match="is the model itself"):
        quantize(file, file, photos)
    with pytest.raises(ConfigError, match="max_drop -1 is not valid"):
        Limit(max_drop=-1)


def test_unusable_photos_are_refused(photos: Path, tmp_path: Path) -> None:
    file = _chain(tmp_path)
    _refused(file, tmp_path / "nowhere", "nowhere contains no photo: No such file", InputError)
    (tmp_path / "empty").mkdir()
    _refused(file, tmp_path / "empty", "empty contains 0 photos: half of them", InputError)
    (photos / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    _refused(file, photos, "3.png", InputError)


def test_attention_is_named(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    net = Net()
    x = net.add("Softmax", net.add("Conv", "x", net.const(np.eye(3)[:, :, None, None])), axis=1)
    model = net.model(net.add("Identity", x, output="logits"))
    helper.set_model_props(model, {KEY: META.model_dump_json(exclude_defaults=True)})
    onnx.save(model, str(tmp_path / "m.onnx"))
    quantize(tmp_path / "m.onnx", tmp_path / "int8.onnx", photos, limit=Limit(max_drop=20))
    assert "blocks has 1 attention layers" in caplog.text


def test_tune_measures_int8(photos: Path, tmp_path: Path, home: Path) -> None:
    done = quantize(_chain(tmp_path), tmp_path / "i.onnx", photos, limit=Limit(max_drop=5))
    measured, _ = tuning.tune_model(
        str(done.file), "32x48", photos, "cpu", 1, 0.9, lambda step, total: None
    )
    names = [one.plan.name for one in measured if not one.rejected]
    assert {"cpu fp32", "cpu int8"} <= {*names}
    assert not {"openvino fp32", "openvino bf16"} & {*names}


def test_a_file_is_quantised_if_an_operator_says_so(tmp_path: Path) -> None:
    net = Net()
    named = helper.make_node("Relu", ["x"], ["QuantizeLinear"], name="QuantizeLinear")
    net.nodes.append(named)
    onnx.save(net.model("QuantizeLinear"), str(tmp_path / "named.onnx"))
    assert not graph_tail.rounded(tmp_path / "named.onnx")
    scale, zero = net.const(0.1), net.const(0, np.int8)
    net.add("Add", "QuantizeLinear", net.add("DequantizeLinear", zero, scale, zero))
    onnx.save(net.model("t1"), str(tmp_path / "weights.onnx"))  # of 8 bits
    assert not graph_tail.rounded(tmp_path / "weights.onnx")
    net.add("QuantizeLinear", "x", scale, zero)
    whole = net.model("t1").SerializeToString()
    for length in (len(whole), len(whole) // 2, 1, 0):
        (tmp_path / "cut.onnx").write_bytes(whole[:length])
        assert bool(graph_tail.rounded(tmp_path / "cut.onnx")) == (length == len(whole))


def _command(*arguments: object) -> object:
    tokens = ["quantize", *map(str, arguments)]
    return cli.app(tokens, exit_on_error=False, print_error=False)


def test_the_command(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = _chain(tmp_path), tmp_path / "int8.onnx"
    _command(file, "--images", photos, "-o", out, "--max-drop", 5)
    said = capsys.readouterr().err
    assert f"{out}: " in said
    assert "% of the labels as FP32, worst photo" in said
    assert "2 of 2 convolutions in int8" in said
    assert graph_tail.rounded(out)
    other, taken = tmp_path / "a.onnx", tmp_path / "taken.onnx"
    taken.with_suffix(".json").write_text("{}")
    for wrong, words in (
        ([file, "--images", photos, "-o", out], "exists: delete it, or name another file"),
        ([file, "--images", photos, "-o", taken], "taken.json exists: delete it, or name another"),
        ([tmp_path / "none.onnx", "--images", photos, "-o", other], "does not exist"),
        ([file, "--images", photos, "-o", tmp_path / "a.bin"], "does not end in .onnx"),
        ([file, "--images", photos, "-o", other, "--max-drop", 101], "max_drop 101 is not valid"),
        ([file, "--images", tmp_path / "none", "-o", other], "contains no photo"),
    ):
        with pytest.raises(SegrtError, match=words):
            _command(*wrong)
    assert not other.exists()


def test_a_folder_with_a_model_can_be_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    _chain(tmp_path / "net")
    _command(tmp_path / "net", "--images", photos, "-o", tmp_path / "i.onnx", "--max-drop", 5)
    assert graph_tail.rounded(tmp_path / "i.onnx")


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    code = "import sys; sys.modules['onnx'] = None; import segrt_export; segrt_export.quantize"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "this needs onnx, which is not installed" in done.stderr
    assert "pip install 'segrt[quantize]'" in done.stderr


def test_export_and_quantise(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = pixel_network(tmp_path / "net" / "red.onnx", tail=[("Relu", {})])
    yml = "Deploy: {transforms: [{type: Normalize}], output_op: none, labels: [a, b]}"
    file.with_name("deploy.yaml").write_text(yml)
    out = tmp_path / "out"

    def run(*arguments: object) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["segrt-export", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    assert run(file, "-o", out, "--int8", photos) == 0
    assert "1 in int8" in capsys.readouterr().err
    assert graph_tail.rounded(out / "red.int8.onnx")
    assert not graph_tail.rounded(out / "red.onnx")
    assert run("PP-LiteSeg-T", "--int8", photos) == 2
    assert "--int8 requires an output folder" in capsys.readouterr().err
