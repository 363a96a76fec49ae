from __future__ import annotations

import base64
import copy
import dataclasses
import io
import json
import os
import pickle
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segrt import shapes
from segrt.errors import ConfigError, MissingExtraError
from segrt.formats import IMAGE_SUFFIXES
from segrt.palette import voc_palette
from segrt.result import SegResult, Timings
from segrt.types import LabelFormat


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


def test_mapping_equals_that_of_paddlex() -> None:
    result = _result()
    assert list(dict(result)) == ["input_path", "page_index", "input_img", "pred"]
    assert result["pred"].shape == (1, 12, 16)
    assert (
        list(result.json["res"]) == list(result.str["res"]) == ["input_path", "page_index", "pred"]
    )
    assert result.str["res"]["pred"] == "..."
    assert result.json["res"]["pred"] == result.labels[None].tolist()
    assert result.img["res"].mode == "RGB"
    assert result.img["res"].size == (16, 12)
    with pytest.raises(KeyError):
        result["labels"]


def test_the_repr_is_one_line_without_arrays() -> None:
    result = _result()
    text = repr(result)
    assert text.startswith("<SegResult a.png: 12 x 16, class ")
    assert text.endswith("; m on CPUExecutionProvider fp32, 6.0 ms>")
    assert "\n" not in text
    assert len(text) < 200


def test_notebooks_show_the_overlay_and_the_shares() -> None:
    result = dataclasses.replace(_result(), input_path="<b>.png")
    assert Image.open(io.BytesIO(result._repr_png_())).size == result.overlay().size
    html = result._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;.png" in html
    for name, share in list(result.areas().items())[:12]:
        assert f"{name}</td><td>{share:.1%}</td>" in html
    assert "http" not in html


def test_items_can_be_read_like_those_of_a_dict() -> None:
    result = _result()
    assert isinstance(result, MutableMapping)
    assert "pred" in result
    assert "labels" not in result
    assert result.get("labels") is None
    assert result.get("page_index", 7) is None
    assert [key for key, _ in result.items()] == list(result) == list(result.keys())
    assert len(result) == len([*result.values()]) == 4
    result.image[0, 0] = 1, 2, 3  # BGR
    assert result["input_img"][0, 0].tolist() == [3, 2, 1]
    assert cv2.cvtColor(result["input_img"], cv2.COLOR_RGB2BGR).tolist() == result.image.tolist()
    for other in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert {**other}.keys() == {**result}.keys()
        assert other is not result


def test_assigned_labels_are_those_of_everything(tmp_path: Path) -> None:
    result = _result()
    result["pred"] = np.full((1, 12, 16), 5, np.int64)
    assert result.labels.dtype == np.int32
    assert set(result.labels.ravel().tolist()) == {5}
    assert result.areas() == {"class 5": 1}
    assert result.json["res"]["pred"] == [[[5] * 16] * 12]
    file = result.save_to_json(tmp_path / "a.json")
    assert json.loads(file.read_text())["pred"] == [[[5] * 16] * 12]
    (picture,) = result.save_to_img(tmp_path / "a.png")
    assert set(np.asarray(Image.open(picture)).ravel()) == {5}
    result["pred"][0][:] = 6  # in place, as in PaddleX
    assert set(result.labels.ravel()) == {6}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pred", np.zeros((12, 16), np.int32), r"shape \(12, 16\).* shape \(1, 12, 16\)"),
        ("pred", np.zeros((1, 12, 16)), "type float64"),
        ("pred", np.full((1, 12, 16), 255), "from 255 to 255 .* classes 0 to 18"),
        ("pred", np.full((1, 12, 16), -1), "from -1"),
        ("pred", None, "pred of shape"),
        ("input_img", np.zeros((12, 16), np.uint8), "input_img of shape"),
        ("input_img", np.zeros((12, 16, 3)), "float64"),
        ("input_path", 3, "input_path 3 .* str"),
        ("page_index", "3", "page_index '3' .* int"),
        ("page_index", True, "page_index True"),
        ("time", "noon", "time 'noon' .* int or float"),
    ],
)
def test_items_that_cannot_be_assigned(key: str, value: Any, message: str) -> None:
    result = _result()
    before = {name: getattr(result, name) for name in ("labels", "image", "input_path", "stem")}
    with pytest.raises(ConfigError, match=message):
        result[key] = value
    assert all(getattr(result, name) is value for name, value in before.items())


def test_an_assigned_path_names_the_saved_files(tmp_path: Path) -> None:
    result = _result(input_path=None, stem="image")
    result["input_path"] = Path("frames/f1.jpg")
    assert (result.input_path, result.stem) == ("frames/f1.jpg", "f1")
    assert [file.name for file in result.save_to_img(tmp_path)] == ["f1_res.jpg", "f1_res.png"]
    result["page_index"] = 3
    assert result.save_to_json(tmp_path).name == "f1_3_res.json"
    result["time"] = 0.5
    assert (result.time, result.json["res"]["time"]) == (0.5, 0.5)
    result["input_img"] = np.zeros((12, 16, 3), np.uint8)
    assert not result.image.any()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.labels = result.labels  # type: ignore[misc]


def test_further_items_are_printed_and_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = _result()
    result.update({"note": None, "box": np.array([1, 2]), "file": Path("a/b"), "n": np.int64(3)})
    more = {"note": None, "box": [1, 2], "file": "a/b", "n": 3}
    assert result.json["res"].items() >= more.items()
    file = result.save_to_json(tmp_path)
    assert json.loads(file.read_text()) == result.json["res"]
    result.print()
    assert json.loads(capsys.readouterr().out)["res"].items() >= more.items()
    result.setdefault("note", "none")
    assert result.pop("note") is None
    assert "note" not in result.json["res"]
    result["odd"] = {1, 2}
    for call in (result.print, lambda: result.save_to_json(tmp_path)):
        with pytest.raises(ConfigError, match="item that can't be written as JSON"):
            call()
    result.print(json_format=False)
    assert "{1, 2}" in capsys.readouterr().out


def test_removed_items_are_neither_printed_nor_saved(tmp_path: Path) -> None:
    result = _result()
    assert result.pop("input_img").shape == (12, 16, 3)
    del result["pred"]
    with pytest.raises(KeyError):
        result["pred"]
    for label_format in ("list", "rle", "png"):
        file = result.save_to_json(tmp_path, label_format=label_format)
        assert "pred" not in json.loads(file.read_text())
    assert result.json == result.str == {"res": {"input_path": "x/a.png", "page_index": None}}
    assert result.areas()
    result["pred"] = result.labels[None]
    assert list(result)[-1] == "pred"


def test_both_names_of_the_first_argument_of_print(capsys: pytest.CaptureFixture[str]) -> None:
    result = _result()
    printed = []
    for arguments, keywords in (
        ((), {}),
        ((True,), {}),
        ((), {"json_format": True}),
        ((), {"format_json": True}),
        ((False,), {}),
        ((), {"json_format": False}),
        ((), {"format_json": False}),
    ):
        result.print(*arguments, **keywords)
        printed.append(capsys.readouterr().out)
    assert printed[:4] == [json.dumps(result.str, indent=4) + "\n"] * 4
    assert printed[4:] == [f"{result.str}\n"] * 3
    result.print(json_format=True, indent=0)
    assert '\n"res"' in capsys.readouterr().out


@pytest.mark.parametrize("label_format", ["list", "rle", "png"])
def test_the_time_of_a_frame_is_saved_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], label_format: LabelFormat
) -> None:
    result = dataclasses.replace(_result("clip.mp4", 50), time=2.0)
    assert list(result) == ["input_path", "page_index", "input_img", "time", "pred"]
    assert len(result) == 5
    assert result["time"] == result.json["res"]["time"] == 2.0
    saved = json.loads(result.save_to_json(tmp_path, label_format=label_format).read_text())
    assert list(saved)[:3] == ["input_path", "page_index", "time"]
    assert saved["time"] == 2.0
    result.print()
    printed = json.loads(capsys.readouterr().out)
    assert printed["res"] == {
        "input_path": "clip.mp4",
        "page_index": 50,
        "time": 2.0,
        "pred": "...",
    }
    result.print(format_json=False)
    assert "'time': 2.0" in capsys.readouterr().out
    with pytest.raises(KeyError):
        _result()["time"]


def test_print_formats(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_file_names_in_a_folder(tmp_path: Path) -> None:
    assert _result("q/a.png").save_to_img(tmp_path) == [tmp_path / "a_res.png"]
    assert _result("q/a.bmp").save_to_img(tmp_path / "new/deep") == [
        tmp_path / "new/deep/a_res.bmp"
    ]
    assert _result("d/doc.pdf", 3, "doc_3").save_to_img(tmp_path) == [tmp_path / "doc_3_res.png"]
    assert _result("one.tif", 0, "one_0").save_to_img(tmp_path) == [tmp_path / "one_0_res.tif"]
    assert _result(None, stem="image").save_to_img(tmp_path) == [tmp_path / "image_res.png"]
    assert _result("q/a.jpg").save_to_json(tmp_path) == tmp_path / "a_res.json"


def test_file_name_is_used_unchanged(tmp_path: Path) -> None:
    assert _result().save_to_img(str(tmp_path / "out.PNG")) == [tmp_path / "out.PNG"]
    assert _result().save_to_json(tmp_path / "out.json") == tmp_path / "out.json"
    assert _result().save_overlay(tmp_path / "over.png") == tmp_path / "over.png"


def test_png_is_indexed_and_lossless(tmp_path: Path) -> None:
    result = _result()
    (path,) = result.save_to_img(tmp_path)
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), result.labels)
        np.testing.assert_array_equal(
            np.asarray(image.convert("RGB")), np.asarray(result.img["res"])
        )


def test_jpeg_is_accompanied_by_a_lossless_png(tmp_path: Path) -> None:
    result = _result("q/a.jpg")
    assert result.save_to_img(tmp_path) == [tmp_path / "a_res.jpg", tmp_path / "a_res.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a_res.png")), result.labels)


@pytest.mark.parametrize(
    "suffix", ["bmp", "dib", "webp", "ppm", "pnm", "pgm", "pbm", "tif", "tiff", "ras", "sr"]
)
def test_other_formats_are_lossless(tmp_path: Path, suffix: str) -> None:
    result = _result(f"a.{suffix}")
    (path,) = result.save_to_img(tmp_path)
    assert path.name == f"a_res.{suffix}"
    with Image.open(path) as image:
        np.testing.assert_array_equal(
            np.asarray(image.convert("RGB")), np.asarray(result.img["res"])
        )


@pytest.mark.parametrize("name", ["x.gif", "x.AVIF", "x.jp2", "x.heic", "x.pdf", "x.tga"])
def test_picture_formats_that_are_not_written_are_refused(tmp_path: Path, name: str) -> None:
    for save in (_result().save_to_img, _result().save_overlay):
        with pytest.raises(
            ConfigError, match=rf"can't write '{name}': use \.bmp, .*\.webp, or the"
        ):
            save(tmp_path / name)
    assert not list(tmp_path.iterdir())
    assert _result().save_to_img(f"{tmp_path / name}/") == [tmp_path / name / "a_res.png"]
    assert _result().save_to_img(tmp_path / name) == [tmp_path / name / "a_res.png"]  # exists
    assert _result().save_to_img(tmp_path / "v1.0") == [tmp_path / "v1.0" / "a_res.png"]
    assert _result().save_to_json(tmp_path / "x.txt") == tmp_path / "x.txt" / "a_res.json"


@pytest.mark.parametrize("name", ["a.gif", "a.jfif", "a.avif", "a.tga"])
def test_results_of_other_formats_are_saved_as_png(tmp_path: Path, name: str) -> None:
    assert _result(name).save_to_img(tmp_path) == [tmp_path / "a_res.png"]


@pytest.mark.parametrize("classes", [19, 256, 300, 1000])
def test_distinct_classes_have_distinct_colours(classes: int) -> None:
    labels = np.arange(classes, dtype=np.int32)[None]
    result = dataclasses.replace(
        _result(classes=classes),
        labels=labels,
        image=np.zeros((1, classes, 3), np.uint8),
        palette=voc_palette(classes),
    )
    assert len(np.unique(np.asarray(result.img["res"])[0], axis=0)) == classes
    overlay = np.asarray(result.overlay(1, legend=False, outlines=False))
    np.testing.assert_array_equal(overlay, np.asarray(result.img["res"]))
    width, height = result.overlay().size
    assert width * height > classes * 100 * 18  # room for the lines of the legend


def test_json_file_contains_the_labels(tmp_path: Path) -> None:
    result = _result()
    content = json.loads(result.save_to_json(tmp_path).read_text())
    assert content.keys() == {"input_path", "page_index", "pred"}
    np.testing.assert_array_equal(np.array(content["pred"]), result["pred"])
    indented = json.loads(result.save_to_json(tmp_path, indent=4).read_text())
    assert indented == content


def test_areas_are_sorted_shares() -> None:
    areas = _result().areas()
    assert sum(areas.values()) == pytest.approx(1)
    assert list(areas.values()) == sorted(areas.values(), reverse=True)


def test_overlay_has_a_legend_by_default() -> None:
    result = _result()
    assert result.overlay(legend=False).size == (16, 12)
    assert result.overlay().width > 16
    assert result.overlay(background="white", only="class 3").size == (16, 12)
    with pytest.raises(ConfigError, match="alpha 2 is not valid"):
        result.overlay(2)


def test_label_pictures_may_have_colours_of_their_own(tmp_path: Path) -> None:
    result = dataclasses.replace(_result(), label_palette=voc_palette()[::-1].copy())
    assert result.img["res"].getpixel((0, 0)) == tuple(voc_palette()[255])
    (path,) = result.save_to_img(tmp_path)
    assert Image.open(path).convert("RGB").getpixel((0, 0)) == tuple(voc_palette()[255])
    assert result.overlay(1, legend=False, outlines=False).getpixel((0, 0)) == (128, 0, 0)


def test_a_cut_out_needs_a_format_with_transparency(tmp_path: Path) -> None:
    result = _result()
    path = result.save_overlay(tmp_path, only=["class 3"], background="transparent")
    with Image.open(path) as picture:
        assert picture.mode == "RGBA"
    for name in ("a.webp", "a.tif"):
        path = result.save_overlay(tmp_path / name, only="class 3", background="transparent")
        with Image.open(path) as picture:
            assert picture.mode == "RGBA"
    with pytest.raises(ConfigError, match=r"a\.jpg can't have a transparent background: use \.png"):
        result.save_overlay(tmp_path / "a.jpg", only="class 3", background="transparent")
    assert not (tmp_path / "a.jpg").exists()


def test_png_with_more_than_256_classes_holds_the_class_ids(tmp_path: Path) -> None:
    result = _result(classes=300)
    (path,) = result.save_to_img(tmp_path)
    assert Image.open(path).mode == "I;16"
    np.testing.assert_array_equal(np.asarray(Image.open(path)), result.labels)


def test_labels_must_fit_the_image() -> None:
    with pytest.raises(ValueError, match="don't fit"):
        dataclasses.replace(_result(), labels=np.zeros((2, 2), np.int32))


def test_equality_is_identity() -> None:
    result, same = _result(), _result()
    assert result == result
    assert result != same
    assert len({result, same, result}) == 2


def test_no_partial_file_if_the_target_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a_res.png").mkdir()
    with pytest.raises(OSError, match=r"a_res\.png"):
        _result().save_to_img(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a_res.png"]


def test_masks_match_areas() -> None:
    result = _result(classes=5)
    masks = result.masks()
    assert list(masks) == list(result.areas())
    assert {name: mask.mean() for name, mask in masks.items()} == pytest.approx(result.areas())


def test_legend_alone() -> None:
    result = _result(classes=3)
    picture = np.asarray(result.legend()).reshape(-1, 3)
    for colour in result.palette[:3]:
        assert (picture == colour).all(axis=1).sum() > 100


@pytest.mark.parametrize("indent", [None, 0, 2, 4])
@pytest.mark.parametrize("classes", [1, 9, 150, 1500])
def test_list_json_equals_json_dumps_byte_for_byte(
    tmp_path: Path, indent: int | None, classes: int
) -> None:
    result = _result("null.png", classes=classes)
    object.__setattr__(
        result, "labels", np.random.default_rng(0).integers(0, classes, (12, 16), np.int32)
    )
    text = result.save_to_json(tmp_path, indent).read_text()
    separators = (",", ":") if indent is None else None
    assert text == json.dumps(result.json["res"], indent=indent, separators=separators)


def test_compact_label_formats_contain_the_same_labels(tmp_path: Path) -> None:
    result = _result()
    saved = json.loads(result.save_to_json(tmp_path, label_format="png").read_text())
    assert saved["label_format"] == "png"
    assert saved["class_names"] == list(result.class_names)
    np.testing.assert_array_equal(
        Image.open(io.BytesIO(base64.b64decode(saved["pred"]))), result.labels
    )
    saved = json.loads(result.save_to_json(tmp_path, label_format="rle").read_text())
    assert saved["size"] == [12, 16]
    assert saved["areas"] == result.areas()
    assert saved["model"] == result.model_name
    labels = np.full((12, 16), -1)
    for entry in saved["pred"]:
        labels[_decode(entry["segmentation"])] = entry["category_id"]
    np.testing.assert_array_equal(labels, result.labels)
    with pytest.raises(ConfigError, match="label_format 'x' is not valid: use list, rle, png"):
        result.save_to_json(tmp_path, label_format="x")  # type: ignore[arg-type]


def test_overwrite_false_leaves_files_as_they_are(tmp_path: Path) -> None:
    result = _result("x/a.jpg")
    (tmp_path / "a_res.jpg").write_bytes(b"mine")
    (tmp_path / "a_res.json").write_bytes(b"mine")
    assert result.save_to_img(tmp_path, overwrite=False) == [
        tmp_path / "a_res.jpg",
        tmp_path / "a_res.png",
    ]
    assert result.save_to_json(tmp_path, overwrite=False) == tmp_path / "a_res.json"
    first = result.save_overlay(tmp_path, overwrite=False).read_bytes()
    assert result.save_overlay(tmp_path, alpha=1, overwrite=False).read_bytes() == first
    mine = [file.name for file in tmp_path.iterdir() if file.read_bytes() == b"mine"]
    assert sorted(mine) == ["a_res.jpg", "a_res.json"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a_res.png")), result.labels)
    result.save_to_json(tmp_path)
    assert (tmp_path / "a_res.json").read_bytes() != b"mine"


def test_16_bit_png_with_more_than_256_classes(tmp_path: Path) -> None:
    result = _result(classes=300)
    object.__setattr__(result, "labels", result.labels + 100)
    saved = json.loads(result.save_to_json(tmp_path, label_format="png").read_text())
    np.testing.assert_array_equal(
        Image.open(io.BytesIO(base64.b64decode(saved["pred"]))), result.labels
    )


def _decode(segmentation: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """COCO's run lengths, compressed or not, decoded naively."""
    counts = segmentation["counts"]
    if isinstance(counts, str):
        text, counts = counts, []
        while text:
            value = shift = 0
            more = True
            while more:
                char, text = ord(text[0]) - 48, text[1:]
                value |= (char & 31) << shift
                shift += 5
                more = bool(char & 32)
            if char & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
    flat = [i % 2 == 1 for i, count in enumerate(counts) for _ in range(count)]
    height, width = segmentation["size"]
    return np.array(flat).reshape(width, height).T


def _noise(seed: int, grain: int) -> npt.NDArray[np.int32]:
    """Regions with holes and touching corners."""
    rough = np.random.default_rng(seed).integers(0, 3, (7, 9)).astype(np.int32)
    return rough.repeat(grain, axis=0).repeat(grain, axis=1)


@pytest.mark.parametrize("seed", range(8))
def test_coco_rle_decodes_to_the_masks(seed: int) -> None:
    result = dataclasses.replace(
        _result(), labels=_noise(seed, 70), image=np.zeros((490, 630, 3), np.uint8)
    )
    for compressed in (True, False):
        for entry in result.to_coco_rle(compressed):
            mask = result.labels == entry["category_id"]
            np.testing.assert_array_equal(_decode(entry["segmentation"]), mask)
            x, y, width, height = entry["bbox"]
            assert entry["area"] == mask.sum() == mask[y : y + height, x : x + width].sum()
            assert mask[y].any()
            assert mask[:, x + width - 1].any()


def test_coco_rle_equals_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    for seed in range(4):
        labels = _noise(seed, 1 + 40 * seed)
        runs = shapes.rle_counts(labels)
        for label, text in zip(runs, shapes.rle_strings(runs.values()), strict=True):
            encoded = coco.encode(np.asfortranarray(labels == label, np.uint8))
            assert encoded["counts"].decode() == text


def _fill(polygon: shapes.Polygon, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The pixels whose centres are inside by the even-odd rule."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, np.bool_)
    for ring in (polygon.exterior, *polygon.holes):
        for (x0, y0), (x1, y1) in zip(
            ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True
        ):
            if x0 == x1:  # only vertical edges can be to the left of a centre
                inside ^= (x0 < x) & (min(y0, y1) < y) & (y < max(y0, y1))
    return inside


@pytest.mark.parametrize("grain", [1, 3])
@pytest.mark.parametrize("seed", range(8))
def test_polygons_cover_exactly_their_pixels(seed: int, grain: int) -> None:
    labels = _noise(seed, grain)
    result = dataclasses.replace(
        _result(), labels=labels, image=np.zeros((*labels.shape, 3), np.uint8)
    )
    painted = np.zeros((3, *labels.shape), np.int64)
    for polygon in result.to_polygons():
        filled = _fill(polygon, result.labels.shape)
        assert filled.sum() == polygon.area
        assert polygon.class_name == f"class {polygon.class_id}"
        painted[polygon.class_id] += filled
    np.testing.assert_array_equal(painted, [labels == c for c in range(3)])


def test_geojson_says_that_it_is_in_pixels() -> None:
    collection = _result(classes=4).to_geojson()
    assert collection["image"]["height"] == 12
    assert collection["image"]["width"] == 16
    assert collection["image"]["coordinates"].startswith("pixels: x to the right, y down")
    assert 'UNIT["pixel",1]' in collection["crs"]["properties"]["name"]


def test_geojson_rings_are_closed_and_serializable() -> None:
    collection = json.loads(json.dumps(_result(classes=4).to_geojson()))
    assert collection["type"] == "FeatureCollection"
    for feature in collection["features"]:
        for ring in feature["geometry"]["coordinates"]:
            assert len(ring) >= 5
            assert ring[0] == ring[-1]
    assert sum(f["properties"]["area"] for f in collection["features"]) == 12 * 16


def test_supervision_detections() -> None:
    pytest.importorskip("supervision")
    result = _result(classes=4)
    detections = result.to_supervision()
    assert detections.class_id.tolist() == [0, 1, 2, 3]
    assert detections.data["class_name"].tolist() == list(result.class_names)
    np.testing.assert_array_equal(detections.mask[2], result.labels == 2)


def test_missing_supervision_error_contains_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'segrt\[supervision\]'"):
        _result().to_supervision()


def _on_disk(path: Path, *names: str) -> SegResult:
    """A result whose input exists, under several names."""
    Image.new("RGB", (16, 12)).save(path)
    for name in names:
        link = os.symlink if name == "symbolic.png" else os.link
        link(path, path.with_name(name))
    return _result(str(path), stem=path.stem)


@pytest.mark.parametrize("name", ["a.png", "symbolic.png", "hard.png"])
def test_the_input_is_never_overwritten(tmp_path: Path, name: str) -> None:
    result = _on_disk(tmp_path / "a.png", "symbolic.png", "hard.png")
    before = (tmp_path / "a.png").read_bytes()
    for save in (result.save_to_img, result.save_overlay):
        with pytest.raises(ConfigError, match=f"{name} is the input itself"):
            save(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


def test_the_png_next_to_a_jpeg_replaces_only_its_like(tmp_path: Path) -> None:
    photo = tmp_path / "road.png"
    Image.new("P", (16, 12)).save(photo)
    before = photo.read_bytes()
    with pytest.raises(ConfigError, match=r"road.png.* not from segrt"):
        _result().save_to_img(tmp_path / "road.jpg")
    assert photo.read_bytes() == before
    assert not (tmp_path / "road.jpg").exists()
    for _ in range(2):
        assert len(_result().save_to_img(tmp_path / "out.jpg")) == 2
    with Image.open(tmp_path / "out.png") as image:
        image.load()
        assert image.info["Software"] == "segrt"
    own = _on_disk(tmp_path / "b.png")
    with pytest.raises(ConfigError):
        own.save_to_img(tmp_path / "b.jpg")


def test_json_of_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xb5\xc0.png")
    saved = json.loads(_result(name).save_to_json(tmp_path).read_text("utf-8"))
    assert saved["input_path"] == name


def test_invalid_file_names_are_config_errors(tmp_path: Path) -> None:
    for stem in ("nul\0", "half \ud800"):
        with pytest.raises(ConfigError, match="can't be a file name"):
            _result(stem=stem).save_to_img(tmp_path)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_printing_never_fails(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    name = "\u9053\U0001f600\udcb5.png"
    for format_json in (True, False):
        out = io.TextIOWrapper(io.BytesIO(), encoding)
        monkeypatch.setattr(sys, "stdout", out)
        _result(name).print(format_json=format_json)
        out.seek(0)
        if format_json:
            assert json.loads(out.read())["res"]["input_path"] == name


def test_classes_of_one_name_are_added_up() -> None:
    result = dataclasses.replace(_result(), class_names=("same",) * len(_result().class_names))
    assert result.areas() == {"same": pytest.approx(1)}
    assert result.masks()["same"].all()


# Loading back what was saved, with decoders that know nothing of segrt.

_class_counts = st.one_of(st.integers(1, 20), st.sampled_from([255, 256, 257, 300]))
_names = st.one_of(
    st.text(max_size=8), st.binary(max_size=8).map(os.fsdecode), st.sampled_from(['"', "\n", "😀"])
)


@st.composite
def _results(draw: st.DrawFn) -> SegResult:
    classes = draw(_class_counts)
    shape = st.tuples(st.integers(1, 20), st.integers(1, 20))
    elements = st.integers(0, classes - 1)
    labels = draw(hnp.arrays(np.int32, shape, elements=elements, fill=elements))
    return SegResult(
        labels=labels,
        image=np.zeros((*labels.shape, 3), np.uint8),
        input_path=draw(st.none() | _names),
        page_index=draw(st.none() | st.integers(0, 9)),
        class_names=tuple(f"{draw(_names)}{i}" for i in range(min(classes, 3)))
        + tuple(f"class_{i}" for i in range(3, classes)),
        palette=voc_palette(classes),
        model_name="m",
        provider="CPUExecutionProvider",
        precision="fp32",
        timings=Timings(1.0, 2.0, 3.0),
        stem="a",
        time=draw(st.none() | st.floats(0, 1e6)),
    )


def _from_colours(picture: Image.Image, palette: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    assert picture.mode == "RGB"
    labels = {tuple(colour): index for index, colour in reversed([*enumerate(palette.tolist())])}
    pixels = np.asarray(picture)
    flat = [labels[tuple(pixel)] for pixel in pixels.reshape(-1, 3).tolist()]
    return np.array(flat).reshape(pixels.shape[:2])


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
@settings(max_examples=15, deadline=None)
@given(result=_results())
def test_saved_pictures_contain_the_labels(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, result: SegResult
) -> None:
    folder = tmp_path_factory.getbasetemp() / "pictures"
    path = result.save_to_img(folder / f"a{suffix}")[-1]
    # By content alone, Pillow takes a Sun raster of one or two columns for a brush of GIMP.
    with Image.open(path, formats=["SUN"] if suffix in (".ras", ".sr") else None) as picture:
        if path.suffix == ".png":
            assert picture.mode == ("P" if len(result.class_names) <= 256 else "I;16")
            labels = np.asarray(picture)
        else:
            labels = _from_colours(picture, result.palette)
    np.testing.assert_array_equal(labels, result.labels)
    if path.suffix != ".png":
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        assert bgr is not None
        np.testing.assert_array_equal(bgr[:, :, ::-1], result.palette[result.labels])


@pytest.mark.parametrize("label_format", [None, "list", "rle", "png"])
@settings(max_examples=40, deadline=None)
@given(result=_results(), ensure_ascii=st.booleans(), indent=st.sampled_from([None, 0, 2]))
def test_saved_json_contains_labels_and_names(
    tmp_path_factory: pytest.TempPathFactory,
    label_format: LabelFormat | None,
    result: SegResult,
    ensure_ascii: bool,
    indent: int | None,
) -> None:
    file = tmp_path_factory.getbasetemp() / "labels.json"
    result.save_to_json(file, indent, ensure_ascii, label_format=label_format)
    saved = json.loads(file.read_bytes())
    assert saved["input_path"] == result.input_path
    assert saved["page_index"] == result.page_index
    assert saved.get("time") == result.time
    assert ("time" in saved) == (result.time is not None)
    if label_format in (None, "list"):
        labels = np.array(saved["pred"])[0]
    elif label_format == "png":
        labels = np.asarray(Image.open(io.BytesIO(base64.b64decode(saved["pred"]))))
    else:
        labels = np.full(saved["size"], -1)
        for entry in saved["pred"]:
            labels[_decode(entry["segmentation"])] = entry["category_id"]
            assert entry["category_name"] == result.class_names[entry["category_id"]]
    np.testing.assert_array_equal(labels, result.labels)
    more = {"model", "label_format", "size", "class_names", "areas"}
    assert more & saved.keys() == (more if label_format else set())
    if label_format is not None:
        assert saved["label_format"] == label_format
        assert saved["size"] == list(result.labels.shape)
        assert saved["class_names"] == list(result.class_names)
        assert saved["areas"] == result.areas()


@settings(max_examples=40, deadline=None)
@given(_results())
def test_geojson_contains_the_labels(result: SegResult) -> None:
    collection = json.loads(json.dumps(result.to_geojson()))
    shape = (collection["image"]["height"], collection["image"]["width"])
    labels = np.full(shape, -1)
    for feature in collection["features"]:
        exterior, *holes = (np.array(r[:-1]) for r in feature["geometry"]["coordinates"])
        known = feature["properties"]
        inside = _fill(shapes.Polygon(0, "", exterior, tuple(holes)), shape)
        assert inside.sum() == known["area"]
        assert known["class_name"] == result.class_names[known["class_id"]]
        labels[inside] = known["class_id"]
    np.testing.assert_array_equal(labels, result.labels)


def test_annotations_of_a_region_each() -> None:
    labels = np.array([[0, 0, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1]], np.int32)
    scores = np.linspace(0.1, 1, 12, dtype=np.float32).reshape(3, 4)
    result = dataclasses.replace(
        _result(), labels=labels, image=np.zeros((3, 4, 3), np.uint8), scores=scores
    )
    found = result.to_coco_rle(False, per_region=True, image_id=7, first_id=5)
    assert [one["id"] for one in found] == [5, 6, 7, 8, 9, 10]
    assert [one["category_id"] for one in found] == [0, 0, 0, 1, 1, 1]
    assert [one["area"] for one in found] == [3, 2, 1, 2, 3, 1]
    assert {one["image_id"] for one in found} == {7}
    masks = np.array([_decode(one["segmentation"]) for one in found])
    assert (masks.sum(axis=0) == 1).all()
    for one in found:
        mask = _decode(one["segmentation"])
        assert one["score"] == pytest.approx(scores[mask].mean())
        assert [region.label for region in shapes.regions(mask.astype(np.int32))].count(1) == 1
    broken = dataclasses.replace(result, scores=np.full_like(scores, np.nan))
    assert {one["score"] for one in broken.to_coco_rle()} == {0.0}
