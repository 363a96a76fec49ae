"""Export of tiny networks in the layouts that PaddleSeg and PaddleX users have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import pytest

from segrt.errors import ExportError
from segrt.metadata import KEY, ModelMeta
from segrt_export import cli, parity
from segrt_export.exporter import export
from segrt_export.program import PaddleModel

pytestmark = pytest.mark.skipif(
    not (find_spec("paddle") and find_spec("paddle2onnx")),
    reason="needs the export extra: pip install 'segrt[export]'",
)

DYNAMIC = "-1,3,-1,-1"
NETWORKS = {  # by folder: tail, number of channels, stride of the logits, shape of the input
    "argmax2": ("argmax", 2, 2, DYNAMIC),
    "none21": ("none", 21, 4, DYNAMIC),
    "softmax171": ("softmax", 171, 1, "1,3,48,64"),
    "sigmoid1": ("sigmoid", 1, 2, DYNAMIC),
    "squeezed1": ("squeezed", 1, 2, DYNAMIC),
    "none1": ("none", 1, 2, "1,3,64,96"),
    "argmax1": ("argmax", 1, 2, DYNAMIC),
    "masks": ("masks", 5, 2, DYNAMIC),
    "even": ("even", 2, 1, DYNAMIC),
    "fixed": ("argmax", 3, 2, "1,3,64,96"),
    "size": ("none", 3, 2, "-1,3,56,98"),
    "batch": ("softmax", 3, 2, "2,3,-1,-1"),
    "height": ("none", 3, 2, "1,3,56,-1"),
    "bands": ("argmax", 3, 2, "-1,4,-1,-1"),
}
BANDS = "  bands: [red, green, blue, nir]\n"
"""All in Paddle 3's format; `v2/...` has the same in Paddle 2's, of these:"""
PADDLE2 = ("none21", "fixed")

_BUILD = """
import sys
import paddle

F = paddle.nn.functional
paddle.seed(3)


class Net(paddle.nn.Layer):
    def __init__(self, channels, classes, tail, stride):
        super().__init__()
        self.conv = paddle.nn.Conv2D(channels, classes, 3, stride=stride, padding=1)
        self.tail = tail

    def forward(self, x):
        y = self.conv(x)
        if self.conv._stride[0] > 1:
            y = F.interpolate(y, size=paddle.shape(x)[2:], mode="bilinear")
        if self.tail == "argmax":
            return paddle.argmax(y, axis=1, dtype="int32")
        if self.tail == "softmax":
            return F.softmax(y, axis=1)
        if self.tail == "sigmoid":
            return F.sigmoid(y)
        if self.tail == "squeezed":
            return F.sigmoid(y).squeeze(1)
        if self.tail == "masks":
            return y.mean([2, 3]), y
        if self.tail == "even":
            return y + F.interpolate(F.avg_pool2d(y, 2), scale_factor=2, mode="bilinear")
        return y


for line in sys.stdin.read().splitlines():
    target, classes, tail, stride, shape = line.split("|")
    shape = [int(side) if side != "-1" else None for side in shape.split(",")]
    spec = [paddle.static.InputSpec(shape, "float32", "x")]
    net = paddle.jit.to_static(
        Net(shape[1], int(classes), tail, int(stride)), input_spec=spec, full_graph=True
    )
    net.eval()
    paddle.jit.save(net, target)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the networks, each with the configuration that PaddleSeg writes."""
    root = tmp_path_factory.mktemp("networks")
    script = root / "build.py"
    script.write_text(_BUILD)
    # Paddle's switch between its formats applies to a whole process.
    for names, parent, stem, flag in (
        (tuple(NETWORKS), root, "inference", "1"),
        (PADDLE2, root / "v2", "model", "0"),
    ):
        lines = []
        for name in names:
            tail, channels, stride, shape = NETWORKS[name]
            lines.append(f"{parent / name / stem}|{channels}|{tail}|{stride}|{shape}")
            (parent / name).mkdir(parents=True)
            op = tail if tail in ("argmax", "softmax") else "none"
            (parent / name / "deploy.yaml").write_text(
                f"Deploy:\n  output_op: {op}\n{BANDS if name == 'bands' else ''}"
                "  transforms:\n  - {type: Normalize, mean: 0.5, std: 0.5}\n"
            )
        done = subprocess.run(
            [sys.executable, str(script)],
            input="\n".join(lines),
            env=os.environ | {"FLAGS_enable_pir_api": flag},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return root


class Result:
    """An export: its report, metadata and shapes."""

    def __init__(self, file: Path) -> None:
        self.report: dict[str, Any] = json.loads(file.with_suffix(".parity.json").read_text())
        model = onnx.load(str(file))
        props = {item.key: item.value for item in model.metadata_props}
        self.meta = ModelMeta.loads(props[KEY], file=file.name)
        self.operators = {node.op_type for node in model.graph.node}
        self.shapes = [case["shape"] for case in self.report["parity"]["cases"]]


@pytest.fixture(scope="module")
def results(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """All of them exported by one call, and its exit status."""
    out = tmp_path_factory.mktemp("out")
    for name in PADDLE2:
        (folders / "v2" / name).rename(folders / f"{name}_v2")
    names = (*NETWORKS, *(f"{name}_v2" for name in PADDLE2))
    status = cli.run(*(str(folders / name) for name in names), models=cli.ModelOptions(out=out))
    return out, status


def test_one_call_exports_all_that_can_be_exported(results: tuple[Path, int]) -> None:
    out, status = results
    written = {file.stem for file in out.glob("*.onnx")}
    expected = {*NETWORKS, *(f"{name}_v2" for name in PADDLE2)} - {"masks", "argmax1"}
    assert (written, status) == (expected, 1)


@pytest.mark.parametrize(
    ("name", "upsampled"),
    [
        ("argmax2", True),
        ("none21", True),
        ("none21_v2", True),
        ("softmax171", False),
        ("sigmoid1", True),
        ("squeezed1", True),
        ("none1", True),
        ("fixed", True),
        ("fixed_v2", True),
        ("size", True),
        ("batch", True),
        ("height", True),
        ("bands", True),
        ("even", False),
    ],
)
def test_graphs_end_at_the_logits_and_agree_with_paddle(
    results: tuple[Path, int], name: str, upsampled: bool
) -> None:
    result = Result(results[0] / f"{name}.onnx")
    assert result.meta.output == "logits"
    assert (result.meta.upsample is not None) == upsampled
    assert not {"ArgMax", "Softmax", "Sigmoid", "Squeeze"} & result.operators
    assert result.meta.resize_in == "float32"
    assert set(result.meta.source) >= {"deploy.yaml"}
    parity = result.report["parity"]
    assert parity["worst"] >= 0.9999
    assert max(case["max_logit_diff"] for case in parity["cases"]) < 1e-4


def test_sizes_and_batches_are_those_that_the_model_accepts(results: tuple[Path, int]) -> None:
    out = results[0]
    assert Result(out / "fixed.onnx").shapes == [[1, 3, 64, 96]]
    assert Result(out / "size.onnx").shapes == [[1, 3, 56, 98], [3, 3, 56, 98]]
    assert {shape[0] for shape in Result(out / "batch.onnx").shapes} == {2}
    assert {shape[2] for shape in Result(out / "height.onnx").shapes} == {56}
    assert len(Result(out / "argmax2.onnx").shapes) == 5


def test_bands_are_named_in_the_configuration_or_the_call(
    results: tuple[Path, int], folders: Path, tmp_path: Path
) -> None:
    result = Result(results[0] / "bands.onnx")
    assert result.meta.bands == ("red", "green", "blue", "nir")
    assert result.shapes[0] == [1, 4, 360, 480]
    config = folders / "bands" / "deploy.yaml"
    text = config.read_text()
    config.write_text(text.replace(BANDS, ""))
    with pytest.raises(ExportError, match=r"needs one input, N x 3 x .*Deploy\.bands"):
        export(PaddleModel.open(folders / "bands"), tmp_path / "m.onnx")
    named = PaddleModel.open(folders / "bands", bands=("a", "b", "c", "d"))
    assert named.meta.bands == ("a", "b", "c", "d")
    config.write_text("Deploy:\n" + BANDS)
    with pytest.raises(ExportError, match="does not say how its bands are prepared"):
        PaddleModel.open(folders / "bands")
    config.write_text(text)


def test_sizes_that_paddle_refuses_are_listed(results: tuple[Path, int]) -> None:
    even = Result(results[0] / "even.onnx")
    refused = even.report["parity"]["refused"]
    assert list(refused) == ["sample.png at 333x517", "sample.png at 97x211"]
    assert "refused" not in Result(results[0] / "none21.onnx").report["parity"]


def test_networks_that_predict_masks_are_refused_in_one_sentence(
    folders: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError) as caught:
        export(PaddleModel.open(folders / "masks"), tmp_path / "m.onnx")
    assert str(caught.value).startswith(
        "the program's output is ? x 5 and ? x 5 x ? x ?, and segrt"
    )
    assert "MaskFormer" in str(caught.value)


def test_an_argmax_over_one_channel_is_refused(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="ends in ArgMax over a single channel"):
        export(PaddleModel.open(folders / "argmax1"), tmp_path / "m.onnx")


def test_class_names_and_output_op_must_fit_the_network(folders: Path, tmp_path: Path) -> None:
    for name, text, message in (
        ("none21", "PostProcess: {label_list: [crack]}", "label_list has 1 name for 21 classes"),
        ("sigmoid1", "PostProcess: {label_list: [a, b, c]}", "has 3 names for 2 classes"),
        ("none21", "Deploy: {output_op: argmax}", "states output_op: argmax, but the output of"),
    ):
        folder = tmp_path / f"{name}{len(text)}"
        folder.mkdir()
        for file in ("inference.json", "inference.pdiparams"):
            (folder / file).write_bytes((folders / name / file).read_bytes())
        (folder / "deploy.yaml").write_text(text)
        with pytest.raises(ExportError, match=message):
            export(PaddleModel.open(folder), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("wrong_without", [False, True])
def test_onednn_is_suspected_before_the_export(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_without: bool
) -> None:
    run = parity.PaddleReference.run

    def spoilt(
        self: parity.PaddleReference, batch: parity.Floats
    ) -> tuple[parity.Labels, parity.Floats | None]:
        labels, logits = run(self, batch)
        return (1 - labels if self.onednn or wrong_without else labels), logits

    monkeypatch.setattr(parity, "version", lambda _: "3.2.2")
    monkeypatch.setattr(parity.PaddleReference, "run", spoilt)
    source, file = PaddleModel.open(folders / "argmax2"), tmp_path / "m.onnx"
    if wrong_without:
        with pytest.raises(ExportError, match="nothing was written"):
            export(source, file, sizes=[])
    else:
        assert export(source, file, sizes=[]).report["parity"]["onednn"] is False
