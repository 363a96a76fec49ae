from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import damage, write_clip, write_timed

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
    return segrt.create_pipeline(model_dir=colour_model, device="cpu", palette="voc")


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


def test_names_of_videos(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 2).rename(tmp_path / "recording")
    (tmp_path / "text").write_text("text")
    assert video.names_video(str(clip))
    assert all(video.names_video(name) for name in ("camera:0", "gone.MOV"))
    for name in ("gone.png", "gone", str(tmp_path / "text"), str(tmp_path), "http://host/a.jpg"):
        assert not video.names_video(name)


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
        outlines=False,
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
    with pytest.raises(segrt.ConfigError, match="can't have a transparent background"):
        segrt.save_overlay_video(pipeline, clip, out, only="red", background="transparent")
    with pytest.raises(segrt.ConfigError, match="there is no class 'grey'"):
        segrt.save_overlay_video(pipeline, clip, out, only="grey")
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


CONSTANT = [k / 10 for k in range(24)]
PAL = [k / 25 for k in range(52)]
VARIABLE = [k / 10 for k in range(20)] + [2 + k / 30 for k in range(10)]
GAPS = [0, 0.4, 0.5, 1.9, 2.0, 2.04, 2.95]
SLOW = {"deadline": "realtime", "cpu-used": "8"}

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "constant": ("a.mp4", {"times": CONSTANT}),
    "variable": ("a.mp4", {"times": VARIABLE}),
    "variable, MPEG-4": ("a.mov", {"times": VARIABLE, "codec": "mpeg4", "time_base": 1 / 3000}),
    "gaps": ("a.mov", {"times": GAPS}),
    "B-frames": ("a.mp4", {"times": CONSTANT, "options": {"bf": "4", "b-pyramid": "normal"}}),
    "open GOPs": ("a.ts", {"times": CONSTANT, "options": {"x264-params": "open-gop=1:keyint=9"}}),
    "Matroska": ("a.mkv", {"times": VARIABLE}),
    "HEVC": (
        "a.mkv",
        {"times": VARIABLE, "codec": "libx265", "options": {"x265-params": "log-level=none"}},
    ),
    "WebM": ("a.webm", {"times": VARIABLE, "codec": "libvpx-vp9", "options": SLOW}),
    "AVI": ("a.avi", {"times": CONSTANT, "codec": "mpeg4", "time_base": 1 / 10}),
    "AVI with repeated frames": ("a.avi", {"times": GAPS, "codec": "mpeg4", "time_base": 1 / 100}),
    "MJPEG": ("a.avi", {"times": CONSTANT, "codec": "mjpeg", "pixels": "yuvj422p"}),
    "transport stream": ("a.ts", {"times": VARIABLE}),
    "transport stream, MPEG-2": ("a.ts", {"times": PAL, "codec": "mpeg2video"}),
    "program stream": (
        "a.mpg",
        {"times": PAL, "codec": "mpeg2video", "options": {"bf": "2"}},
    ),
    "late": ("a.mp4", {"times": [time + 1.52 for time in VARIABLE[:30]]}),
    "rotated": ("a.mp4", {"times": CONSTANT, "rotate": (90, False)}),
    "mirrored": ("a.mov", {"times": CONSTANT, "rotate": (180, True)}),
    "sound": ("a.mp4", {"times": VARIABLE, "sound": "aac"}),
    "MP3": ("a.mkv", {"times": VARIABLE, "sound": "libmp3lame"}),
    "PCM": ("a.mov", {"times": VARIABLE, "sound": "pcm_s16le"}),
    "sound in a transport stream": ("a.ts", {"times": VARIABLE, "sound": "aac"}),
    "10 bits": ("a.mp4", {"times": CONSTANT, "pixels": "yuv420p10le"}),
    "4:2:2, 10 bits": ("a.mov", {"times": CONSTANT, "pixels": "yuv422p10le"}),
    "4:4:4": ("a.mkv", {"times": CONSTANT, "pixels": "yuv444p"}),
    "grey": ("a.mkv", {"times": CONSTANT, "pixels": "gray"}),
    "odd": (
        "a.mp4",
        {"times": CONSTANT, "codec": "mpeg4", "size": (97, 63), "time_base": 1 / 3000},
    ),
    "interlaced": ("a.ts", {"times": CONSTANT, "options": {"x264-params": "interlaced=1"}}),
    "interlaced, MPEG-2": (
        "a.mpg",
        {"times": PAL, "codec": "mpeg2video", "options": {"flags": "+ildct+ilme"}},
    ),
    "wide pixels": ("a.mp4", {"times": CONSTANT, "aspect": Fraction(16, 11)}),
}


def _write(path: Path, form: str) -> Path:
    name, options = FORMS[form]
    options = dict(options)
    if "time_base" in options:
        options["time_base"] = Fraction(options["time_base"]).limit_denominator(100_000)
    elif options["times"] is PAL:
        options["time_base"] = Fraction(1, 25)
    elif name.endswith("avi"):
        options["time_base"] = Fraction(1, 10)
    return write_timed(path / name, options.pop("times"), **options)


def _times(path: Path) -> tuple[list[float], float]:
    """The times of all frames, and of the first bright one, with PyAV alone."""
    found, bright = list[float](), float("nan")
    with av.open(path) as container:
        for frame in container.decode(video=0):
            assert frame.time is not None
            found.append(float(frame.time))
            grey = frame.to_ndarray(format="gray")[:, frame.width // 2 :]
            if np.isnan(bright) and grey.mean() > 120:
                bright = found[-1]
    return found, bright


@pytest.mark.parametrize("form", FORMS)
def test_overlays_keep_the_times(tmp_path: Path, pipeline: segrt.Pipeline, form: str) -> None:
    clip = _write(tmp_path, form)
    expected, event = _times(clip)
    results = [*pipeline.predict(clip)]
    times = [result.time for result in results if isinstance(result, segrt.SegResult)]
    assert times == pytest.approx(expected, abs=1e-6)
    written = segrt.save_overlay_video(pipeline, clip, tmp_path / "out", alpha=0)
    found, bright = _times(written)
    assert found == pytest.approx(expected, abs=0.001)
    assert bright == pytest.approx(event, abs=0.001)
    assert not event < event  # NaN: the event comes after the end
    first = results[0]
    assert isinstance(first, segrt.SegResult)
    height, width = first.labels.shape
    with av.open(written) as container:
        (stream,) = container.streams.video
        assert stream.codec_context.name == "h264"
        assert (stream.width, stream.height) == (width + width % 2, height + height % 2)


@pytest.mark.parametrize(
    ("name", "form"),
    [("b.avi", "constant"), ("b.avi", "gaps"), ("b.mkv", "gaps"), ("b.m4v", "odd")],
)
def test_every_container_keeps_the_times(
    tmp_path: Path, pipeline: segrt.Pipeline, name: str, form: str
) -> None:
    clip = _write(tmp_path, form)
    written = segrt.save_overlay_video(pipeline, clip, tmp_path / name, alpha=0)
    assert _times(written)[0] == pytest.approx(_times(clip)[0], abs=0.001)
    with av.open(written) as container:
        codec = container.streams.video[0].codec_context.name
    assert codec == ("mpeg4" if name.endswith("avi") else "h264")
    assert len([*video.read(str(written))]) == len(_times(clip)[0])
    if not name.endswith("mkv"):  # which does not state it
        assert video.probe(str(written)).length == len(_times(clip)[0])


def test_avi_refuses_gaps_that_it_cannot_store(tmp_path: Path, pipeline: segrt.Pipeline) -> None:
    clip = write_timed(tmp_path / "a.mp4", [0, 0.1, 0.2137, 100])
    with pytest.raises(segrt.InputError, match=r"an \.avi can't show one frame for longer"):
        segrt.save_overlay_video(pipeline, clip, tmp_path / "out" / "b.avi")
    assert not [*(tmp_path / "out").iterdir()]


def test_the_last_frame_keeps_its_duration(tmp_path: Path, pipeline: segrt.Pipeline) -> None:
    clip = tmp_path / "a.mp4"
    with av.open(clip, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 96, 64
        packets = []
        for index in range(4):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 10)
            packets += stream.encode(frame)
        packets[-1].duration = 25
        container.mux(packets)
    written = segrt.save_overlay_video(pipeline, clip, tmp_path / "out")
    for path in (clip, written):
        with av.open(path) as container:
            assert container.duration == pytest.approx(2_800_000, abs=1000)


def test_very_late_videos_count_from_their_start(tmp_path: Path, pipeline: segrt.Pipeline) -> None:
    start = 7200
    for name in ("a.ts", "a.mkv"):
        clip = write_timed(tmp_path / name, [start + k / 10 for k in range(5)], sound="aac")
        stored = _times(clip)[0]
        assert stored[0] >= start
        expected = [time - stored[0] for time in stored]
        found = [frame.time for frame in frames(clip) if isinstance(frame, Frame)]
        assert found == pytest.approx(expected, abs=0.1)
        assert np.diff(np.asarray(found, float)) == pytest.approx(0.1, abs=0.001)
        written = segrt.save_overlay_video(pipeline, clip, tmp_path / name[2:])
        assert _times(written)[0] == pytest.approx(found, abs=0.001)
        with av.open(written) as container:
            assert container.duration is not None
            assert container.duration < 1_000_000


def _loudest(path: Path) -> tuple[str, float, float, int]:
    """Codec, beginning and end in seconds, and typical peak of the sound, with PyAV alone."""
    times, peaks = list[float](), list[int]()
    with av.open(path) as container:
        (stream,) = container.streams.audio
        resampler = av.AudioResampler(format="s16", layout="mono")
        for frame in container.decode(stream):
            assert frame.time is not None
            times += [frame.time, frame.time + frame.samples / frame.sample_rate]
            for part in resampler.resample(frame):
                peaks.append(int(np.abs(part.to_ndarray().astype(int)).max()))
        return (
            stream.codec_context.codec.canonical_name,
            min(times),
            max(times),
            sorted(peaks)[len(peaks) // 2],
        )


@pytest.mark.parametrize(
    ("source", "sound", "name", "codec"),
    [
        ("a.mp4", "aac", "b.mp4", "aac"),
        ("a.ts", "aac", "b.mp4", "aac"),
        ("a.ts", "aac", "b.mkv", "aac"),
        ("a.mkv", "pcm_s16le", "b.mp4", "aac"),
        ("a.mkv", "pcm_s16le", "b.mov", "pcm_s16le"),
        ("a.mkv", "flac", "b.mkv", "flac"),
        ("a.mkv", "libopus", "b.mov", "aac"),
        ("a.mkv", "libmp3lame", "b.avi", "mp3"),
        ("a.mp4", "aac", "b.avi", "pcm_s16le"),
    ],
)
def test_sound_is_copied_where_the_container_allows(
    tmp_path: Path, pipeline: segrt.Pipeline, source: str, sound: str, name: str, codec: str
) -> None:
    clip = write_timed(tmp_path / source, CONSTANT, sound=sound)
    written = segrt.save_overlay_video(pipeline, clip, tmp_path / name)
    before, after = _loudest(clip), _loudest(written)
    assert after[0] == codec
    assert after[1:3] == pytest.approx(before[1:3], abs=0.12)
    assert after[3] == pytest.approx(before[3], rel=0.1)
    assert _times(written)[0] == pytest.approx(_times(clip)[0], abs=0.001)
    if before[0] == codec and not codec.startswith("pcm"):
        packets = []
        for path in (clip, written):
            with av.open(path) as container:
                packets.append([p.size for p in container.demux(audio=0) if p.size])
        assert len(packets[0]) == pytest.approx(len(packets[1]), abs=1)


def test_all_sound_streams_are_copied(tmp_path: Path, pipeline: segrt.Pipeline) -> None:
    one = write_timed(tmp_path / "one.mkv", CONSTANT, sound="aac")
    both = tmp_path / "both.mkv"
    with av.open(one) as source, av.open(both, "w") as target:
        streams = [target.add_stream_from_template(s) for s in (*source.streams, source.streams[1])]
        for packet in [*source.demux()]:
            if packet.size:
                content = bytes(packet)
                for stream in streams[packet.stream_index :: 1 if packet.stream_index else 3]:
                    copy = av.Packet(content)
                    copy.pts, copy.dts = packet.pts, packet.dts
                    copy.time_base, copy.stream = packet.time_base, stream
                    copy.is_keyframe = packet.is_keyframe
                    target.mux(copy)
    written = segrt.save_overlay_video(pipeline, both, tmp_path / "out")
    with av.open(written) as container:
        assert len(container.streams.audio) == 2


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_are_turned_as_players_turn_them(
    tmp_path: Path, pipeline: segrt.Pipeline, degrees: int, mirror: bool
) -> None:
    clip = write_timed(
        tmp_path / "a.mp4", [0, 0.1], rotate=(degrees, mirror), aspect=Fraction(4, 3)
    )
    (stored, *_), (upright, *_) = frames(clip, Reading(exif=False)), frames(clip)
    assert isinstance(stored, Frame)
    assert isinstance(upright, Frame)
    # FFmpeg's display matrix: turned counter-clockwise, then mirrored.
    expected = np.rot90(stored.image, degrees // 90)[:, :: -1 if mirror else 1]
    assert (upright.image == expected).all()
    written = segrt.save_overlay_video(pipeline, clip, tmp_path / "out")
    with av.open(written) as container:
        (stream,) = container.streams.video
        ratio = Fraction(3, 4) if degrees % 180 else Fraction(4, 3)
        assert stream.sample_aspect_ratio == ratio
        assert (stream.height, stream.width) == expected.shape[:2]
        assert "DISPLAYMATRIX" not in next(container.decode(stream)).side_data


def test_odd_sizes_keep_all_pixels(tmp_path: Path, pipeline: segrt.Pipeline) -> None:
    options = {"codec": "mpeg4", "size": (97, 63), "time_base": Fraction(1, 1000)}
    clip = write_timed(tmp_path / "a.mp4", [0, 2], **options)  # type: ignore[arg-type]
    *_, source = frames(clip)
    assert isinstance(source, Frame)
    assert source.image.shape == (63, 97, 3)
    for name, size in (("b.mp4", (64, 98)), ("b.avi", (63, 97))):
        *_, found = frames(segrt.save_overlay_video(pipeline, clip, tmp_path / name, alpha=0))
        assert isinstance(found, Frame)
        assert found.image.shape[:2] == size
        difference = np.abs(found.image[:63, :97].astype(int) - source.image)
        assert difference.mean() < 3


def _yuv(path: Path, codec: str, pixels: str, planes: list[int], **tags: int) -> Path:
    """A lossless frame of one colour, and its tags: colorspace and color_range."""
    size = tags.pop("width", 64), tags.pop("height", 48)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options={"qp": "0"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        for tag, value in tags.items():
            setattr(stream.codec_context, tag, value)
        frame = av.VideoFrame(*size, pixels)
        for plane, value in zip(frame.planes, planes, strict=True):
            width = 2 if "10" in pixels else 1
            plane.update(value.to_bytes(width, "little") * (plane.buffer_size // width))
        for tag, value in tags.items():
            setattr(frame, tag, value)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("codec", "pixels", "tags", "red_blue", "full"),
    [
        ("libx264", "yuv420p", {}, (0.299, 0.114), False),
        ("libx264", "yuv420p", {"width": 1280, "height": 64}, (0.2126, 0.0722), False),
        ("libx264", "yuv420p", {"colorspace": 1}, (0.2126, 0.0722), False),
        ("libx264", "yuv420p", {"colorspace": 5}, (0.299, 0.114), False),
        ("libx264", "yuv420p", {"colorspace": 6, "color_range": 2}, (0.299, 0.114), True),
        ("libx264", "yuv420p", {"colorspace": 1, "color_range": 2}, (0.2126, 0.0722), True),
        ("libx264", "yuv422p10le", {"colorspace": 9}, (0.2627, 0.0593), False),
        ("libx264", "yuv444p", {"colorspace": 1}, (0.2126, 0.0722), False),
        ("ffv1", "yuv420p10le", {}, (0.299, 0.114), False),
    ],
)
def test_colours_follow_the_matrix_and_the_range_of_the_video(
    tmp_path: Path,
    codec: str,
    pixels: str,
    tags: dict[str, int],
    red_blue: tuple[float, float],
    full: bool,
) -> None:
    scale = 4 if "10" in pixels else 1
    red, blue = red_blue
    for y, u, v in ((180, 100, 140), (90, 150, 110), (60, 120, 160), (200, 128, 128)):
        planes = [y * scale, u * scale, v * scale]
        (frame,) = frames(_yuv(tmp_path / "a.mkv", codec, pixels, planes, **tags))
        assert isinstance(frame, Frame)
        light = y / 255 if full else (y - 16) / 219
        blueness, redness = ((value - 128) / (255 if full else 224) for value in (u, v))
        r, b = light + 2 * (1 - red) * redness, light + 2 * (1 - blue) * blueness
        g = (light - red * r - blue * b) / (1 - red - blue)
        expected = np.clip(np.array([b, g, r]) * 255, 0, 255)
        assert np.abs(frame.image.reshape(-1, 3) - expected).max() <= 3.5


def test_grey_and_rgb_videos(tmp_path: Path) -> None:
    for codec, pixels, planes in (("ffv1", "gray", [77]), ("libx264rgb", "bgr24", [77])):
        (frame,) = frames(_yuv(tmp_path / "a.mkv", codec, pixels, planes))
        assert isinstance(frame, Frame)
        assert np.abs(frame.image.astype(int) - 77).max() <= 1


KEYS = {"g": "6", "bf": "0", "sc_threshold": "0"}


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", KEYS),
        ("a.mp4", "libx264", {**KEYS, "bf": "2"}),
        ("a.mp4", "mpeg4", KEYS),
        ("a.avi", "mpeg4", KEYS),
        ("a.mov", "mjpeg", {}),
    ],
)
@pytest.mark.parametrize("part", [slice(None), slice(40, None)])
def test_damaged_frames_are_errors_in_their_position(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], part: slice
) -> None:
    clip = write_timed(
        tmp_path / name,
        [k / 10 for k in range(24)],
        codec=codec,
        pixels="yuvj420p" if codec == "mjpeg" else "yuv420p",
        time_base=Fraction(1, 10),
        options=options,
        noise=True,
    )
    before = [frame for frame in frames(clip) if isinstance(frame, Frame)]
    assert len(before) == 24
    found = list(frames(damage(clip, 13, part=part)))
    assert [item.page_index for item in found] == list(range(24))
    failed = [item for item in found if isinstance(item, SegFailure)]
    numbers = [item.page_index for item in failed]
    assert numbers
    assert numbers == list(range(numbers[0] or 0, (numbers[-1] or 0) + 1))
    assert 11 <= (numbers[0] or 0) <= 15
    assert (numbers[-1] or 0) < 18  # the next key frame
    assert len(failed) == 1 or codec != "mjpeg"
    first = f"{clip}, frame {numbers[0]}: this frame is "
    assert str(failed[0].error).startswith(first)
    assert str(failed[-1].error).split(": ")[-1] in (
        "this frame is damaged",
        "this frame is predicted from a damaged one",
    )
    for one, other in zip(before, found, strict=True):
        if isinstance(other, Frame):
            assert other.time == one.time
            assert (other.image == one.image).all()


def test_cut_and_joined_recordings_are_not_damaged(tmp_path: Path) -> None:
    options = {"g": "8", "bf": "2"}
    clip = write_timed(tmp_path / "a.ts", CONSTANT, options=options, noise=True)
    content = clip.read_bytes()
    clip.write_bytes(content + content)
    joined = [frame for frame in frames(clip) if isinstance(frame, Frame)]
    assert len(joined) == len(list(frames(clip))) == 48
    assert np.diff([frame.time or 0 for frame in joined]) == pytest.approx(0.1, abs=0.07)
    clip.write_bytes(content[len(content) // 5 // 188 * 188 :])  # begins between two key frames
    found = [frame for frame in frames(clip) if isinstance(frame, Frame)]
    assert 10 < len(found) == len(list(frames(clip))) < 24
    for one, other in zip(reversed(found), reversed(joined), strict=False):
        assert (one.image == other.image).all()


def test_overlays_leave_out_damaged_frames(tmp_path: Path, pipeline: segrt.Pipeline) -> None:
    clip = write_timed(
        tmp_path / "a.mov", VARIABLE, codec="mjpeg", pixels="yuvj420p", sound="pcm_s16le"
    )
    expected = _times(clip)[0]
    damage(damage(clip, 4), 20)
    steps: list[int] = []
    message = r"a\.mov, frame 4: this frame is damaged; .* all frames but the 2 that are damaged"
    with pytest.raises(segrt.InputError, match=message):
        segrt.save_overlay_video(
            pipeline, clip, tmp_path / "out", progress=lambda done, of: steps.append(done)
        )
    written = tmp_path / "out" / "a_overlay.mp4"
    del expected[20], expected[4]
    assert _times(written)[0] == pytest.approx(expected, abs=0.001)
    assert _loudest(written)[2] == pytest.approx(VARIABLE[-1], abs=0.1)
    assert steps == list(range(1, 31))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_truncated_videos_end_with_an_error(
    tmp_path: Path, pipeline: segrt.Pipeline, name: str
) -> None:
    codec = "mpeg4" if name == "a.avi" else "libx264"
    clip = write_timed(
        tmp_path / name,
        CONSTANT,
        codec=codec,
        time_base=Fraction(1, 10),
        options={"bf": "0", "movflags": "faststart"},
        noise=True,
    )
    whole = [frame for frame in frames(clip) if isinstance(frame, Frame)]
    content = clip.read_bytes()
    if name == "a.mp4":  # its index is at the end: put it before the pictures
        content = _with_index_first(content)
    for tenths in (6, 8, 9.5):
        clip.write_bytes(content[: int(len(content) * tenths / 10)])
        *found, end = frames(clip)
        assert isinstance(end, SegFailure)
        assert f"this video breaks off after {len(found)} of " in str(end.error)
        assert 3 < len(found) < 24
        for one, other in zip(found, whole, strict=False):
            assert isinstance(one, Frame)
            assert one.time == other.time
            assert (one.image == other.image).all()
    with pytest.raises(segrt.InputError, match="breaks off after"):
        segrt.save_overlay_video(pipeline, clip, tmp_path / "out")
    overlay = tmp_path / "out" / "a_overlay.mp4"
    assert _times(overlay)[0] == pytest.approx([frame.time for frame in found], abs=0.001)  # type: ignore[union-attr]


def _with_index_first(content: bytes) -> bytes:
    """Move the `moov` box of an MP4 file, at the end, to the front."""
    at = content.index(b"moov") - 4
    start = content.index(b"mdat") - 4
    moov = bytearray(content[at:])
    table = moov.index(b"stco") + 8
    for index in range(int.from_bytes(moov[table : table + 4], "big")):
        place = slice(table + 4 + 4 * index, table + 8 + 4 * index)
        moov[place] = (int.from_bytes(moov[place], "big") + len(moov)).to_bytes(4, "big")
    return content[:start] + bytes(moov) + content[start:at]


def test_a_full_disk_leaves_no_file(
    tmp_path: Path, pipeline: segrt.Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.FileIO):
        room = 0

        def write(self, data: Any) -> int:
            if self.tell() + len(data) > self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    opened = Path.open

    def open_full(self: Path, mode: str = "r", **options: Any) -> Any:
        full = "w" in mode and self.name.startswith(".segrt-")
        return Full(self, "wb") if full else opened(self, mode, **options)

    monkeypatch.setattr(Path, "open", open_full)
    clip = write_timed(tmp_path / "a.mp4", CONSTANT, sound="aac")
    for name, room in product(("b.mp4", "b.mkv", "b.avi"), (0, 3000)):
        monkeypatch.setattr(Full, "room", room)
        with pytest.raises(OSError, match=f"{name} could not be written: No space left"):
            segrt.save_overlay_video(pipeline, clip, tmp_path / "out" / name)
    assert not [*(tmp_path / "out").iterdir()]


def test_libav_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    clip = write_timed(tmp_path / "a.mp4", CONSTANT, noise=True)
    capfd.readouterr()
    for number in (3, 9):
        list(frames(damage(clip, number, part=slice(20, None))))
    (tmp_path / "b.mp4").write_bytes(clip.read_bytes()[:500])
    list(frames(tmp_path / "b.mp4"))
    assert capfd.readouterr() == ("", "")


def test_nothing_but_the_file_is_opened(tmp_path: Path) -> None:
    # An "MP4" whose content is a playlist, and names that FFmpeg would take for protocols.
    playlist = b"ffconcat version 1.0\nfile /etc/hostname\n"
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x10ftypisom\0\0\0\0" + playlist)
    (item,) = frames(tmp_path / "a.mp4")
    assert isinstance(item, SegFailure)
    assert "can't be read" in str(item.error)
    clip = write_clip(tmp_path / "a.mp4", 2)
    odd = clip.rename(tmp_path / "concat:x|y.mp4")
    assert len(list(frames(odd))) == 2
