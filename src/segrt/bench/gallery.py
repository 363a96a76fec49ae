"""An HTML page with the photos on which each model is worst: photo, labels, truth and errors."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from segrt import encode, render
from segrt.accuracy import ConfusionMatrix
from segrt.bench.measure import Row
from segrt.bench.worst import Scored
from segrt.datasets import Truth
from segrt.errors import ConfigError
from segrt.look import Look
from segrt.palette import Palette, distinct_palette, parse_palette
from segrt.sources import read_image

_WIDTH = 480  # of the pictures on the page
_WRONG = (255, 0, 90)  # RGB of wrong pixels

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>segrt-bench: the worst photos</title>
<style>
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 130rem; margin: 2rem auto; padding: 0 1rem; }
section > div { display: grid; gap: .5rem;
  grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); }
figure { margin: 0; }
img { width: 100%; border-radius: .4rem; display: block; }
h3 { margin: 1.6rem 0 .4rem; font-weight: 600; overflow-wrap: anywhere; }
figcaption, .classes { opacity: .75; font-size: .9em; }
</style>
<h1>The worst photos</h1>
"""


def page(rows: Iterable[Row], truth: Truth) -> str:
    """The page for all models that were scored.

    Args:
        rows: those of the report; the first scored contender of each model is shown.
        truth: how to read the label files.

    Raises:
        InputError: a photo or a label file can't be read any more.
    """
    return _HEAD + "".join(_model(row, truth) for row in rows if row.worst) + "</html>\n"


def _model(row: Row, truth: Truth) -> str:
    assert row.confusion
    names, spec = row.class_names, row.model.spec
    own = spec and spec.class_names == names
    palette = parse_palette(spec.palette) if spec and own else distinct_palette(len(names))
    title = f"{row.model.name}, {row.contender}: mIoU {row.confusion.miou:.2%}"
    photos = [
        _photo(photo, names, palette, truth, row.confusion.ignore_index) for photo in row.worst
    ]
    return f"<h2>{html.escape(title)}</h2>\n" + "".join(photos)


def _photo(
    photo: Scored, names: Sequence[str], palette: Palette, truth: Truth, ignored: int
) -> str:
    image = read_image(photo.pair.image)
    labels = np.asarray(Image.open(io.BytesIO(photo.labels))).astype(np.int32)
    expected = truth.read(photo.pair.label).astype(np.int32)
    counted = expected != ignored
    wrong = counted & (expected != labels)
    figures = "".join(
        f'<figure><img alt="{caption} of {html.escape(photo.pair.image.name)}" '
        f'src="data:image/jpeg;base64,{_jpeg(picture)}"><figcaption>{caption}</figcaption></figure>\n'
        for caption, picture in _pictures(image, labels, expected, counted, wrong, names, palette)
    )
    matrix = ConfusionMatrix(len(names), ignored)
    matrix.add(labels, expected)
    order = [int(c) for c in np.argsort(matrix.iou) if np.isfinite(matrix.iou[c])]
    worst = ", ".join(f"{html.escape(names[c])} {matrix.iou[c]:.0%}" for c in order[:5])
    return (
        f"<section><h3>{html.escape(str(photo.pair.image))}: mIoU {photo.miou:.1%}</h3>\n"
        f'<p class="classes">IoU of the worst classes: {worst}</p>\n'
        f"<div>\n{figures}</div></section>\n"
    )


def _pictures(
    image: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int32],
    expected: npt.NDArray[np.int32],
    counted: npt.NDArray[np.bool_],
    wrong: npt.NDArray[np.bool_],
    names: Sequence[str],
    palette: Palette,
) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Captions and pictures, BGR."""
    yield "photo", image
    look = Look(alpha=0.6)
    yield "labels", render.paint(image, labels, palette, names, look)
    truth = render.paint(image, np.where(counted, expected, 0), palette, names, look)
    yield "truth", np.where(counted[..., None], truth, image)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    pale = np.asarray(grey // 2 + 110, np.uint8)
    share = wrong.sum() / max(1, counted.sum())
    pale[wrong] = _WRONG[::-1]
    yield f"difference: {share:.1%} of the pixels", pale


def _jpeg(picture: npt.NDArray[np.uint8]) -> str:
    height, width = picture.shape[:2]
    if width > _WIDTH:
        size = _WIDTH, max(1, round(height * _WIDTH / width))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    rgb = Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1]))
    return base64.b64encode(encode.pillow(rgb, "JPEG", quality=85)).decode()


def check(path: Path, *, scored: bool) -> None:
    """Refuse a page that can't be written, before anything is measured.

    Raises:
        ConfigError: the suffix is not .html, or there is no data set.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--gallery {path} is not valid: use a name such as gallery.html")
    if not scored:
        raise ConfigError("--gallery shows the photos of a data set: add --dataset or --fitted")
