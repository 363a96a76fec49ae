from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segrt.cli import outputs
from segrt.errors import ConfigError, InputError
from segrt.result import SegResult, Timings


def _touch(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return [str(folder / name) for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ("x.png", "x_res.png"),
        ("x.jpg", "x_res.png"),
        ("x.png", "x_overlay.png"),
        ("x.png", "y/x.png", "x_2_res.png"),
        ("x.tif", "x_0_res.tif"),
        ("x.pdf", "x_12_res.png"),
    ],
)
def test_an_input_named_like_a_result_is_never_replaced(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    images = _touch(tmp_path, *names)
    with pytest.raises(InputError, match=f"{names[-1]} is an input"):
        outputs.check(images, {}, tmp_path)
    outputs.check(images, {}, tmp_path / "out")
    outputs.check(images[:-1], {}, tmp_path)  # then it is a result of an earlier run


def test_inputs_that_no_result_is_named_like(tmp_path: Path) -> None:
    images = _touch(
        tmp_path, "x.png", "y_res.png", "x_1_res.png", "x_res.tif.png", "x_res.jpg", "X_res.png"
    )
    outputs.check(images, {}, tmp_path)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_to_an_input(tmp_path: Path, link: Callable[[str, Path], None]) -> None:
    images = _touch(tmp_path, "a/x.png", "a/y.png")
    (tmp_path / "out").mkdir()
    link(images[0], tmp_path / "out" / "y_res.png")
    with pytest.raises(InputError, match=r"y_res\.png is an input"):
        outputs.check(images, {}, tmp_path / "out")


@pytest.mark.parametrize("save_path", ["x.png", "text"])
def test_files_that_no_result_can_be(tmp_path: Path, save_path: str) -> None:
    images = _touch(tmp_path, "x.png", "text")[:1]
    with pytest.raises(InputError, match=save_path):
        outputs.check(images, {}, tmp_path / save_path)


def test_which_names_are_files(tmp_path: Path) -> None:
    for name in ("new.png", "new.JPG", "new.tif", "new.json", "new.mp4"):
        assert outputs.names_file(tmp_path / name)
        outputs.check([], {}, tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    for name in ("folder.png", "folder", "v1.2"):
        assert not outputs.names_file(tmp_path / name)
    with pytest.raises(ConfigError, match=r"can't write 'new.gif': use .*\.png"):
        outputs.names_file(tmp_path / "new.gif")


@pytest.mark.parametrize(
    ("inputs", "file", "message"),
    [
        (["a.png", "b.png"], "x.png", "x.png is one file, but there are 2 inputs"),
        (["a.mp4", "b.mp4"], "x.mp4", "x.mp4 is one file, but there are 2 inputs"),
        (["."], "x.json", "x.json is one file, but . is a folder"),
        (["a.mp4"], "x.png", "the overlay video of a.mp4 can't be saved as x.png: use .mp4"),
        (["a.mp4"], "x.wmv", "the overlay video of a.mp4 can't be saved as x.wmv: use .mp4"),
        (["a.png"], "x.mp4", "x.mp4 is the name of a video, but a.png is not a video: use .*x.png"),
    ],
)
def test_what_one_file_cannot_hold(inputs: list[str], file: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        outputs.check_single(inputs, Path(file))


def test_videos_need_files_of_their_own(tmp_path: Path) -> None:
    videos = _touch(tmp_path, "a.mp4", "b/a.mp4", "a_overlay.mp4")
    targets = outputs.video_targets([*videos[:2], videos[0]], tmp_path)
    assert [path.name for path in targets.values()] == ["a_overlay.mp4", "a_2_overlay.mp4"]
    outputs.check([], targets, tmp_path)  # a_overlay.mp4 is a result of an earlier run
    with pytest.raises(InputError, match=r"a_overlay.mp4 is an input"):
        outputs.check([], outputs.video_targets(videos, tmp_path), tmp_path)
    with pytest.raises(InputError, match=r"a.mp4 is an input"):
        outputs.check([], outputs.video_targets(videos[:1], tmp_path / "a.mp4"), tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.JPEG", "a.tif", "a.gif", "a", "b/a.ras"])
@pytest.mark.parametrize("overlay", [False, True])
def test_targets_are_what_a_result_saves(tmp_path: Path, name: str, overlay: bool) -> None:
    result = SegResult(
        labels=np.zeros((2, 3), np.int32),
        image=np.zeros((2, 3, 3), np.uint8),
        input_path=name,
        page_index=None,
        class_names=("x",),
        palette=np.zeros((256, 3), np.uint8),
        model_name="m",
        provider="CPUExecutionProvider",
        precision="fp32",
        timings=Timings(1.0, 2.0, 3.0),
        stem="a_2",
    )
    saved = [*result.save_to_img(tmp_path), result.save_to_json(tmp_path)]
    saved += [result.save_overlay(tmp_path)] if overlay else []
    assert outputs.targets(name, "a_2", tmp_path, overlay=overlay) == saved
    for file in (tmp_path / "x.jpg", tmp_path / "x.bmp"):
        saved = [result.save_overlay(file)] if overlay else result.save_to_img(file)
        assert outputs.targets(name, "a_2", file, overlay=overlay) == saved


@pytest.mark.parametrize(
    ("file", "save_path", "message"),
    [
        ("labels.txt", None, "labels.txt is not valid: use a file name that ends in .json"),
        ("folder.json", None, "folder.json is not valid"),
        ("in.json", None, "in.json is an input of this call"),
        ("link.json", None, "link.json is an input of this call"),
        ("out/a_res.json", "out", "a_res.json is the name of a result"),
        ("out/../x.json", "x.json", "x.json is the name of a result"),
    ],
)
def test_what_a_coco_file_must_not_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, save_path: str | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    _touch(tmp_path, "in.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "out").mkdir()
    os.symlink("in.json", tmp_path / "link.json")
    path = None if save_path is None else Path(save_path)
    with pytest.raises((ConfigError, InputError), match=message):
        outputs.check_coco(Path(file), ["in.json"], [], path)
    outputs.check_coco(Path("out/labels.json"), ["in.json"], [], path)


def test_a_folder_that_cannot_be_created_is_one_error(tmp_path: Path) -> None:
    _touch(tmp_path, "file")
    with pytest.raises(InputError, match="can't be created: Not a directory"):
        outputs.make_folder(tmp_path / "file" / "deep")
