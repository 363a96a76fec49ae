from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segrt.errors import ConfigError
from segrt.render import voc_palette
from segrt.result import SegResult, Timings


def _result(
    input_path: str | None = "x/a.png", page: int | None = None, stem: str = "a", classes: int = 19
) -> SegResult:
    labels = (np.arange(12 * 16) % classes).astype(np.int32).reshape(12, 16)
    return SegResult(
        labels=labels,
        image=np.full((12, 16, 3), 99, np.uint8),
        input_path=input_path,
        page_index=page,
        class_names=tuple(f"class {i}" for i in range(classes)),
        palette=voc_palette(),
        model_name="m",
        provider="CPUExecutionProvider",
        precision="fp32",
        timings=Timings(1.0, 2.0, 3.0),
        stem=stem,
    )


def test_it_is_the_mapping_that_paddlex_gives() -> None:
    result = _result()
    assert dict(result).keys() == {"input_path", "page_index", "pred"}
    assert result["pred"].shape == (1, 12, 16)
    assert result.json["res"]["pred"] == result.labels[None].tolist()
    assert result.img["res"].mode == "RGB"
    assert result.img["res"].size == (16, 12)
    with pytest.raises(KeyError):
        result["labels"]


def test_print_forms(capsys: pytest.CaptureFixture[str]) -> None:
    expected = {"res": {"input_path": "x/ä.png", "page_index": None, "pred": "..."}}
    result = _result("x/ä.png")
    result.print()
    text = capsys.readouterr().out
    assert json.loads(text) == expected
    assert '\n    "res"' in text
    assert "ä" in text
    result.print(ensure_ascii=True)
    assert "\\u00e4" in capsys.readouterr().out
    result.print(format_json=False)
    assert capsys.readouterr().out == f"{expected}\n"


def test_names_in_a_folder(tmp_path: Path) -> None:
    assert _result("q/a.png").save_to_img(tmp_path) == [tmp_path / "a_res.png"]
    assert _result("q/a.bmp").save_to_img(tmp_path / "new/deep") == [tmp_path / "new/deep/a_res.bmp"]
    assert _result("d/doc.pdf", 3, "doc_3").save_to_img(tmp_path) == [tmp_path / "doc_3_res.png"]
    assert _result("one.tif", 0, "one_0").save_to_img(tmp_path) == [tmp_path / "one_0_res.tif"]
    assert _result(None, stem="image").save_to_img(tmp_path) == [tmp_path / "image_res.png"]
    assert _result("q/a.jpg").save_to_json(tmp_path) == tmp_path / "a_res.json"


def test_a_file_name_is_used_as_it_is(tmp_path: Path) -> None:
    assert _result().save_to_img(str(tmp_path / "out.PNG")) == [tmp_path / "out.PNG"]
    assert _result().save_to_json(tmp_path / "out.json") == tmp_path / "out.json"
    assert _result().save_overlay(tmp_path / "over.png") == tmp_path / "over.png"


def test_png_is_indexed_and_lossless(tmp_path: Path) -> None:
    result = _result()
    (path,) = result.save_to_img(tmp_path)
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), result.labels)
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(result.img["res"]))


def test_beside_a_jpeg_stands_a_lossless_png(tmp_path: Path) -> None:
    result = _result("q/a.jpg")
    assert result.save_to_img(tmp_path) == [tmp_path / "a_res.jpg", tmp_path / "a_res.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a_res.png")), result.labels)


@pytest.mark.parametrize("suffix", ["bmp", "dib", "webp", "ppm", "pnm", "pgm", "pbm", "tif", "tiff", "ras", "sr"])
def test_every_other_suffix_is_written_without_loss(tmp_path: Path, suffix: str) -> None:
    result = _result(f"a.{suffix}")
    (path,) = result.save_to_img(tmp_path)
    assert path.name == f"a_res.{suffix}"
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(result.img["res"]))


def test_json_file_holds_the_labels(tmp_path: Path) -> None:
    result = _result()
    content = json.loads(result.save_to_json(tmp_path).read_text())
    assert content.keys() == {"input_path", "page_index", "pred"}
    np.testing.assert_array_equal(np.array(content["pred"]), result["pred"])
    indented = json.loads(result.save_to_json(tmp_path, indent=4).read_text())
    assert indented == content


def test_areas_are_shares_in_order() -> None:
    areas = _result().areas()
    assert sum(areas.values()) == pytest.approx(1)
    assert list(areas.values()) == sorted(areas.values(), reverse=True)


def test_overlay_has_a_legend_unless_told_otherwise() -> None:
    result = _result()
    assert result.overlay(legend=False).size == (16, 12)
    assert result.overlay().width > 16
    with pytest.raises(ConfigError, match="alpha 2 is not valid"):
        result.overlay(2)


def test_more_than_256_classes_still_make_a_png(tmp_path: Path) -> None:
    (path,) = _result(classes=300).save_to_img(tmp_path)
    assert Image.open(path).mode == "RGB"


def test_labels_must_fit_the_image() -> None:
    with pytest.raises(ValueError, match="don't fit"):
        SegResult(
            np.zeros((2, 2), np.int32), np.zeros((3, 2, 3), np.uint8), None, None, (), voc_palette(), "m", "p", "fp32",
            Timings(0, 0, 0), "a",
        )  # fmt: skip


def test_nothing_half_written_when_the_target_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a_res.png").mkdir()
    with pytest.raises(OSError, match=r"a_res\.png"):
        _result().save_to_img(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a_res.png"]
