from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clips import write_clip

import segrt
from segrt import video
from segrt.frame import Frame, SegFailure
from segrt.reading import Reading
from segrt.sources import frames


def _blue_columns(image: object) -> float:
    """The width of the blue part of a frame of `write_clip`."""
    array = np.asarray(image)
    return float((array[:, :, 0] > 120).mean() * array.shape[1])


@pytest.fixture
def pipeline(colour_model: Path) -> segrt.Pipeline:
    return segrt.create_pipeline(model_dir=colour_model, device="cpu")


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "mp4v"),
        ("a.MOV", "mp4v"),
        ("a.avi", "MJPG"),
        ("a.mkv", "FFV1"),
        ("a.webm", "VP80"),
        ("a.mpg", "MPG1"),
    ],
)
def test_video_frames_are_separate_images(tmp_path: Path, name: str, codec: str) -> None:
    path = write_clip(tmp_path / name, 8, codec=codec, rate=25)
    found = list(frames(path))
    assert [(f.page_index, f.input_path) for f in found] == [(i, str(path)) for i in range(8)]
    for index, frame in enumerate(found):
        assert isinstance(frame, Frame)
        assert frame.image.shape == (64, 128, 3)
        assert _blue_columns(frame.image) == pytest.approx(4 * index, abs=3)


def test_video_as_bytes(tmp_path: Path) -> None:
    content = write_clip(tmp_path / "a.mp4", 3).read_bytes()
    assert [(f.page_index, f.input_path) for f in frames(content)] == [
        (0, None),
        (1, None),
        (2, None),
    ]


def test_folders_skip_videos(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", 1)
    (item,) = frames(tmp_path)
    assert isinstance(item, SegFailure)
    assert "holds no image" in str(item.error)


def test_broken_videos_report_the_reason(tmp_path: Path) -> None:
    def last(name: str, content: bytes) -> tuple[int, str]:
        (tmp_path / name).write_bytes(content)
        *before, item = frames(tmp_path / name)
        assert isinstance(item, SegFailure)
        assert name in str(item.error)
        return len(before), str(item.error)

    mp4 = write_clip(tmp_path / "whole.mp4").read_bytes()
    avi = write_clip(tmp_path / "whole.avi", 40, codec="MJPG").read_bytes()
    for tenth in range(1, 10):
        assert "this video can't be read" in last("cut.mp4", mp4[: len(mp4) * tenth // 10])[1]
    count, error = last("cut.avi", avi[: len(avi) // 2])
    assert f"breaks off after {count} of 40 frames" in error
    assert 5 < count < 35
    assert last("empty.mp4", b"") == (0, f"{tmp_path}/empty.mp4 is empty")
    assert "known format" in last("text.mkv", b"hello")[1]
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    assert "known format" in last("playlist.ts", playlist)[1]


def test_oversized_frames_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segrt.reading.MAX_PIXELS", 8000)
    (item,) = frames(write_clip(tmp_path / "a.mp4", 2))
    assert isinstance(item, SegFailure)
    assert "128 x 64 has more than 8,000 pixels a frame" in str(item.error)


def test_cameras_are_numbers() -> None:
    assert [video.camera_index(s) for s in (0, 7, "camera:1", "Camera:12")] == [0, 7, 1, 12]
    assert [video.camera_index(s) for s in (True, -1, "0", "camera:x", None)] == [None] * 5
    (item,) = frames("camera:9876")
    assert isinstance(item, SegFailure)
    assert "camera 9876 can't be opened" in str(item.error)


def test_camera_yields_frames_until_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    clip, open_capture = write_clip(tmp_path / "a.mp4", 3), cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda source, api: open_capture(str(clip)))
    for source in (5, "camera:5"):
        *found, end = frames(source)
        assert [(f.page_index, f.input_path) for f in found] == [(i, "camera:5") for i in range(3)]
        assert isinstance(end, SegFailure)
        assert str(end.error) == "camera:5: camera 5 gave no more frames after 3"


def test_videos_are_read_lazily(tmp_path: Path, pipeline: segrt.Pipeline) -> None:
    before = set(threading.enumerate())
    results = pipeline.predict(write_clip(tmp_path / "a.mp4", 50))
    first = next(results)
    assert isinstance(first, segrt.SegResult)
    assert (first.stem, first.page_index) == ("a_0", 0)
    assert isinstance(results, Iterator)
    results.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("upright", [True, False])
def test_rotation_is_configurable(tmp_path: Path, upright: bool) -> None:
    path = write_clip(tmp_path / "a.mp4", 1)
    matrix = (0x10000).to_bytes(4, "big") + bytes(12) + (0x10000).to_bytes(4, "big") + bytes(12)
    turned = (
        bytes(4)
        + (0x10000).to_bytes(4, "big")
        + bytes(4)
        + (0xFFFF0000).to_bytes(4, "big")
        + bytes(20)
    )
    content = path.read_bytes()
    offset = content.index(b"tkhd") + 4 + 40  # the track's matrix, here a rotation by 90 degrees
    assert content[offset : offset + len(matrix)] == matrix
    path.write_bytes(content[:offset] + turned[:32] + content[offset + 32 :])
    (item,) = frames(path, Reading(exif=upright))
    assert isinstance(item, Frame)
    assert item.image.shape == ((128, 64, 3) if upright else (64, 128, 3))


@pytest.mark.parametrize("batch_size", [1, 5])
def test_overlay_keeps_the_frames_and_the_rate_of_the_source(
    tmp_path: Path, pipeline: segrt.Pipeline, batch_size: int
) -> None:
    steps: list[tuple[int, int | None]] = []
    written = segrt.save_overlay_video(
        pipeline,
        write_clip(tmp_path / "a.mp4"),
        tmp_path / "out",
        batch_size=batch_size,
        alpha=1,
        progress=lambda done, of: steps.append((done, of)),
    )
    assert written == tmp_path / "out" / "a_overlay.mp4"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a_overlay.mp4"]
    assert video.probe(str(written)) == video.Clip(128, 64, 12.5, 12)
    assert steps == [(i + 1, 12) for i in range(12)]
    # Class 2 (blue) is shown as (128, 128, 0).
    for index, frame in enumerate(video.read(str(written))):
        assert isinstance(frame, video.Picture)
        picture = frame.image
        assert float((picture[:, :, 1] > 64).mean() * 128) == pytest.approx(4 * index, abs=4)


@pytest.mark.parametrize("rate", [7.5, 23.976, 24000 / 1001, 29.97, 59.94, 60])
def test_any_frame_rate(tmp_path: Path, pipeline: segrt.Pipeline, rate: float) -> None:
    clip = write_clip(tmp_path / "a.mp4", 3, rate=rate)
    written = segrt.save_overlay_video(pipeline, clip, tmp_path / "out")
    assert video.probe(str(written)).frame_rate == pytest.approx(
        video.probe(str(clip)).frame_rate, rel=1e-5
    )
    assert video.probe(str(written)).frame_rate == pytest.approx(rate, rel=1e-4)


@pytest.mark.parametrize("name", ["b.mov", "b.mkv", "b.avi", "b.m4v"])
def test_overlay_to_a_file(tmp_path: Path, pipeline: segrt.Pipeline, name: str) -> None:
    clip = write_clip(tmp_path / "a.mp4", 3)
    assert segrt.save_overlay_video(pipeline, clip, tmp_path / name) == tmp_path / name
    assert len(list(video.read(str(tmp_path / name)))) == 3


def test_stopping_keeps_the_frames_written(tmp_path: Path, pipeline: segrt.Pipeline) -> None:
    def stop(done: int, _: int | None) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segrt.save_overlay_video(
            pipeline, write_clip(tmp_path / "a.mp4"), tmp_path / "out", progress=stop
        )
    # The encoder completes what it has begun.
    assert 5 <= len(list(video.read(str(tmp_path / "out" / "a_overlay.mp4")))) <= 7
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_damaged_video_keeps_the_readable_frames(tmp_path: Path, pipeline: segrt.Pipeline) -> None:
    whole = write_clip(tmp_path / "a.avi", 40, codec="MJPG").read_bytes()
    (tmp_path / "a.avi").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(segrt.InputError, match=r"a\.avi: this video breaks off after (\d+) of 40"):
        segrt.save_overlay_video(pipeline, tmp_path / "a.avi", tmp_path / "out")
    assert 5 < len(list(video.read(str(tmp_path / "out" / "a_overlay.mp4")))) < 35


def test_failures_leave_no_file(tmp_path: Path, pipeline: segrt.Pipeline) -> None:
    clip, out = write_clip(tmp_path / "a.mp4"), tmp_path / "out"
    with pytest.raises(segrt.ConfigError, match="alpha 2"):
        segrt.save_overlay_video(pipeline, clip, out, alpha=2)
    with pytest.raises(segrt.ConfigError, match="target_size 'x'"):
        segrt.save_overlay_video(pipeline, clip, out, "x")
    with pytest.raises(segrt.InputError, match=r"gone\.mp4: it can't be read: No such file"):
        segrt.save_overlay_video(pipeline, tmp_path / "gone.mp4", out)
    with pytest.raises(OSError, match="Not a directory"):
        segrt.save_overlay_video(pipeline, clip, clip / "out")
    assert not out.exists()


def test_frame_numbers_in_names_need_no_memory(tmp_path: Path, pipeline: segrt.Pipeline) -> None:
    clip = write_clip(tmp_path / "a.mp4", 3)
    picture = next(frames(clip))
    assert isinstance(picture, Frame)
    (result,) = pipeline.predict(picture.image)
    assert isinstance(result, segrt.SegResult)
    result.save_to_img(tmp_path / "a_1.png")
    results = pipeline.predict([clip, tmp_path / "a_1.png", tmp_path / "a_1.png", clip])
    stems = [r.stem for r in results if isinstance(r, segrt.SegResult)]
    assert stems == ["a_0", "a_1", "a_2", "a_1_2", "a_1_3", "a_0_2", "a_1_4", "a_2_2"]
