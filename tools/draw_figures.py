"""Draw the figures of the pages on results, video, models and the sliding window.

The street is that of draw_sample.py, segmented by the bundled model; the view from above is that of
draw_scenes.py.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from itertools import product
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
    result, zoom = street(), 3
    left, top, width, height = 560, 310, 260, 150
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
                draw.rectangle((x - 1, y - 1, x + 2, y + 2), INK)
    boxes = enlarged(Image.fromarray(result.image[:, :, ::-1]))
    draw = ImageDraw.Draw(boxes)
    for note in result.to_coco_rle(per_region=True):
        x, y, w, h = note["bbox"]
        overlaps = x < area[2] and left < x + w and y < area[3] and top < y + h
        if overlaps and note["category_name"] in ("Car", "Pedestrian") and note["area"] > 300:
            (x, y), (right, bottom) = moved([(x, y), (x + w, y + h)])
            draw.rectangle((x - 1, y - 1, right, bottom), outline=PAPER, width=5)
            draw.rectangle((x, y, right - 1, bottom - 1), outline=ACCENT, width=3)
            text = f"{note['category_name']}: {note['area']:,} pixels"
            end = min(right, size[0] - 10)
            place = draw.textbbox((end, bottom + 6), text, font(), "ra")
            draw.rectangle((place[0] - 4, place[1] - 4, place[2] + 4, place[3] + 4), PAPER)
            draw.text((end, bottom + 6), text, INK, font(), "ra")
    return grid(
        [
            ("save_to_img(): class ids, in the colours of PASCAL VOC", labels),
            ("overlay()", enlarged(result.overlay(legend=False))),
            ("to_polygons(): corners lie between pixels", outlines),
            ("to_coco(..., per_region=True): a mask and a box each", boxes),
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
    line, wide, top, rows = 34, 260, 54, 19
    sheet = Image.new("RGB", (4 * wide + MARGIN, top + (rows + 1) * line), PAPER)
    draw = ImageDraw.Draw(sheet)
    datasets = {dataset.name.lower(): dataset for dataset in zoo.load().datasets}
    left = MARGIN
    for name, count in shown.items():
        names = tuple(datasets[name.lower()].classes)
        colours = parse_palette(name.lower(), names)
        draw.text((left, MARGIN), f"{name}, {len(names)} classes", INK, font(22))
        for index in range(count):
            x, y = left + index // rows * wide, top + index % rows * line
            colour = tuple(map(int, colours[index]))
            draw.rectangle((x, y, x + 40, y + 24), colour, (150, 150, 150))
            draw.text((x + 50, y), names[index], INK, font())
        if count < len(names):
            more = f"and {len(names) - count} more"
            draw.text((left + wide + 50, top + rows * line), more, INK, font())
        left += -(-count // rows) * wide
    return sheet


def crops() -> Image.Image:
    """The crops of a sliding window over a large picture."""
    crop, stride, left, top = 320, 240, 110, 100
    image = aerial().image[:720, :, ::-1]
    height, width = image.shape[:2]
    rows, columns = slide.starts(height, crop, stride), slide.starts(width, crop, stride)
    times = np.zeros((height, width), np.int32)
    for y, x in product(rows, columns):
        times[y : y + crop, x : x + crop] += 1
    tones = {2: (255, 196, 0), 4: (214, 60, 30)}
    tinted = image.astype(np.float64)
    for count, tone in tones.items():
        tinted[times == count] = 0.5 * tinted[times == count] + 0.5 * np.array(tone)
    sheet = Image.new("RGB", (left + width + MARGIN, top + height + 60), PAPER)
    sheet.paste(Image.fromarray(tinted.astype(np.uint8)), (left, top))
    draw = ImageDraw.Draw(sheet)
    for y, x in product(rows, columns):
        box = (left + x, top + y, left + x + crop - 1, top + y + crop - 1)
        draw.rectangle(box, outline=PAPER, width=2)
    draw.rectangle((left, top, left + crop, top + crop), outline=ACCENT, width=6)

    def measure(start: int, stop: int, at: int, text: str, down: bool = False) -> None:
        ends = [(at, top + start), (at, top + stop)] if down else []
        ends = ends or [(left + start, at), (left + stop, at)]
        draw.line(ends, ACCENT, 3)
        for x, y in ends:
            tick = (x - 8, y, x + 8, y) if down else (x, y - 8, x, y + 8)
            draw.line(tick, ACCENT, 3)
        x, y = (ends[0][0] + ends[1][0]) // 2, (ends[0][1] + ends[1][1]) // 2
        draw.text((x - 14, y) if down else (x, y - 6), text, INK, font(), "rm" if down else "mb")

    measure(0, crop, 40, f"crop {crop}")
    measure(0, stride, top - 14, f"stride {stride}")
    measure(rows[0], rows[1], left - 14, str(rows[1] - rows[0]), down=True)
    measure(rows[1], rows[2], left - 14, str(rows[2] - rows[1]), down=True)
    x, y = left, top + height + 18
    for count, tone in tones.items():
        draw.rectangle((x, y, x + 40, y + 24), tone)
        draw.text((x + 50, y), f"in {count} crops: logits are averaged", INK, font())
        x += 400
    return sheet


def window() -> Image.Image:
    """People in the street: the whole picture at the size of a crop, and a window of that size."""
    pipeline = segrt.create_pipeline("semantic_segmentation", device="cpu")
    image, truth = draw_sample.draw()
    area, size = (170, 270, 420, 470), (500, 400)
    panels = [("a part of the picture", Image.fromarray(image))]
    window = {"crop": (360, 480), "stride": (270, 360)}
    for title, options in (("target_size=480", {"target_size": 480}), ("slide", {"slide": window})):
        result = pipeline.segment(image, color="rgb", **options)
        right = np.mean(result.labels == truth)
        panels.append((f"{title}: {right:.1%} of all labels right", result.overlay(legend=False)))
    return grid([(title, picture.crop(area).resize(size)) for title, picture in panels], 3)


def main() -> None:
    """Write the figures into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (results, video, models, crops, window):
        save(draw(), folder / f"{draw.__name__}.webp", width=1280)


if __name__ == "__main__":
    main()
