from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segrt.datasets import Layout, Truth, find
from segrt.errors import InputError


def _png(path: Path, *values: int, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([values], np.uint8)).convert(mode).save(path)
    return path


def test_folder(tmp_path: Path) -> None:
    for stem in ("b", "a"):
        _png(tmp_path / "images" / f"{stem}.png", 0)
        _png(tmp_path / "labels" / f"{stem}.png", 0, 11)
    _png(tmp_path / "labels" / "without_image.png", 0)
    pairs = find(tmp_path, Layout.FOLDER)
    assert [(p.image.name, p.label.parent.name) for p in pairs] == [
        ("a.png", "labels"),
        ("b.png", "labels"),
    ]
    assert Truth().read(pairs[0].label).tolist() == [[0, 11]]


def test_cityscapes_takes_train_ids_or_maps_ids(tmp_path: Path) -> None:
    for stem in ("ulm_0", "ulm_1"):
        _png(tmp_path / f"leftImg8bit/val/ulm/{stem}_leftImg8bit.png", 0)
        _png(tmp_path / f"gtFine/val/ulm/{stem}_gtFine_labelIds.png", 0, 7, 8, 14, 26, 33)
    _png(tmp_path / "gtFine/val/ulm/ulm_0_gtFine_labelTrainIds.png", 0, 18, 255)
    pairs, truth = find(tmp_path, Layout.CITYSCAPES), Truth(Layout.CITYSCAPES)
    assert [truth.read(p.label)[0].tolist() for p in pairs] == [
        [0, 18, 255],
        [255, 0, 1, 255, 13, 18],
    ]


def test_ade20k_counts_from_one(tmp_path: Path) -> None:
    _png(tmp_path / "images/validation/a.jpg", 0)
    _png(tmp_path / "annotations/validation/a.png", 0, 1, 150)
    (pair,) = find(tmp_path, Layout.ADE20K)
    assert Truth(Layout.ADE20K).read(pair.label).tolist() == [[255, 0, 149]]


def test_the_label_to_ignore() -> None:
    assert Truth(ignore=3).ignore_index(11) == 3
    assert Truth().ignore_index(11) == 11  # CamVid
    assert Truth().ignore_index(19) == 255
    assert Truth().ignore_index(7) == 255
    assert Truth(Layout.CITYSCAPES).ignore_index(11) == 255


def test_says_what_is_missing(tmp_path: Path) -> None:
    for layout in Layout:
        with pytest.raises(InputError, match=f"in the layout {layout.value!r}"):
            find(tmp_path, layout)
    _png(tmp_path / "images/a.png", 0)
    with pytest.raises(InputError, match=r"a\.png has no labels"):
        find(tmp_path, Layout.FOLDER)
    with pytest.raises(InputError, match="one channel"):
        Truth().read(_png(tmp_path / "rgb.png", 0, mode="RGB"))
    (tmp_path / "bad.png").write_text("no")
    with pytest.raises(InputError, match=r"bad\.png can't be read"):
        Truth().read(tmp_path / "bad.png")
