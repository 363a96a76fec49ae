"""The conversions of docs/labelling.md, by datumaro: every class covers the same pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from markdown_it import MarkdownIt
from PIL import Image

import segrt

pytestmark = pytest.mark.frameworks

datumaro = pytest.importorskip("datumaro")

PAGE = Path(__file__).parents[2] / "docs" / "labelling.md"
SAMPLE = Path(segrt.__file__).parent / "models" / "sample.png"


def _code() -> list[str]:
    tokens = MarkdownIt().parse(PAGE.read_text("utf-8"))
    return [token.content for token in tokens if token.type == "fence" and token.info == "python"]


def _masks(dataset: Any) -> dict[str, dict[str, npt.NDArray[np.bool_]]]:
    labels = dataset.categories()[datumaro.AnnotationType.label].items
    found: dict[str, dict[str, npt.NDArray[np.bool_]]] = {}
    for item in dataset:
        masks = found.setdefault(item.id.split("/")[-1], {})
        for annotation in item.annotations:
            if isinstance(annotation, datumaro.Mask):
                name, mask = labels[annotation.label].name, annotation.image.astype(bool)
                masks[name] = masks[name] | mask if name in masks else mask
    return found


def test_conversions_keep_every_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name, size in (("a", (240, 180)), ("b", (150, 100))):
        Image.open(SAMPLE).resize(size).save(f"photos/{name}.png")
    write, convert, polygons = _code()
    exec(write, {})
    scope: dict[str, Any] = {}
    exec(convert, scope)
    pipeline = segrt.create_pipeline("semantic_segmentation")
    expected = {
        Path(str(result.input_path)).stem: result.masks() for result in pipeline.predict("photos")
    }
    for folder, form in (("cvat", "cvat"), ("label_me", "label_me"), ("voc", "voc_segmentation")):
        found = _masks(datumaro.Dataset.import_from(folder, form))
        assert found.keys() == expected.keys(), form
        for name, masks in expected.items():
            assert found[name].keys() == masks.keys(), form
            for label, mask in masks.items():
                assert np.array_equal(found[name][label], mask), (form, name, label)
    exec(polygons, scope)
    text = Path("cvat_polygons/train.xml").read_text("utf-8")
    assert "<polygon label=" in text
    data = json.loads(Path("dataset/annotations/instances_train.json").read_text())
    assert min(one["category_id"] for one in data["annotations"]) > 0
