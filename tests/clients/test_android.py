"""The Java classes in examples/android give the labels and the input that segrt gives."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

import segrt
from segrt.postprocess import labels_from_logits
from segrt.preprocess import Normalize, resize

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(
        not (shutil.which("javac") and shutil.which("java")),
        reason="needs a JDK: java and javac",
    ),
]

ROOT = Path(__file__).parents[2]
MODEL = Path(segrt.__file__).parent / "models" / "PP-LiteSeg-T_camvid" / "model.onnx"

Size = tuple[int, int]


class Case(NamedTuple):
    logits: npt.NDArray[np.float32]
    size: Size
    source: Size
    align_corners: bool


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the compiled classes, in Java 8, which every Android can run."""
    folder = tmp_path_factory.mktemp("classes")
    files = [*(ROOT / "examples/android").glob("*.java"), *Path(__file__).parent.glob("android/*")]
    flags = ["--release", "8", "-Xlint:all,-options", "-Werror", "-d", folder]
    _run("javac", *flags, *files)
    return folder


def _run(*command: object) -> None:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def _real_logits(height: int, width: int) -> npt.NDArray[np.float32]:
    """Logits of the bundled model for noise that looks like blocks."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(MODEL), providers=["CPUExecutionProvider"])
    blocks = np.random.default_rng(height).standard_normal(
        (1, 3, -(-height // 16), width // 16 + 1)
    )
    image = blocks.repeat(16, axis=2).repeat(16, axis=3)[:, :, :height, :width].astype(np.float32)
    return np.asarray(session.run(None, {"x": image})[0], np.float32)


def _cases() -> list[Case]:
    random = np.random.default_rng(7)

    def noise(classes: int, h: int, w: int) -> npt.NDArray[np.float32]:
        return random.standard_normal((1, classes, h, w)).astype(np.float32)

    sizes: list[tuple[tuple[int, int, int], Size, Size]] = [
        ((11, 45, 60), (360, 480), (360, 480)),
        ((11, 42, 65), (333, 517), (333, 517)),
        ((19, 13, 27), (97, 211), (720, 960)),  # the source is larger
        ((19, 64, 64), (512, 512), (101, 77)),  # smaller
        ((3, 16, 16), (64, 64), (31, 400)),  # smaller and larger
        ((2, 1, 1), (8, 8), (9, 7)),
        ((5, 1, 9), (1, 33), (3, 50)),
        ((4, 7, 5), (7, 5), (7, 5)),  # nothing to upsample
    ]
    cases = [
        Case(noise(*shape), size, source, align)
        for shape, size, source in sizes
        for align in (False, True)
    ]
    ties = np.round(noise(6, 9, 11))
    wild = noise(4, 6, 8)
    wild[0, 1, 2, 3], wild[0, 2, 0, 0], wild[0, 3, 5, 7] = np.nan, np.inf, -np.inf
    real = [
        Case(_real_logits(*size), size, source, False)
        for size, source in (((333, 517), (333, 517)), ((97, 211), (640, 333)))
    ]
    return [
        *cases,
        *real,
        Case(ties, (72, 88), (70, 90), False),
        Case(wild, (45, 61), (50, 50), False),
        Case(wild * np.float32(1e38), (45, 61), (50, 50), True),
    ]


def test_labels_are_those_of_python(classes: Path, tmp_path: Path) -> None:
    cases = _cases()
    assert len(cases) >= 20
    with (tmp_path / "cases").open("wb") as file:
        file.write(np.array(len(cases), ">i4").tobytes())
        for case in cases:
            numbers = [*case.logits.shape[1:], *case.size, *case.source, case.align_corners]
            file.write(np.array(numbers, ">i4").tobytes())
            file.write(case.logits.astype(">f4").tobytes())
    _run("java", "-cp", classes, "Tail", tmp_path / "cases", tmp_path / "labels")
    found = np.fromfile(tmp_path / "labels", ">i4")
    for number, (logits, size, source, align) in enumerate(cases):
        expected, _ = labels_from_logits(logits, size, source, align_corners=align)
        ours, found = found[: expected.size], found[expected.size :]
        different = np.count_nonzero(ours != expected.ravel())
        assert different == 0, f"case {number}: {different} of {expected.size} labels differ"
        if size[0] > 40:
            assert len(np.unique(expected)) > 1
    assert found.size == 0


def test_inputs_are_those_of_python(classes: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    sizes: list[tuple[Size, Size]] = [
        ((72, 96), (72, 96)),
        ((72, 96), (36, 48)),
        ((333, 517), (512, 512)),
        ((97, 211), (32, 480)),
        ((10, 7), (300, 3)),
        ((3, 2), (90, 131)),
        ((1, 1), (5, 9)),
    ]
    cases = [
        (random.integers(0, 256, (*size, 3), np.uint8), new, rgb)
        for size, new in sizes
        for rgb in (True, False)
    ]
    with (tmp_path / "images").open("wb") as file:
        file.write(np.array(len(cases), ">i4").tobytes())
        for image, new, rgb in cases:
            file.write(np.array([*image.shape[:2], *new, rgb], ">i4").tobytes())
            opaque = np.full((*image.shape[:2], 1), 255, np.uint8)
            file.write(np.concatenate([opaque, image[:, :, ::-1]], axis=2).tobytes())
    _run("java", "-cp", classes, "Input", tmp_path / "images", tmp_path / "inputs")
    found = np.fromfile(tmp_path / "inputs", ">f4")
    for image, new, rgb in cases:
        normalize = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), to_rgb=rgb)
        expected = np.empty((3, *new), np.float32)
        normalize.write(np.ascontiguousarray(resize(image, new)), expected)
        ours, found = found[: expected.size], found[expected.size :]
        np.testing.assert_array_equal(ours, expected.ravel(), f"{image.shape} to {new}")
    assert found.size == 0
