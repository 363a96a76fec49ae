from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import segrt
from segrt.coco import CocoFile
from segrt.errors import ConfigError, InputError
from segrt.frame import SegFailure
from segrt.palette import voc_palette
from segrt.result import SegResult, Timings

coco_mask = pytest.importorskip("pycocotools.mask")
COCO = pytest.importorskip("pycocotools.coco").COCO
COCOeval = pytest.importorskip("pycocotools.cocoeval").COCOeval

Labels = npt.NDArray[np.int32]

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _result(labels: Labels, path: str | None = "a.png", classes: int = 4) -> SegResult:
    return SegResult(
        labels=labels,
        image=np.zeros((*labels.shape, 3), np.uint8),
        input_path=path,
        page_index=None,
        class_names=tuple(f"class {i}" for i in range(classes)),
        palette=voc_palette(classes),
        model_name="m",
        provider="CPUExecutionProvider",
        precision="fp32",
        timings=Timings(1.0, 2.0, 3.0),
        stem="a",
    )


def _load(folder: Path, data: dict[str, Any]) -> Any:
    file = folder / "coco.json"
    file.write_text(json.dumps(data))
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(file))


label_maps = st.integers(1, 300).flatmap(
    lambda classes: st.lists(
        hnp.arrays(
            np.int32,
            st.tuples(st.integers(1, 20), st.integers(1, 20)),
            elements=st.integers(0, classes - 1),
        ),
        min_size=1,
        max_size=3,
    )
)


@settings(max_examples=50, deadline=None)
@given(label_maps, st.booleans(), st.booleans())
def test_pycocotools_reads_the_labels_back(
    tmp_path_factory: pytest.TempPathFactory,
    maps: list[Labels],
    compressed: bool,
    per_region: bool,
) -> None:
    results = [_result(labels, classes=300) for labels in maps]
    data = segrt.to_coco(results, compressed=compressed, per_region=per_region)
    coco = _load(tmp_path_factory.getbasetemp(), data)
    assert coco.getImgIds() == list(range(1, len(maps) + 1))
    assert coco.getAnnIds() == list(range(1, len(coco.anns) + 1))
    assert coco.getAnnIds(iscrowd=False) == coco.getAnnIds()
    assert coco.getCatIds() == list(range(1, 301))
    for image in coco.loadImgs(coco.getImgIds()):
        labels = np.full((image["height"], image["width"]), -1)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            mask = coco.annToMask(annotation).astype(bool)
            encoded = coco.annToRLE(annotation)
            assert coco_mask.area(encoded) == annotation["area"] == mask.sum()
            assert coco_mask.toBbox(encoded).tolist() == annotation["bbox"]
            assert (labels[mask] == -1).all()
            labels[mask] = annotation["category_id"] - 1
        np.testing.assert_array_equal(labels, maps[image["id"] - 1])


def _evaluate(truth: Any, found: list[dict[str, Any]]) -> npt.NDArray[np.float64]:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats)


@pytest.mark.parametrize("per_region", [False, True])
def test_evaluation_of_pycocotools(tmp_path: Path, per_region: bool) -> None:
    rough = np.random.default_rng(0).integers(0, 4, (3, 5, 6)).astype(np.int32)
    results = [_result(one.repeat(8, 0).repeat(8, 1)) for one in rough]
    data = segrt.to_coco(results, per_region=per_region)
    truth = _load(tmp_path, data)
    assert _evaluate(truth, json.loads(json.dumps(data["annotations"])))[0] == pytest.approx(1)
    moved = [dataclasses.replace(one, labels=(one.labels + 1) % 4) for one in results]
    assert _evaluate(truth, segrt.to_coco(moved, per_region=per_region)["annotations"])[0] == 0


def test_a_complete_file(tmp_path: Path) -> None:
    labels = np.array([[0, 2, 0]], np.int32)
    results = [
        _result(labels, str(tmp_path / "x.png")),
        _result(labels, str(tmp_path / "deep/y.png")),
        dataclasses.replace(_result(labels, str(tmp_path / "c.mp4")), page_index=3, time=0.5),
        _result(labels, "https://host/b.png?x=1"),
        dataclasses.replace(_result(labels, None), stem="image_2"),
        _result(labels, "camera:0"),
        _result(labels, str(tmp_path / os.fsdecode(b"\xb5.png"))),
    ]
    data = segrt.to_coco(iter(results), per_region=True)
    with CocoFile(tmp_path / "new" / "labels.json", per_region=True) as file:
        for result in results:
            file.add(result)
        assert not file.file.exists()
        file.finish()
    assert json.loads(file.file.read_text()) == data
    assert [*file.file.parent.iterdir()] == [file.file]
    size = {"height": 1, "width": 3}
    assert data["images"] == [
        {"id": 1, "file_name": "x.png", **size},
        {"id": 2, "file_name": "deep/y.png", **size},
        {"id": 3, "file_name": "c.mp4", **size, "page_index": 3, "time": 0.5},
        {"id": 4, "file_name": "b.png", **size, "coco_url": "https://host/b.png?x=1"},
        {"id": 5, "file_name": "image_2.png", **size},
        {"id": 6, "file_name": "camera_0", **size},
        {"id": 7, "file_name": os.fsdecode(b"\xb5.png"), **size},
    ]
    assert [one["name"] for one in data["categories"]] == list(results[0].class_names)
    assert [one["image_id"] for one in data["annotations"][:4]] == [1, 1, 1, 2]
    assert json.loads(json.dumps(data)) == data
    _load(tmp_path, data)


def test_names_are_relative_to_the_common_folder() -> None:
    labels = np.zeros((1, 1), np.int32)
    for paths, names in (
        (["photos/a.png"], ["a.png"]),
        (["photos/a.png", "photos/b.png"], ["a.png", "b.png"]),
        (["photos/x/a.png", "./photos/y/a.png"], ["x/a.png", "y/a.png"]),
        (["a.png", os.path.abspath("x/a.png")], ["a.png", "x/a.png"]),
    ):
        data = segrt.to_coco(_result(labels, path) for path in paths)
        assert [image["file_name"] for image in data["images"]] == names


def test_classes_of_one_name_are_categories_of_their_own() -> None:
    result = dataclasses.replace(_result(np.array([[0, 1]], np.int32)), class_names=("a", "a"))
    data = segrt.to_coco([result])
    assert [(one["id"], one["name"]) for one in data["categories"]] == [(1, "a"), (2, "a")]


def test_failures_are_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    result = _result(np.zeros((1, 1), np.int32))
    with caplog.at_level(logging.WARNING, "segrt"):
        data = segrt.to_coco([SegFailure("bad.png", None, InputError("no image")), result])
    assert [image["id"] for image in data["images"]] == [1]
    assert "'bad.png': no image" in caplog.text


def test_results_of_other_classes_are_refused() -> None:
    labels = np.zeros((1, 1), np.int32)
    with pytest.raises(ConfigError, match=r"'b\.png' has other classes"):
        segrt.to_coco([_result(labels), _result(labels, "b.png", classes=5)])


def test_no_results(tmp_path: Path) -> None:
    assert _load(tmp_path, segrt.to_coco([])).getImgIds() == []
    with CocoFile(tmp_path / "none.json") as file:
        file.finish()
    assert json.loads(file.file.read_text()) == segrt.to_coco([])


def test_a_file_that_is_not_finished_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    file.write_text("before")
    with CocoFile(file) as begun:
        begun.add(_result(np.zeros((1, 1), np.int32)))
    assert file.read_text() == "before"
    assert [*tmp_path.iterdir()] == [file]
    with pytest.raises(InputError, match=r"deep\.json can't be written: "):
        CocoFile(file / "deep.json")
