from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml

from segrt import files, zoo
from segrt.errors import MissingExtraError
from segrt_export import cli, export_stock, untrained
from segrt_export.parity import PaddleReference
from segrt_export.program import PaddleModel

needs_paddle = pytest.mark.skipif(
    not (find_spec("paddle") and find_spec("paddleseg")),
    reason="needs the export extra and paddleseg: make export-test",
)


def test_the_names_match_the_zoo() -> None:
    assert set(untrained.NAMES) == {spec.name for spec in zoo.load().models if not spec.bundled}


def test_invalid_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown model 'x'; known: OCRNet_HRNet-W48"):
        untrained.build_untrained("x", tmp_path / "m")
    with pytest.raises(ValueError, match="2 class names for num_classes=3"):
        untrained.build_untrained(
            "PP-LiteSeg-T", tmp_path / "m", num_classes=3, class_names=["a", "b"]
        )
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "kept").write_text("x")
    with pytest.raises(FileExistsError, match="is not empty"):
        untrained.build_untrained("PP-LiteSeg-T", tmp_path / "m")


_EXTRA, _CPU = "pip install 'segrt[export]'", "pip install 'segrt[cpu]'"
_PADDLESEG = "pip install --no-deps paddleseg==2.8.0"
_NEEDED = (
    *("paddle", "paddle2onnx", "onnx", "onnxslim", "onnxruntime"),
    *("requests", "scipy", "six", "sklearn", "tqdm", "paddleseg"),
)


@pytest.mark.parametrize(
    ("absent", "commands"),
    [
        (("paddle",), _EXTRA),
        (("paddleseg",), _PADDLESEG),
        (("onnxslim",), _EXTRA),
        (("onnxruntime",), _CPU),
        (("sklearn", "paddleseg"), f"{_EXTRA} && {_PADDLESEG}"),
        (_NEEDED, f"{_EXTRA} && {_CPU} && {_PADDLESEG}"),
    ],
)
def test_what_is_missing_is_named_with_the_commands_before_anything_is_built(
    absent: tuple[str, ...],
    commands: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in _NEEDED:  # of the others, nothing but their presence matters
        (tmp_path / f"{name}.py").write_text("")
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in absent:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.syspath_prepend(tmp_path)
    command = ["segrt-export", "PP-LiteSeg-T", "--untrained", "-o", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as exited:
        cli.main()
    said = capsys.readouterr().err.splitlines()[-1]
    verb = "is" if len(absent) == 1 else "are"
    needs = f"this needs {', '.join(absent)}, which {verb} not installed: run {commands}"
    assert (exited.value.code, said) == (1, f"segrt-export: PP-LiteSeg-T: {needs}")
    assert not (tmp_path / "out").exists()


def test_seaformer_needs_no_paddleseg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in _NEEDED:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"onnxruntime, which are .*segrt\[cpu\]'$"):
        untrained.build_untrained("SeaFormer_tiny (slice)", tmp_path / "m")


@needs_paddle
def test_weights_are_usable_and_depend_on_the_seed_alone(tmp_path: Path) -> None:
    name = "SeaFormer_tiny (slice)"
    folders = [
        untrained.build_untrained(name, tmp_path / str(i), seed=seed, num_classes=7)
        for i, seed in enumerate((1, 1, 2))
    ]
    digests = [files.sha256(folder / "inference.pdiparams") for folder in folders]
    assert digests[0] == digests[1] != digests[2]
    config = yaml.safe_load((folders[0] / "inference.yml").read_text())
    assert config["PostProcess"]["label_list"] == [f"class_{i}" for i in range(7)]
    (tmp_path / "work").mkdir()
    reference = PaddleReference(PaddleModel.open(folders[0]), tmp_path / "work")
    scene = (
        np.random.default_rng(0)
        .standard_normal((1, 3, 8, 12))
        .repeat(16, axis=2)
        .repeat(16, axis=3)
    )
    labels, logits = reference.run(scene.astype(np.float32).clip(-1, 1))
    assert logits is not None
    assert np.isfinite(logits).all()
    assert labels.shape == (1, 128, 192)
    assert len(np.unique(labels)) >= 3
    assert 0 <= labels.min() <= labels.max() < 7


@needs_paddle
def test_a_fitted_classifier_labels_the_photos_it_was_fitted_to(tmp_path: Path) -> None:
    # Class 4 is left: dark; class 2 right: bright; 255 in a corner is ignored, and so is no class.
    labels = np.full((64, 96), 4, np.uint8)
    labels[:, 48:] = 2
    image = np.where(labels[..., None] == 4, 40, 210).astype(np.uint8).repeat(3, axis=2)
    image += np.random.default_rng(0).integers(0, 20, image.shape, np.uint8)
    labels[:8, :8] = 255
    name = "SeaFormer_tiny (slice)"
    folder = untrained.build_untrained(
        name, tmp_path / "fitted", num_classes=7, photos=[(image, labels)]
    )
    (tmp_path / "work").mkdir()
    reference = PaddleReference(PaddleModel.open(folder), tmp_path / "work")
    batch = (image[None, :, :, ::-1].transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5
    found, _ = reference.run(batch.astype(np.float32))
    known = labels != 255
    assert (found[0] == labels)[known].mean() > 0.9
    assert set(np.unique(found)) <= {2, 4}
    with pytest.raises(ValueError, match="photos can't be fitted with format='pdmodel'"):
        untrained.build_untrained(
            name, tmp_path / "other", format="pdmodel", photos=[(image, labels)]
        )


@needs_paddle
def test_the_stock_graph_ends_in_labels(paddle_lite: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    source = PaddleModel.open(paddle_lite)
    export_stock(source, tmp_path / "stock.onnx")
    graph = onnx.load(str(tmp_path / "stock.onnx")).graph
    kinds = [node.op_type for node in graph.node]
    assert "ArgMax" in kinds
    assert kinds.count("Resize") >= 1
    assert [d.dim_param for d in graph.input[0].type.tensor_type.shape.dim] == ["N", "", "H", "W"]
