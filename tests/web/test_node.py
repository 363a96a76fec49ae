"""segrt-web in Node.js, compared with the Python package: `make web-test`."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from web.test_site import MODEL, ROOT, _labels, _photos

import segrt
from segrt.errors import InputError
from segrt.metadata import ModelMeta, Upsample
from segrt.postprocess import finish
from segrt.preprocess import Layout, Transforms
from segrt.types import TargetSize

NODE = shutil.which("node")
MODULES = ROOT / ".npm/node_modules"
pytestmark = [
    pytest.mark.web,
    pytest.mark.skipif(not NODE, reason="node is missing"),
]


def _node(*arguments: object) -> Any:
    script = Path(__file__).with_name("parity.mjs")
    command = [str(NODE), str(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _transform(rng: np.random.Generator, interps: tuple[str, ...]) -> dict[str, Any]:
    def some(low: int, high: int) -> int:
        return int(rng.integers(low, high))

    pair = [some(10, 120), some(10, 120)]
    settings: list[dict[str, Any]] = [
        {
            "type": "Resize",
            "target_size": pair,
            "keep_ratio": some(0, 2) == 1,
            "size_divisor": (None, 8, 32)[some(0, 3)],
        },
        {"type": "ResizeByLong", "long_size": some(10, 120)},
        {
            "type": "ResizeByShort",
            "short_size": some(10, 90),
            "max_size": some(20, 120),
            "rounding": ("nearest", "down")[some(0, 2)],
        },
        {"type": "LimitLong", "max_long": some(50, 120), "min_long": some(10, 50)},
        {"type": "LimitShort", "max_short": some(50, 120), "min_short": some(10, 50)},
        {"type": "ResizeRangeScaling", "min_value": 64, "max_value": 64},
        {"type": "ResizeToMultiple", "size_divisor": some(1, 40)},
        {"type": "Padding", "target_size": [some(100, 160), some(100, 160)]},
        {"type": "PaddingByAspectRatio", "aspect_ratio": some(2, 22) / 10},
    ]
    chosen = settings[some(0, len(settings))]
    if chosen["type"].startswith("Padding"):
        return chosen | {"im_padding_value": ([127.5] * 3, [10, 20, 30])[some(0, 2)]}
    return chosen | {"interp": interps[some(0, len(interps))]}


def _case(rng: np.random.Generator) -> tuple[Transforms, Layout, ModelMeta, dict[str, Any]] | None:
    """Random transforms, a layout, metadata, and how JavaScript is told of them."""
    resize_in: Literal["uint8", "float32"] = "float32" if rng.random() < 0.25 else "uint8"
    channels = 1 if rng.random() < 0.15 else 3
    interps = ("LINEAR", "LINEAR", "NEAREST", "PILLOW_NEAREST")[: 4 if resize_in == "uint8" else 3]
    steps = [_transform(rng, interps) for _ in range(rng.integers(0, 3))]
    normalize: dict[str, Any] = {"type": "Normalize", "to_rgb": bool(rng.random() < 0.7)}
    if channels == 3:
        normalize |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    steps.insert(int(rng.integers(0, len(steps) + 1)), normalize)
    height, width = (int(rng.integers(1, 130)) * (1 + (rng.random() < 0.3)) for _ in range(2))
    half = (max(height // 2, 1), max(width // 2, 1))
    target: TargetSize = (None, None, -1, 40, (33, 77), half)[rng.integers(0, 6)]
    fixed = (None, None) if rng.random() < 0.85 else (48, 64)
    classes = int(rng.integers(2, 6))
    meta = ModelMeta(
        name="random",
        class_names=tuple("abcdef"[:classes]),
        transforms=tuple(steps),
        resize_in=resize_in,
        output=("logits", "probabilities", "labels")[rng.integers(0, 3)],
        upsample=Upsample(stride=4, align_corners=bool(rng.random() < 0.5)),
        interpolate_to=("input", "source")[rng.integers(0, 2)],
    )
    parsed = Transforms.parse(steps, resize_in=resize_in)
    transforms = replace(parsed, channels=channels, fixed=fixed)
    try:
        layout = transforms.layout((height, width), target)
    except InputError:  # larger than what Padding makes
        return None
    told = {"channels": channels, "fixed": fixed, "source": [height, width], "target": target}
    return transforms, layout, meta, {"meta": json.loads(meta.model_dump_json()), **told}


def _output(rng: np.random.Generator, meta: ModelMeta, size: tuple[int, int]) -> Any:
    h, w = (max(1, side // int(rng.integers(1, 9))) for side in size)
    classes = len(meta.class_names)
    if meta.output == "labels":
        return rng.integers(0, classes, (1, h, w)).astype(np.float32)
    output = rng.standard_normal((1, classes, h, w)).astype(np.float32)
    if rng.random() < 0.3:
        output = np.round(output)  # ties
    if rng.random() < 0.2:
        output.flat[rng.integers(output.size)] = rng.choice([np.nan, np.inf, -np.inf])
    return output


def test_each_step_computes_what_python_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    told: list[dict[str, Any]] = []
    expected = []
    while len(told) < 200:
        case = _case(rng)
        if case is None or case[1].size[0] * case[1].size[1] > 200_000:
            continue
        transforms, layout, meta, one = case
        rgb = rng.integers(0, 256, (*layout.source, 3), np.uint8)
        steps = {getattr(step, "interp", "") for step, _ in layout.steps}
        fitted: Any = None
        try:
            fitted = transforms.fit(rgb[:, :, ::-1], layout)
        except TypeError:  # Pillow does not resize float32, as after padding with 127.5
            assert "PILLOW_NEAREST" in steps
            continue
        output = _output(rng, meta, layout.size)
        given = output.astype(np.int64) if meta.output == "labels" else output
        labels, _ = finish(given[0], meta, layout)
        n = len(told)
        (tmp_path / f"{n}.rgb").write_bytes(rgb.tobytes())
        (tmp_path / f"{n}.output").write_bytes(output.tobytes())
        told.append(one | {"dims": output.shape})
        expected.append((layout.size, transforms.batch([fitted]), labels))
    (tmp_path / "cases.json").write_text(json.dumps(told))
    sizes = _node("steps", tmp_path)
    for n, (size, batch, labels) in enumerate(expected):
        assert tuple(sizes[n]) == size, told[n]
        ours = np.fromfile(tmp_path / f"{n}.batch", np.float32)
        # uint8 exactly; float32 up to the order of additions.
        limit = 1e-4 if told[n]["meta"]["resize_in"] == "float32" else 0
        assert np.abs(ours - batch.ravel()).max() <= limit, told[n]
        assert (np.fromfile(tmp_path / f"{n}.labels", np.uint16) == labels.ravel()).all(), told[n]


@pytest.mark.skipif(
    not (MODULES / "onnxruntime-node").is_dir(), reason="onnxruntime-node is missing: make web-test"
)
def test_labels_are_those_of_python(tmp_path: Path) -> None:
    photos = [np.asarray(photo) for photo in _photos()]
    for n, rgb in enumerate(photos):
        (tmp_path / f"{n}.rgb").write_bytes(rgb.tobytes())
    sizes = [rgb.shape[:2] for rgb in photos]
    (tmp_path / "photos.json").write_text(json.dumps({"model": str(MODEL), "photos": sizes}))
    said = _node("photos", tmp_path, MODULES)
    with segrt.create_pipeline("semantic_segmentation", device="cpu") as pipeline:
        assert said == {
            "name": pipeline.model_name,
            "provider": "cpu",
            "classNames": list(pipeline.class_names),
        }
        wanted = [_labels(pipeline, rgb).ravel() for rgb in photos]
    found = [np.fromfile(tmp_path / f"{n}.labels", np.uint16) for n in range(len(photos))]
    different = sum(map(np.count_nonzero, map(np.not_equal, found, wanted)))
    total = sum(rgb.shape[0] * rgb.shape[1] for rgb in photos)
    print(f"different labels: {different} of {total}")
    assert different / total <= 1e-5
