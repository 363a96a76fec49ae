"""Draw the gallery of the documentation: six scenes, computed like the sample image, as overlays.

With `--examples`, draw the pictures that the pages of segrt offer to try instead:

    python tools/draw_scenes.py --examples src/segrt/page

The street is that of draw_sample.py, segmented by the bundled model. The other scenes are drawn
here together with their label maps, so no network is involved: they show what overlays look like,
not how well a model works.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from draw_sample import draw as draw_street
from draw_sample import smooth_noise
from numpy.typing import NDArray
from PIL import Image

import segrt
from segrt import package_data
from segrt.palette import distinct_palette, parse_palette
from segrt.result import SegResult, Timings

Colour = tuple[int, int, int]
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_] | Floats | Bytes
Points = Sequence[tuple[float, float]]

SCALE = 2  # scenes are drawn at twice their size, then reduced


@dataclass
class Canvas:
    """An image and its label map.

    Attributes:
        width: of the final picture.
        height: of the final picture.
        names: the classes so far, in the order of their ids.
        seed: of everything random.
    """

    width: int
    height: int
    names: list[str] = field(default_factory=list)
    seed: int = 1

    def __post_init__(self) -> None:
        self.shape = (self.height * SCALE, self.width * SCALE)
        self.image = np.zeros((*self.shape, 3), np.float32)
        self.labels = np.zeros(self.shape, np.int32)
        self.rng = np.random.default_rng(self.seed)
        self.grain = smooth_noise(self.rng, *self.shape, 220, 3)

    def noise(self, cells: int, octaves: int = 5) -> Floats:
        """Fractal noise of the size of the canvas."""
        return smooth_noise(self.rng, *self.shape, cells, octaves)

    def fill(
        self,
        mask: Mask,
        colour: Colour | Floats,
        name: str,
        texture: float = 2,
    ) -> None:
        """Give a class to a mask, with a colour; soft masks have the class above one half."""
        if name not in self.names:
            self.names.append(name)
        mask = _bytes(mask)
        area = _area(mask)
        weight = mask[area].astype(np.float32) / 255
        tone = np.asarray(colour, np.float32)
        tone = tone[area] if tone.ndim == 3 else tone
        tone = tone + texture * self.grain[area][..., None]
        self.image[area] += (tone - self.image[area]) * weight[..., None]
        self.labels[area][weight > 0.5] = self.names.index(name)

    def polygon(self, points: Points) -> Bytes:
        """A soft mask of a polygon, in pixels of the final picture."""
        mask = np.zeros(self.shape, np.uint8)
        corners = np.rint(np.asarray(points, np.float64) * SCALE * 16).astype(np.int32)
        cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, 4)
        return mask

    def ellipse(self, x: float, y: float, a: float, b: float, angle: float = 0) -> Bytes:
        """A soft mask of an ellipse."""
        turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        u, v = a * np.cos(turn), b * np.sin(turn)
        return self.polygon([*zip(x + c * u - s * v, y + s * u + c * v, strict=True)])

    def box(self, x: float, y: float, w: float, h: float) -> Bytes:
        """A soft mask of a rectangle."""
        return self.polygon([(x, y), (x + w, y), (x + w, y + h), (x, y + h)])

    def shade(self, mask: Bytes, strength: float, blur: float) -> None:
        """Darken what is under a blurred mask; negative strength lightens."""
        area = _area(mask, round(3 * blur * SCALE))
        soft = cv2.GaussianBlur(mask[area].astype(np.float32) / 255, (0, 0), blur * SCALE)
        self.image[area] *= (1 - strength * soft)[..., None]

    def gradient(self, top: Colour, bottom: Colour) -> Floats:
        """A vertical gradient over the whole canvas."""
        share = np.linspace(0, 1, self.shape[0], dtype=np.float32)[:, None, None]
        mixed = np.asarray(top, np.float32) * (1 - share) + np.asarray(bottom, np.float32) * share
        return np.broadcast_to(mixed, self.image.shape).astype(np.float32)

    def result(self, palette: str | None = None) -> SegResult:
        """The picture as the result of a model without errors."""
        size = (self.width, self.height)
        small = cv2.resize(self.image, size, interpolation=cv2.INTER_AREA)
        names = tuple(self.names)
        colours = parse_palette(palette, names) if palette else distinct_palette(len(names))
        return SegResult(
            labels=cv2.resize(self.labels, size, interpolation=cv2.INTER_NEAREST_EXACT),
            image=np.ascontiguousarray(small.clip(0, 255).astype(np.uint8)[:, :, ::-1]),
            input_path=None,
            page_index=None,
            class_names=names,
            palette=colours,
            model_name="drawn",
            provider="none",
            precision="none",
            timings=Timings(0, 0, 0),
            stem="scene",
        )


def _bytes(mask: Mask) -> Bytes:
    """A mask as weights from 0 to 255."""
    return mask if mask.dtype == np.uint8 else np.rint(255.0 * mask).astype(np.uint8)


def _area(mask: Bytes, margin: int = 0) -> tuple[slice, slice]:
    """The rows and columns of a mask that are not empty, and a margin."""
    left, top, wide, high = cv2.boundingRect(mask)
    rows = slice(max(0, top - margin), top + high + margin)
    return rows, slice(max(0, left - margin), left + wide + margin)


def indoor() -> SegResult:
    """A living room, in ADE20K's classes and colours."""
    c = Canvas(960, 640, seed=3)
    everywhere = np.ones(c.shape, np.float32)
    c.fill(everywhere, c.gradient((214, 206, 192), (226, 220, 208)), "wall", 1.5)
    c.fill(c.polygon([(0, 0), (960, 0), (760, 96), (180, 96)]), (240, 238, 234), "ceiling", 1)
    floor = c.polygon([(0, 640), (0, 520), (180, 446), (760, 446), (960, 520), (960, 640)])
    rows = np.arange(c.shape[0], dtype=np.float32)[:, None]
    boards = 8 * np.sin(rows / 13) + 5 * c.noise(14, 3)
    wood = np.stack([164 + boards, 124 + boards, 88 + boards], -1)
    c.fill(floor, wood, "floor", 2)
    left = c.polygon([(0, 0), (180, 96), (180, 446), (0, 520)])
    c.shade(left, 0.10, 2)
    for x in (330, 490):
        c.fill(c.box(x - 6, 134, 142, 190), (246, 246, 244), "windowpane", 1)
        c.fill(
            c.box(x, 140, 130, 178), c.gradient((120, 176, 226), (236, 242, 246)), "windowpane", 1
        )
        c.fill(c.box(x + 62, 140, 6, 178), (246, 246, 244), "windowpane", 1)
    for x, direction in ((292, 1), (620, -1)):
        fold = 10 * np.sin(np.arange(c.shape[1], dtype=np.float32) / 9)[None, :, None]
        cloth = np.broadcast_to(np.array([164, 62, 58], np.float32) + fold, c.image.shape)
        wave = [(x + direction * 4 * np.sin(t), 124 + 236 * t / 6) for t in np.linspace(0, 6, 12)]
        edge = [(px + 54, py) for px, py in wave[::-1]]
        c.fill(c.polygon([*wave, *edge]), cloth.astype(np.float32), "curtain", 2)
    c.fill(c.box(60, 176, 84, 110), (92, 70, 52), "painting", 1)
    sea = c.gradient((230, 170, 110), (40, 80, 120))
    c.fill(c.box(67, 183, 70, 96), sea, "painting", 8)
    c.fill(c.box(718, 180, 30, 40), (60, 60, 60), "painting", 1)
    c.fill(c.box(722, 184, 22, 32), (216, 196, 150), "painting", 6)
    c.shade(c.ellipse(480, 560, 330, 42), 0.28, 14)
    rug = c.polygon([(250, 560), (710, 560), (800, 634), (150, 634)])
    weave = 12 * np.sign(np.sin(rows / 11))
    c.fill(rug, np.stack([weave + 88, weave + 104, weave + 132], -1) + 0 * c.image, "rug", 4)
    sofa = (74, 104, 116)
    c.fill(c.box(286, 372, 388, 110), sofa, "sofa", 4)
    for x in (286, 416, 546):
        c.fill(c.ellipse(x + 64, 440, 66, 34), (86, 120, 132), "sofa", 4)
        c.shade(c.box(x, 392, 2, 80), 0.4, 2)
    for x in (256, 644):
        c.fill(c.ellipse(x + 30, 438, 36, 62), (66, 92, 104), "sofa", 4)
    c.fill(c.box(276, 468, 408, 44), (62, 88, 100), "sofa", 4)
    c.fill(c.ellipse(346, 420, 38, 30, 14), (222, 168, 60), "cushion", 3)
    c.fill(c.ellipse(620, 420, 36, 30, -12), (206, 96, 74), "cushion", 3)
    for x in (400, 548):
        c.fill(c.box(x, 556, 9, 54), (70, 48, 34), "table", 2)
    c.fill(c.ellipse(480, 552, 128, 24), (122, 84, 56), "table", 4)
    c.fill(c.ellipse(480, 548, 122, 20), (150, 106, 72), "table", 4)
    c.fill(c.box(464, 506, 28, 40), (236, 236, 232), "vase", 1)
    c.fill(c.ellipse(478, 546, 14, 5), (220, 220, 216), "vase", 1)
    for angle in np.linspace(-62, 62, 11):
        s, k = np.sin(np.radians(angle)), np.cos(np.radians(angle))
        green = (60 + int(30 * abs(s)), 120 + int(40 * k), 62)
        c.fill(c.ellipse(478 + 34 * s, 500 - 30 * k, 22, 6, angle - 90), green, "plant", 6)
    c.fill(c.box(836, 250, 8, 272), (52, 48, 46), "lamp", 1)
    c.fill(c.ellipse(840, 524, 34, 9), (52, 48, 46), "lamp", 1)
    shade = c.polygon([(806, 190), (874, 190), (898, 264), (782, 264)])
    c.fill(shade, c.gradient((255, 240, 200), (250, 214, 150)), "lamp", 1)
    c.shade(c.ellipse(840, 250, 120, 110), -0.16, 40)
    c.fill(c.box(30, 330, 96, 200), (128, 96, 68), "cabinet", 5)
    for y in (338, 402, 466):
        c.fill(c.box(36, y, 84, 56), (146, 112, 82), "cabinet", 5)
        c.fill(c.ellipse(78, y + 28, 5, 4), (214, 200, 160), "cabinet", 1)
    return c.result("ade20k")


def aerial() -> SegResult:
    """Fields, a river and a village from above."""
    c = Canvas(800, 800, seed=11)
    everywhere = np.ones(c.shape, np.float32)
    c.fill(everywhere, (118, 142, 84), "grassland", 9)
    big = c.noise(5, 4)
    y, x = (np.mgrid[: c.shape[0], : c.shape[1]] / SCALE).astype(np.float32)
    river = 420 + 90 * np.sin(x / 150) + 24 * np.sin(x / 61 + 1) - 0.22 * (x - 400)
    tones = ((196, 178, 112), (158, 172, 84), (142, 116, 84), (206, 196, 140), (120, 156, 70))
    for row, base in enumerate((20, 190, 520, 680)):
        offset = 0.0
        while offset < 780:
            wide = float(c.rng.uniform(110, 210))
            a, lean = float(offset), 18 * (row % 2)
            corners = [
                (a, base + lean),
                (a + wide - 8, base + 6),
                (a + wide - 14 + lean, base + 150),
                (a + 6, base + 140 + lean),
            ]
            tone = tones[int(c.rng.integers(len(tones)))]
            turn = float(c.rng.uniform(0, 3))
            stripes = 7 * np.sin((x * np.cos(turn) + y * np.sin(turn)) / 1.9)
            colour = np.asarray(tone, np.float32) + stripes[..., None] + 5 * big[..., None]
            c.fill(c.polygon(corners), colour.astype(np.float32), "farmland", 4)
            offset += wide
    woods = (c.noise(6, 6) + 0.9 * np.exp(-(((x - 640) / 190) ** 2 + ((y - 170) / 150) ** 2))) > 1.5
    crowns = np.asarray((52, 84, 48), np.float32) + 17 * c.noise(150, 2)[..., None]
    c.fill(woods, crowns.astype(np.float32), "forest", 6)
    bank = np.abs(y - river)
    c.fill(np.clip(50 - bank, 0, 1), (178, 168, 132), "bare soil", 5)
    water = np.asarray((48, 96, 118), np.float32) + 4 * c.noise(9, 5)[..., None]
    c.fill(np.clip(36 - bank, 0, 1), water.astype(np.float32), "water", 2)
    road = np.abs(x - 250 - 40 * np.sin(y / 170))
    c.fill(np.clip(10 - road, 0, 1), (150, 148, 146), "road", 3)
    c.fill(np.clip(7 - np.abs(y - 630 - 18 * np.sin(x / 120)), 0, 1), (160, 156, 150), "road", 3)
    roofs = ((166, 82, 60), (150, 92, 76), (112, 112, 118), (188, 110, 78))
    for _ in range(64):
        hx = 250 + float(c.rng.normal(0, 110))
        hy = 632 + float(c.rng.choice([-1, 1])) * float(c.rng.uniform(22, 92))
        if abs(hx - 250 - 40 * np.sin(hy / 170)) < 26 or not 20 < hx < 780:
            continue
        wide, high = float(c.rng.uniform(9, 17)), float(c.rng.uniform(7, 12))
        angle = float(c.rng.uniform(-20, 20))
        s, k = np.sin(np.radians(angle)), np.cos(np.radians(angle))
        house = [
            (hx + k * u - s * v, hy + s * u + k * v)
            for u, v in ((-wide, -high), (wide, -high), (wide, high), (-wide, high))
        ]
        c.shade(c.polygon([(px + 4, py + 4) for px, py in house]), 0.35, 1.5)
        roof = np.asarray(roofs[int(c.rng.integers(len(roofs)))], np.float32)
        side = np.where(s * (x - hx) * -1 + k * (y - hy) > 0, 0.8, 1.12)[..., None]
        c.fill(c.polygon(house), (roof * side).astype(np.float32), "building", 4)
    return c.result()


def portrait() -> SegResult:
    """A person in front of a park."""
    c = Canvas(640, 800, seed=5)
    everywhere = np.ones(c.shape, np.float32)
    c.fill(everywhere, c.gradient((176, 204, 224), (150, 168, 120)), "background", 1)
    for _ in range(90):  # lights out of focus
        px, py = float(c.rng.uniform(0, 640)), float(c.rng.uniform(0, 560))
        radius = float(c.rng.uniform(16, 52))
        leaf = (
            int(c.rng.uniform(90, 190)),
            int(c.rng.uniform(140, 210)),
            int(c.rng.uniform(80, 150)),
        )
        c.fill(0.3 / 255 * c.ellipse(px, py, radius, radius), leaf, "background", 0)
    hair, skin, light = (66, 44, 34), (222, 172, 142), (236, 190, 160)
    c.fill(c.ellipse(320, 318, 158, 196), hair, "hair", 6)
    c.fill(
        c.polygon([(180, 300), (164, 520), (236, 566), (404, 566), (476, 520), (460, 300)]),
        hair,
        "hair",
        6,
    )
    shirt = [
        (64, 800),
        (84, 660),
        (150, 596),
        (250, 560),
        (390, 560),
        (490, 596),
        (556, 660),
        (576, 800),
    ]
    c.fill(c.polygon(shirt), (48, 92, 132), "clothes", 4)
    c.shade(c.polygon([(150, 800), (176, 640), (190, 640), (176, 800)]), 0.3, 8)
    c.shade(c.polygon([(464, 800), (452, 640), (466, 640), (490, 800)]), 0.3, 8)
    neck = [(262, 470), (258, 560), (250, 566), (320, 640), (390, 566), (382, 560), (378, 470)]
    c.fill(c.polygon(neck), (204, 152, 124), "skin", 2)
    c.shade(c.ellipse(320, 508, 72, 26), 0.18, 12)
    c.fill(c.ellipse(206, 350, 18, 34), (212, 160, 130), "skin", 2)
    c.fill(c.ellipse(434, 350, 18, 34), (212, 160, 130), "skin", 2)
    c.fill(c.ellipse(320, 346, 114, 152), skin, "skin", 2)
    c.shade(c.ellipse(376, 300, 60, 90), -0.06, 30)
    c.shade(c.ellipse(240, 400, 40, 80), 0.08, 24)
    for ex in (274, 366):
        c.fill(c.ellipse(ex, 334, 24, 12), (244, 242, 238), "eyes", 1)
        c.fill(c.ellipse(ex, 334, 11, 11), (78, 98, 66), "eyes", 1)
        c.fill(c.ellipse(ex, 334, 5, 5), (20, 20, 20), "eyes", 0)
        c.fill(c.ellipse(ex + 4, 330, 2, 2), (255, 255, 255), "eyes", 0)
        c.fill(c.ellipse(ex, 302, 32, 6, -4 if ex < 320 else 4), (60, 42, 32), "hair", 3)
    c.fill(c.polygon([(312, 340), (328, 340), (342, 398), (298, 398)]), light, "skin", 1)
    c.shade(c.ellipse(320, 400, 22, 6), 0.22, 4)
    c.fill(c.ellipse(320, 438, 42, 13), (188, 92, 92), "lips", 2)
    c.shade(c.box(280, 436, 80, 2), 0.4, 1)
    fringe = [
        (206, 330),
        (196, 230),
        (250, 164),
        (330, 150),
        (410, 170),
        (446, 240),
        (434, 330),
        (420, 262),
        (360, 226),
        (270, 236),
        (222, 270),
    ]
    c.fill(c.polygon(fringe), (74, 50, 38), "hair", 7)
    for shift in range(-120, 130, 24):
        strand = [
            (320 + shift, 160 + abs(shift) / 3),
            (324 + shift, 160 + abs(shift) / 3),
            (330 + 1.25 * shift, 250),
            (326 + 1.25 * shift, 250),
        ]
        c.shade(c.polygon(strand), -0.16, 3)
    return c.result()


def microscopy() -> SegResult:
    """Stained cells under a microscope."""
    c = Canvas(800, 600, seed=8)
    mottled = np.asarray((236, 214, 226), np.float32) + 5 * c.noise(7, 5)[..., None]
    c.fill(np.ones(c.shape, np.float32), mottled.astype(np.float32), "background", 2)
    fibres = c.noise(5, 3)
    bundle = np.clip(0.5 + 6 * (np.abs(fibres) < 0.16) - 3 * (np.abs(fibres) >= 0.16), 0, 1)
    c.fill(bundle.astype(np.float32), (226, 150, 178), "stroma", 8)
    centres: list[tuple[float, float, float]] = []
    for _ in range(4000):
        radius = float(c.rng.uniform(22, 42))
        px, py = float(c.rng.uniform(0, 800)), float(c.rng.uniform(0, 600))
        if all(np.hypot(px - a, py - b) > (radius + r) * 0.93 for a, b, r in centres):
            centres.append((px, py, radius))
        if len(centres) == 85:
            break
    for index, (px, py, radius) in enumerate(centres):
        turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        wobble = 1 + 0.08 * np.sin(3 * turn + index) + 0.05 * np.sin(5 * turn + 2 * index)
        cell = [
            *zip(
                px + radius * wobble * np.cos(turn),
                py + radius * wobble * np.sin(turn),
                strict=True,
            )
        ]
        dividing = index % 9 == 4
        lymph = index % 7 == 2
        c.shade(c.polygon(cell), 0.1, 3)
        if lymph:
            c.fill(c.ellipse(px, py, radius * 0.5, radius * 0.5), (86, 60, 136), "lymphocyte", 12)
            continue
        c.fill(c.polygon(cell), (206, 158, 198), "cytoplasm", 6)
        if dividing:
            for shift in (-0.3, 0.3):
                c.fill(
                    c.ellipse(px + shift * radius, py, radius * 0.12, radius * 0.5, 8),
                    (70, 34, 98),
                    "mitosis",
                    8,
                )
            continue
        c.fill(
            c.ellipse(px + 2, py - 1, radius * 0.52, radius * 0.46, index * 40 % 180),
            (122, 82, 160),
            "nucleus",
            9,
        )
        c.fill(c.ellipse(px + 5, py + 2, radius * 0.12, radius * 0.12), (82, 44, 120), "nucleus", 4)
    return c.result()


def market() -> SegResult:
    """A market stall of 24 kinds of fruit and vegetables: many classes."""
    c = Canvas(1080, 720, seed=2)
    goods: dict[str, Colour] = {
        "apple": (196, 44, 48),
        "lemon": (242, 214, 66),
        "lime": (122, 176, 54),
        "orange": (240, 146, 38),
        "plum": (92, 44, 92),
        "peach": (244, 176, 128),
        "pear": (188, 196, 84),
        "cherry": (146, 18, 42),
        "tomato": (220, 58, 38),
        "aubergine": (62, 32, 72),
        "courgette": (72, 112, 52),
        "carrot": (236, 126, 46),
        "onion": (206, 156, 98),
        "garlic": (238, 232, 220),
        "radish": (214, 56, 104),
        "potato": (190, 158, 112),
        "cabbage": (146, 190, 112),
        "beetroot": (112, 28, 58),
        "mushroom": (224, 208, 188),
        "chestnut": (104, 60, 38),
        "blueberry": (66, 80, 138),
        "fig": (96, 62, 92),
        "kiwi": (132, 108, 64),
        "mango": (236, 168, 66),
    }
    c.fill(np.ones(c.shape, np.float32), (96, 70, 50), "crate", 5)
    for index, (name, tone) in enumerate(goods.items()):
        left, top = 8 + index % 6 * 178, 8 + index // 6 * 178
        c.fill(c.box(left, top, 172, 172), (146, 110, 76), "crate", 6)
        c.fill(c.box(left + 8, top + 8, 156, 156), (64, 48, 36), "crate", 4)
        radius = 27 - index % 3 * 5
        step = radius * 1.62
        for row in range(int(150 / step)):
            for column in range(int(150 / step) + 1):
                px = left + 12 + radius + column * step + (row % 2) * step / 2 - 4
                py = top + 14 + radius + row * step * 0.92
                if px + radius > left + 164 or py + radius > top + 164:
                    continue
                px, py = px + float(c.rng.normal(0, 1.4)), py + float(c.rng.normal(0, 1.4))
                glow = float(c.rng.uniform(0.88, 1.12))
                a, b = radius, radius * (0.9 if index % 4 else 0.78)
                turn = float(c.rng.uniform(0, 90))
                c.shade(c.ellipse(px + 2, py + 4, a, b, turn), 0.3, 3)
                rgb = tuple(int(v * glow) for v in tone)
                c.fill(c.ellipse(px, py, a, b, turn), (rgb[0], rgb[1], rgb[2]), name, 4)
                c.shade(c.ellipse(px + a * 0.3, py + b * 0.35, a * 0.6, b * 0.55), 0.22, 5)
                c.shade(c.ellipse(px - a * 0.3, py - b * 0.35, a * 0.3, b * 0.25), -0.3, 4)
    return c.result()


def street(**options: str) -> SegResult:
    """The sample image, segmented by the bundled model."""
    pipeline = segrt.create_pipeline("semantic_segmentation", device="cpu", **options)
    return pipeline.segment(package_data.path(package_data.SAMPLE))


SCENES: dict[str, Callable[[], SegResult]] = {
    "street": street,
    "cityscapes": partial(street, palette="cityscapes"),
    "indoor": indoor,
    "aerial": aerial,
    "market": market,
    "microscopy": microscopy,
    "portrait": portrait,
}

GALLERY: dict[str, tuple[str, dict[str, Any]]] = {
    "street": ("street", {"names": True}),
    "street-below": ("cityscapes", {"alpha": 0.7, "legend": "below"}),
    "street-beside": ("street", {"only": "road,car", "side_by_side": True}),
    "street-blur": ("street", {"only": "car,pedestrian", "background": "blur"}),
    "indoor": ("indoor", {"names": True, "legend": "none"}),
    "aerial": ("aerial", {"alpha": 0.35, "outlines": True, "legend": "right"}),
    "market": ("market", {"legend": "below"}),
    "microscopy": (
        "microscopy",
        {"only": "nucleus,lymphocyte,mitosis", "alpha": 0.7, "outlines": True},
    ),
    "portrait": ("portrait", {"names": True, "legend": "inside"}),
    "portrait-cutout": ("portrait", {"background": "transparent"}),
}
"""The pictures of docs/gallery.md: their scene, and the options of its overlay."""


def examples() -> dict[str, Bytes]:
    """Pictures to try a model on, uint8 (H, W, 3), RGB."""
    avenue = draw_street(seed=23)[0][:, ::-1]
    evening = draw_street(seed=11)[0].astype(np.float32) * np.array([0.78, 0.6, 0.5], np.float32)
    return {
        "street": draw_street()[0],
        "avenue": avenue,
        "evening": evening.astype(np.uint8),
        **{
            scene.__name__: scene().image[:, :, ::-1]
            for scene in (indoor, aerial, portrait, microscopy)
        },
    }


def save(picture: Image.Image, path: Path, width: int = 960) -> None:
    """Write a picture of at most this width, in the best quality that takes at most 60 kB."""
    picture.thumbnail((width, width), Image.Resampling.LANCZOS)
    for quality in range(90, 0, -5):
        data = io.BytesIO()
        picture.save(data, "webp", quality=quality, method=6)
        if data.tell() <= 60_000:
            break
    path.write_bytes(data.getvalue())


def main() -> None:
    """Write the pictures into a folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--examples", action="store_true", help="the pictures of the pages")
    options = parser.parse_args()
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    if options.examples:
        for name, image in examples().items():
            picture = Image.fromarray(np.ascontiguousarray(image))
            picture.thumbnail((480, 480), Image.Resampling.LANCZOS)
            picture.save(folder / f"example-{name}.webp", quality=70, method=6)
        return
    drawn = {scene: SCENES[scene]() for scene, _ in GALLERY.values()}
    for name, (scene, look) in GALLERY.items():
        save(drawn[scene].overlay(**look), folder / f"gallery-{name}.webp")


if __name__ == "__main__":
    main()
