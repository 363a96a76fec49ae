"""Draw the figures of the pages on results, video, models and the sliding window.

The street is that of draw_sample.py, segmented by the bundled model; the view from above is drawn by
draw_scenes.py.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import av
import draw_sample
import numpy as np
from draw_scenes import aerial, save, street
from PIL import Image, ImageDraw, ImageFont

import segrt
from segrt import slide, zoo
from segrt.palette import parse_palette

INK, PAPER, ACCENT = (33, 33, 33), (255, 255, 255), (0, 105, 92)
MARGIN, TEXT = 12, 20


def font(size: int = TEXT) -> ImageFont.FreeTypeFont:
    """Pillow's own font."""
    return ImageFont.load_default(size)


def grid(panels: Sequence[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """Put pictures of one size side by side, each below its title."""
    width, height = panels[0][1].size
    across, down = width + MARGIN, height + TEXT + 2 * MARGIN
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * across + MARGIN, rows * down + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (title, picture) in enumerate(panels):
        left, top = MARGIN + index % columns * across, MARGIN // 2 + index // columns * down
        draw.text((left, top), title, INK, font())
        sheet.paste(picture, (left, top + TEXT + MARGIN))
    return sheet


def results() -> Image.Image:
    """A part of the street in four forms: label picture, overlay, polygons, COCO boxes."""
    result, zoom = street(), 4
    left, top, width, height = 190, 300, 150, 130
    area = (left, top, left + width, top + height)
    size = (width * zoom, height * zoom)

    def enlarged(picture: Image.Image) -> Image.Image:
        return picture.convert("RGB").crop(area).resize(size, Image.Resampling.NEAREST)

    def moved(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
        return [((x - left) * zoom, (y - top) * zoom) for x, y in points]

    with tempfile.TemporaryDirectory() as folder:
        (file,) = result.save_to_img(Path(folder, "labels.png"))
        labels = enlarged(Image.open(file))
    outlines = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(outlines)
    for polygon in result.to_polygons():
        colour = tuple(map(int, result.palette[polygon.class_id]))
        for ring in (polygon.exterior, *polygon.holes):
            corners = moved(ring.tolist())
            draw.line([*corners, corners[0]], colour, 3)
            for x, y in corners:
                draw.rectangle((x - 2, y - 2, x + 2, y + 2), INK)
    boxes = enlarged(Image.fromarray(result.image[:, :, ::-1]))
    draw = ImageDraw.Draw(boxes)
    for note in result.to_coco_rle(per_region=True):
        x, y, w, h = note["bbox"]
        if note["category_name"] in ("Car", "Pedestrian", "Bicyclist") and note["area"] > 60:
            ((x, y), (right, bottom)) = moved([(x, y), (x + w, y + h)])
            draw.rectangle((x, y, right, bottom), outline=PAPER, width=5)
            draw.rectangle((x + 1, y + 1, right - 1, bottom - 1), outline=ACCENT, width=3)
            text = f"{note['category_name']}, {note['area']} pixels"
            box = draw.textbbox((x + 6, max(4, y + 6)), text, font(18))
            draw.rectangle((box[0] - 4, box[1] - 3, box[2] + 4, box[3] + 3), PAPER)
            draw.text((x + 6, max(4, y + 6)), text, INK, font(18))
    return grid(
        [
            ("save_to_img(): class ids, with a palette", labels),
            ("overlay()", enlarged(result.overlay(legend=False))),
            ("to_polygons(): corners between pixels", outlines),
            ("to_coco(per_region=True): a mask and a box each", boxes),
        ],
        2,
    )


def video() -> Image.Image:
    """Three frames of an overlay video of the street with traffic."""
    rate, count = 5, 5
    with tempfile.TemporaryDirectory() as folder:
        clip, target = Path(folder, "clip.mp4"), Path(folder, "overlay.mp4")
        with av.open(clip, "w") as file:
            stream = file.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt = 960, 720, "yuv420p"
            stream.options = {"crf": "14"}
            for index in range(count):
                image, _ = draw_sample.draw(seconds=index / rate)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            file.mux(stream.encode(None))
        pipeline = segrt.create_pipeline("semantic_segmentation", device="cpu")
        segrt.save_overlay_video(pipeline, clip, target)
        with av.open(target) as file:
            frames = [(frame.time, frame.to_image()) for frame in file.decode(video=0)]
    return grid([(f"{time:.1f} s", frame.resize((480, 360))) for time, frame in frames[::2]], 3)


def models() -> Image.Image:
    """The classes and colours of the data sets that the models were trained on."""
    shown = {"Cityscapes": 19, "CamVid": 11, "ADE20K": 38}
    line, wide, top = 34, 235, 54
    sheet = Image.new("RGB", (4 * wide + MARGIN, top + 20 * line), PAPER)
    draw = ImageDraw.Draw(sheet)
    column = 0
    for dataset in zoo.load().datasets:
        name = next(name for name in shown if name.lower() == dataset.name.lower())
        names = tuple(dataset.classes)
        colours = parse_palette(name.lower(), names)
        left = MARGIN + column * wide
        draw.text((left, MARGIN), f"{name}: {len(names)} classes", INK, font(22))
        for index in range(shown[name]):
            x, y = left + index // 19 * wide, top + index % 19 * line
            colour = tuple(map(int, colours[index]))
            draw.rectangle((x, y, x + 40, y + 24), colour, (150, 150, 150))
            draw.text((x + 50, y), names[index], INK, font())
        column += -(-shown[name] // 19)
        if shown[name] < len(names):
            text = f"and {len(names) - shown[name]} more"
            draw.text((left + 50, top + 19 * line), text, INK, font())
    return sheet


def window() -> Image.Image:
    """The crops of a sliding window over a large scene."""
    crop, stride = 320, 240
    image = aerial().image[:, :, ::-1][:720]
    height, width = image.shape[:2]
    times = np.zeros((height, width), np.int32)
    corners = [
        (x, y)
        for y in slide.starts(height, crop, stride)
        for x in slide.starts(width, crop, stride)
    ]
    for x, y in corners:
        times[y : y + crop, x : x + crop] += 1
    tint = np.array([[255, 255, 255], [255, 255, 255], [255, 200, 60], [255, 200, 60], [230, 90, 40]])
    weight = np.array([0, 0, 0.4, 0.4, 0.55])[times][..., None]
    mixed = image * (1 - weight) + tint[times] * weight
    sheet = Image.fromarray(mixed.astype(np.uint8))
    draw = ImageDraw.Draw(sheet)
    for x, y in corners:
        draw.rectangle((x, y, x + crop - 1, y + crop - 1), outline=PAPER, width=2)
    return sheet


def main() -> None:
    """Write the figures into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (results, video, models, window):
        save(draw(), folder / f"{draw.__name__}.webp", width=1280)


if __name__ == "__main__":
    main()
