"""Draw segrt's sample image: a synthetic street seen from a car, with classes of CamVid.

The image is entirely computed, without any photograph, so it can be distributed freely. The scene
is a small 3-D world in metres (x right, y up, z ahead), drawn from far to near at twice the final
size. A label map is drawn in parallel, so the class of every pixel is known.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
WIDTH, HEIGHT = 1920, 1440  # size of the canvas; the file has half of it
FOCAL, EYE, HORIZON, CENTRE = 1300.0, 1.35, 690, 900
KERB_LEFT, KERB_RIGHT, WALL_LEFT, WALL_RIGHT = -2.7, 6.3, -5.6, 9.3
HAZE, DARK = (206.0, 213.0, 220.0), (24.0, 25.0, 28.0)
TURN = np.arange(0, 2 * np.pi, 0.2)

Colour = tuple[float, float, float]
Point = tuple[float, float, float]
Floats = NDArray[np.float32]


def tint(colour: Colour, factor: float) -> Colour:
    """Return a lighter or darker colour."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def haze_at(depth: float) -> float:
    """Return the share of haze in a colour seen at a depth."""
    return 1 - float(np.exp(-depth / 240))


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, cells: int, octaves: int = 5
) -> Floats:
    """Return fractal noise with zero mean and unit deviation.

    Args:
        rng: random generator.
        height: height of the result.
        width: width of the result.
        cells: number of the largest blobs across the width.
        octaves: number of added scales.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        across = max(2, cells * 2**octave)
        grid = rng.normal(size=(max(2, across * height // width), across)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(
            0.55**octave
        )
    return np.asarray((total - total.mean()) / total.std(), np.float32)


class Scene:
    """The canvas: an image, its label map, and the camera."""

    def __init__(self, seed: int) -> None:
        """Start with an empty image that is all sky."""
        self.rng = np.random.default_rng(seed)
        self.image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        self.labels = np.full((HEIGHT, WIDTH), SKY, np.uint8)
        self.grain = smooth_noise(self.rng, HEIGHT, WIDTH, 160, 4)

    def project(self, points: Sequence[Point]) -> Floats:
        """Return the pixel coordinates of points of the world."""
        world = np.asarray(points, np.float32)
        scale = FOCAL / world[:, 2]
        return np.stack(
            [CENTRE + world[:, 0] * scale, HORIZON + (EYE - world[:, 1]) * scale], 1
        ).astype(np.float32)

    def polygon(
        self,
        points: Sequence[Point],
        fill: tuple[Colour, Colour] | Floats,
        label: int,
        corners: int = 0,
        hull: bool = False,
        texture: float = 1.5,
    ) -> None:
        """Fill a polygon of the world with a vertical gradient, or a rectangle with an image.

        Args:
            points: corners of the polygon.
            fill: colours at the top and bottom, or the image.
            label: class of the polygon.
            corners: how many times to cut off the corners, which rounds them.
            hull: fill the convex hull of `points`, in any order.
            texture: strength of the grain.
        """
        flat = self.project(points)
        if hull:
            flat = cv2.convexHull(flat)[:, 0].astype(np.float32)
        for _ in range(corners):
            after = np.roll(flat, -1, 0)
            flat = np.stack([flat * 0.8 + after * 0.2, flat * 0.2 + after * 0.8], 1).reshape(-1, 2)
        left, top = (max(0, int(v) - 1) for v in flat.min(0))
        right, bottom = (
            min(size, int(v) + 2) for size, v in zip((WIDTH, HEIGHT), flat.max(0), strict=True)
        )
        if left >= right or top >= bottom:
            return
        local = flat - np.array([left, top], np.float32)
        alpha = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(alpha, [np.rint(local * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        if isinstance(fill, tuple):
            share = (
                (np.arange(bottom - top) - local[:, 1].min()) / max(1.0, float(np.ptp(local[:, 1])))
            ).clip(0, 1)
            colour = (
                np.asarray(fill[0])
                + (np.asarray(fill[1]) - np.asarray(fill[0])) * share[:, None, None]
            )
            colour = colour + self.grain[top:bottom, left:right, None] * texture
        else:  # corners from the top left; downscaled first, which avoids aliasing far away
            sides = np.linalg.norm(flat - np.roll(flat, -1, 0), axis=1)
            wide = min(fill.shape[1], max(2, int(max(sides[0], sides[2]))))
            high = min(fill.shape[0], max(2, int(max(sides[1], sides[3]))))
            small = cv2.resize(fill, (wide, high), interpolation=cv2.INTER_AREA)
            source = np.array([[0, 0], [wide, 0], [wide, high], [0, high]], np.float32)
            matrix = cv2.getPerspectiveTransform(source, local)
            colour = cv2.warpPerspective(
                small, matrix, alpha.shape[::-1], borderMode=cv2.BORDER_REPLICATE
            )
        fog = haze_at(float(np.mean([point[2] for point in points])))
        colour = colour * (1 - fog) + np.asarray(HAZE) * fog
        area = self.image[top:bottom, left:right]
        area += ((colour - area) * (alpha[..., None] / 255)).astype(np.float32)
        self.labels[top:bottom, left:right][alpha > 127] = label

    def disc(
        self, x: float, y: float, z: float, size: tuple[float, float], tone: Colour, label: int
    ) -> None:
        """Draw an upright ellipse that faces the camera."""
        ring = [(x + size[0] * np.cos(t), y + size[1] * np.sin(t), z) for t in TURN]
        self.polygon(ring, (tint(tone, 1.12), tint(tone, 0.8)), label)

    def limb(
        self, line: Sequence[Point], widths: Sequence[float], tone: Colour, label: int
    ) -> None:
        """Draw a tapered stroke, such as an arm, a leg or a pole, lit from the right."""
        for start, light, dark in ((-0.5, 1.0, 0.8), (0.16, 1.25, 0.95)):
            left = [(x + start * w, y, z) for (x, y, z), w in zip(line, widths, strict=True)]
            right = [(x + 0.5 * w, y, z) for (x, y, z), w in zip(line, widths, strict=True)]
            self.polygon(
                [*left, *right[::-1]], (tint(tone, light), tint(tone, dark)), label, corners=1
            )

    def box(
        self, x: float, top: float, z: float, size: tuple[float, float], tone: Colour, label: int
    ) -> None:
        """Draw a rectangle that faces the camera, centred on x."""
        left, right, low = x - size[0] / 2, x + size[0] / 2, top - size[1]
        corners = [(left, top, z), (right, top, z), (right, low, z), (left, low, z)]
        self.polygon(corners, (tint(tone, 1.1), tint(tone, 0.8)), label)

    def shadow(
        self, x: float, z: float, size: tuple[float, float], strength: float, blur: float
    ) -> None:
        """Darken a blurred patch of the ground; the labels do not change."""
        ring = [(x + size[0] * np.cos(t), 0.0, z + size[1] * np.sin(t)) for t in TURN]
        mask = np.zeros((HEIGHT, WIDTH), np.float32)
        cv2.fillPoly(mask, [np.rint(self.project(ring)).astype(np.int32)], 1.0)
        self.image *= (1 - strength * cv2.GaussianBlur(mask, (0, 0), blur))[..., None]


def draw_sky(scene: Scene) -> None:
    """Fill the image with a pale blue gradient and soft clouds."""
    share = np.linspace(0, HEIGHT / HORIZON, HEIGHT)[:, None, None]
    blue = np.array([150, 184, 222]) * (1 - share) + np.array([226, 233, 238]) * share
    clouds = cv2.resize(smooth_noise(scene.rng, HEIGHT * 2, WIDTH, 4, 6), (WIDTH, HEIGHT))
    cover = (1 / (1 + np.exp(-2.2 * (clouds - 0.1))))[..., None]
    white = np.array([247, 248, 249]) - 12 * smooth_noise(scene.rng, HEIGHT, WIDTH, 6)[
        ..., None
    ].clip(0, 3)
    scene.image[:] = blue.clip(0, 240) * (1 - cover) + white * cover


def draw_ground(scene: Scene) -> None:
    """Draw the road with its markings, the kerbs and the paving slabs."""
    rows, columns = np.mgrid[HORIZON + 2 : HEIGHT, 0:WIDTH].astype(np.float32)
    z = FOCAL * EYE / (rows - HORIZON)
    x = (columns - CENTRE) * z / FOCAL
    patches = smooth_noise(scene.rng, 1024, 1024, 12)
    worn = cv2.remap(patches, (x * 30 + 512).clip(0, 1023), (z * 9).clip(0, 1023), cv2.INTER_LINEAR)
    grit = 4 * cv2.GaussianBlur(scene.rng.normal(size=z.shape), (0, 0), 1.3)
    grit = grit * np.clip(9 / z, 0.25, 1.2) + 0.3 * scene.grain[HORIZON + 2 :]
    tracks = np.exp(-(((np.abs(np.abs(x - 0.1) - 0.85)) / 0.3) ** 2))
    road = (101 + 3 * worn + 4 * grit + 6 * tracks)[..., None] * np.array([0.985, 1.0, 1.02])
    yellow = (np.abs(np.abs(x - KERB_LEFT - 0.38) - 0.1) < 0.045) * np.clip(0.65 + 0.1 * worn, 0, 1)
    white = (np.abs(x - 1.85) < 0.06) * ((z + 2.6) % 6 < 3.2) * np.clip(0.8 + 0.1 * worn, 0, 1)
    for share, tone in ((yellow, (196, 170, 84)), (white, (222, 222, 216))):
        road += share[..., None] * (np.asarray(tone) + 3 * grit[..., None] - road)
    beside = np.where(x < 0, KERB_LEFT - x, x - KERB_RIGHT)  # metres into the pavement
    column = np.floor(beside / 0.62)
    along = z / 0.9 + 0.5 * column
    tones = scene.rng.normal(size=4096)[
        (column * 57 + np.floor(along) * 131 + (x < 0) * 977).astype(int) % 4096
    ]
    joint = (beside % 0.62 < 0.02) | (along % 1 < np.clip(0.02 + z * 0.002, 0, 0.05))
    slabs = 141 + 5 * tones + 4 * worn + 3 * grit - 26 * (joint & (z < 40))
    slabs = np.where(beside < 0.16, 172 + 6 * tones + 4 * grit - 40 * (z % 0.9 < 0.03), slabs)
    slabs = np.where(beside < 0.05, 92 + 3 * grit, slabs)
    road *= 1 - 0.2 * (np.abs(beside + 0.09) < 0.09)[..., None]  # the gutter
    colour = np.where(beside[..., None] > 0, slabs[..., None] * np.array([1.03, 1.0, 0.95]), road)
    to_wall = np.where(x < 0, x - WALL_LEFT, WALL_RIGHT - x)
    shade = (1 - 0.11 * (1 + np.tanh((x - 5.6) / 0.3))) * (
        1 - 0.35 * np.exp(-np.abs(to_wall) / 0.35)
    )
    fog = (1 - np.exp(-z / 240))[..., None]
    scene.image[HORIZON + 2 :] = colour * shade[..., None] * (1 - fog) + np.asarray(HAZE) * fog
    scene.labels[HORIZON + 2 :] = np.where(beside > 0, PAVEMENT, ROAD)


def facade(rng: np.random.Generator, width: float, height: float, wall: Colour) -> Floats:
    """Return the image of a house front: bricks, stains, windows and a door."""
    unit = 90  # pixels per metre
    wide, high = int(width * unit), int(height * unit)
    bricks = rng.normal(size=(int(height / 0.075), int(width / 0.22))).astype(np.float32)
    tone = 1 + 0.06 * cv2.resize(bricks, (wide, high), interpolation=cv2.INTER_NEAREST)
    tone += 0.13 * smooth_noise(rng, high, wide, 6)
    image = np.asarray(np.asarray(wall) * tone[..., None], np.float32)
    sheen = smooth_noise(rng, high, wide, 2)

    def box(x: float, y: float, w: float, h: float, colour: Colour, shine: float = 0) -> None:
        left, right, top, bottom = (int(v * unit) for v in (x, x + w, height - y - h, height - y))
        fade = np.linspace(1, -1, bottom - top)[:, None] + 0.8 * sheen[top:bottom, left:right]
        image[top:bottom, left:right] = np.asarray(colour) + shine * fade[..., None]

    frame = tint((176, 173, 165), float(rng.uniform(0.85, 1)))
    doors = ((40, 60, 84), (98, 28, 30), (34, 62, 44))
    count = max(2, round(width / 2.2))
    for floor, column in np.ndindex(int(height / 2.8), count):
        x, y = (column + 0.5) * width / count, 0.9 + floor * 2.8
        if floor == 0 and column == 0:
            box(x - 0.55, 0, 1.1, 2.4, frame)
            box(x - 0.43, 0, 0.86, 2.1, doors[int(rng.integers(3))], 6)
            continue
        box(x - 0.72, y + 1.5, 1.44, 0.2, tint(wall, 0.84))
        box(x - 0.62, y - 0.1, 1.24, 1.62, frame)
        box(x - 0.72, y - 0.16, 1.44, 0.1, (160, 154, 142))
        for pane_x, pane_y in ((-0.54, 0.0), (-0.54, 0.76), (0.03, 0.0), (0.03, 0.76)):
            box(x + pane_x, y + pane_y, 0.51, 0.68, (92, 95, 99), 16)
    box(0, height - 0.3, width, 0.3, tint(wall, 1.2), 10)
    return image


def draw_house(
    scene: Scene, side: int, near: float, far: float, height: float, wall: Colour
) -> None:
    """Draw a house with chimneys, roof, gable and front; `side` is -1 for left, 1 for right."""
    # The sun is on the right.
    front, light = (WALL_LEFT, 1.15) if side < 0 else (WALL_RIGHT, 0.9)
    wall, slate = tint(wall, light), tint((104, 92, 88), light)
    ridge, back, top = front + side * 2.6, front + side * 5.2, height + 3
    for z in (far - 0.8, near + 0.8):
        scene.box(ridge, top + 1.1, z, (0.8, 2.0), tint(wall, 0.85), BUILDING)
    roof = [(front, height, near), (ridge, top, near), (ridge, top, far), (front, height, far)]
    scene.polygon(roof, (tint(slate, 1.1), slate), BUILDING, texture=7)
    gable = [
        (front, 0, near),
        (front, height, near),
        (ridge, top, near),
        (back, height, near),
        (back, 0, near),
    ]
    scene.polygon(gable, (tint(wall, 0.86), tint(wall, 0.7)), BUILDING, texture=6)
    a, b = (near, far) if side < 0 else (far, near)
    corners = [(front, height, a), (front, height, b), (front, 0, b), (front, 0, a)]
    scene.polygon(corners, facade(scene.rng, far - near, height, wall), BUILDING)


def draw_tree(scene: Scene, x: float, z: float, height: float, leaf: Colour) -> None:
    """Draw a tree: its shadow, a branching trunk, and leaves lit from the upper right."""
    rng, unit, fog = scene.rng, FOCAL / z, haze_at(z)
    scene.shadow(x - 1.2, z, (2.2, 1.6), 0.35, 200 / z)
    paint = scene.image.clip(0, 255).astype(np.uint8)
    cover = np.zeros((HEIGHT, WIDTH), np.uint8)
    tips: list[tuple[float, float]] = []

    def hazy(colour: Colour, factor: float) -> Sequence[float]:
        return [float(c * factor * (1 - fog) + h * fog) for c, h in zip(colour, HAZE, strict=True)]

    def pixel(px: float, py: float) -> tuple[int, int]:
        return int((CENTRE + px * unit) * 8), int((HORIZON + (EYE - py) * unit) * 8)

    def branch(px: float, py: float, angle: float, length: float, girth: float) -> None:
        ex, ey = px + length * float(np.sin(angle)), py + length * float(np.cos(angle))
        for shift, share, light in ((0.0, 1.0, 1.0), (0.25 * girth, 0.33, 1.4)):
            thick = max(1, int(girth * unit * share))
            ends = pixel(px + shift, py), pixel(ex + shift, ey)
            cv2.line(paint, *ends, hazy((74, 64, 54), light), thick, cv2.LINE_AA, 3)
            cv2.line(cover, *ends, 255, max(2, thick), cv2.LINE_AA, 3)
        if length < height * 0.09:
            tips.append((ex, ey))
            return
        for turn in (rng.uniform(-0.75, -0.25), rng.uniform(-0.1, 0.15), rng.uniform(0.25, 0.75)):
            branch(ex, ey, angle * 0.8 + turn, length * rng.uniform(0.58, 0.76), girth * 0.6)

    branch(x, 0, 0.02, height * 0.33, height * 0.045)
    leaves = np.repeat(np.asarray(tips), 9000 // len(tips), 0)
    leaves = leaves + rng.normal(size=leaves.shape).clip(-1.8, 1.8) * height * np.array(
        [0.06, 0.085]
    )
    where = (leaves - leaves.mean(0)) / leaves.std(0)
    light = 0.72 + where @ np.array([0.1, 0.17]) + 0.16 * rng.normal(size=len(leaves))
    for index in np.argsort(light + 0.5 * rng.normal(size=len(leaves))):
        size, spot = rng.uniform(0.035, 0.08) * unit, pixel(leaves[index, 0], leaves[index, 1])
        tone = hazy(leaf, float(np.clip(light[index], 0.25, 1.5)))
        axes, angle = (max(1, int(size)), max(1, int(size * 0.6))), float(rng.uniform(0, 180))
        cv2.ellipse(paint, (spot[0] // 8, spot[1] // 8), axes, angle, 0, 360, tone, -1, cv2.LINE_AA)
        cv2.circle(cover, spot, max(8, int(size * 8)), 255, -1, cv2.LINE_AA, 3)
    scene.image[:] = paint
    scene.labels[cv2.morphologyEx(cover, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)) > 127] = TREE


def shades(tone: Colour, light: float = 1.0, fade: float = 0.8) -> tuple[Colour, Colour]:
    """Return the colours at the top and bottom of a vertical gradient."""
    return tint(tone, light), tint(tone, light * fade)


class Car:
    """A hatchback, in coordinates relative to its nearest end.

    Attributes:
        REAR: outline of the rear, (along, up) from bottom to top.
        NOSE: outline of the front, likewise.
    """

    REAR = ((0.06, 0.25), (0.0, 0.5), (0.1, 0.95), (0.5, 1.43))
    NOSE = ((3.92, 0.22), (4.0, 0.5), (3.86, 0.74), (2.85, 0.97), (2.05, 1.45))

    def __init__(self, scene: Scene, x: float, z: float, paint: Colour, away: bool) -> None:
        self.scene, self.x, self.z, self.paint, self.away = scene, x, z, paint, away
        self.flank = 1 if x < 0 else -1  # the visible side

    def at(self, across: float, up: float, along: float) -> Point:
        """Return a point of the world."""
        return self.x + across, up, self.z + (along if self.away else 4 - along)

    def half(self, up: float) -> float:
        """Return half the width at a height."""
        return 0.84 - 0.44 * max(0.0, up - 0.95)

    def wheel(self, across: float, radius: float, axle: float) -> list[Point]:
        """Return the outline of a wheel."""
        return [self.at(across, 0.31 + radius * np.sin(t), axle + radius * np.cos(t)) for t in TURN]

    def strip(
        self, low: tuple[float, float], high: tuple[float, float], inset: float
    ) -> list[Point]:
        """Return the corners of a strip across the car between two points of its outline."""
        a, b = self.half(low[1]) - inset, self.half(high[1]) - inset
        return [
            self.at(-a, low[1], low[0]),
            self.at(-b, high[1], high[0]),
            self.at(b, high[1], high[0]),
            self.at(a, low[1], low[0]),
        ]

    def draw_body(self) -> None:
        """Draw the tyres, the body and the cabin."""
        for side, axle in ((-1, 0.75), (-1, 3.2), (1, 0.75), (1, 3.2)):
            tyre = [*self.wheel(side * 0.8, 0.31, axle), *self.wheel(side * 0.6, 0.31, axle)]
            self.scene.polygon(tyre, shades(DARK), CAR, hull=True)
        for low, high in ((0, 1), (0.9, 2)):  # the body, then the cabin
            part = [point for point in self.REAR + self.NOSE if low < point[1] < high]
            cloud = [
                self.at(side * self.half(up), up, along) for along, up in part for side in (-1, 1)
            ]
            self.scene.polygon(cloud, shades(self.paint, 0.95, 0.5), CAR, corners=2, hull=True)

    def draw_flank(self) -> None:
        """Draw the wheels, the crease and the windows of the visible side."""
        edge = self.flank * 0.845
        rings = (
            (0.37, tint(DARK, 0.8)),
            (0.31, DARK),
            (0.2, (158, 160, 164)),
            (0.07, (80, 82, 86)),
        )
        for axle in (0.75, 3.2):
            for radius, tone in rings:
                self.scene.polygon(self.wheel(edge, radius, axle), shades(tone), CAR)
        crease = [(0.9, 0.1), (0.93, 3.4), (0.86, 3.4), (0.84, 0.1)]
        corners = [self.at(edge, up, along) for up, along in crease]
        self.scene.polygon(corners, shades(self.paint, 1.2), CAR)
        windows = ((0.4, 0.65, 1.35, 1.35), (1.42, 1.42, 2.0, 2.5))
        for low_a, high_a, high_b, low_b in windows:
            outline = ((low_a, 1.0), (high_a, 1.39), (high_b, 1.39), (low_b, 1.0))
            window = [
                self.at(self.flank * (self.half(up) + 0.005), up, along) for along, up in outline
            ]
            self.scene.polygon(window, shades((70, 78, 88), 1, 0.5), CAR)

    def draw_end(self) -> None:
        """Draw the nearest end: its panels, window, bumper, lamps, mirrors and number plate."""
        scene, away, x, face = self.scene, self.away, self.x, self.z - 0.02
        end = self.REAR if away else self.NOSE
        lamp, plate = (
            ((168, 26, 24), (222, 196, 70)) if away else ((226, 228, 226), (228, 228, 222))
        )
        for start, stop, light in zip(end, end[1:], (0.73, 0.93, 1.1, 1.0), strict=False):
            scene.polygon(self.strip(start, stop, 0), shades(self.paint, light), CAR)
        pane = self.strip(end[-2], end[-1], 0.09)
        scene.polygon(pane, shades((120, 132, 146), 1, 0.35), CAR, corners=1)
        scene.polygon(self.strip(end[0], end[1], 0.02), shades(DARK, 1.6, 0.6), CAR, corners=1)
        lamp_top, lamp_size = (0.86, (0.24, 0.26)) if away else (0.72, (0.24, 0.12))
        mirror_z, mirror = self.z + (2.3 if away else 1.6), tint(self.paint, 0.7)
        for side in (-1, 1):
            scene.box(x + side * 0.68, lamp_top, face, lamp_size, lamp, CAR)
            scene.box(x + side * 0.93, 1.08, mirror_z, (0.2, 0.13), mirror, CAR)
        scene.box(x, 0.53, face, (0.54, 0.11), plate, CAR)
        if not away:
            scene.box(x, 0.68, face, (0.9, 0.1), DARK, CAR)


def draw_car(scene: Scene, x: float, z: float, paint: Colour, away: bool) -> None:
    """Draw a hatchback whose nearest end is at z, seen from behind or coming towards the camera."""
    scene.shadow(x, z + 2, (1.15, 2.5), 0.7, 90 / z)
    car = Car(scene, x, z, paint, away)
    car.draw_body()
    car.draw_flank()
    car.draw_end()


def draw_person(
    scene: Scene, x: float, z: float, coat: Colour, trousers: Colour, label: int
) -> None:
    """Draw a pedestrian on the pavement or a cyclist on the road."""
    rides, skin, hair = label == BICYCLIST, (192.0, 148.0, 124.0), (52.0, 38.0, 30.0)
    scene.shadow(x - 0.35, z + 0.3, (0.5, 0.35), 0.4, 6)
    if rides:
        scene.disc(x, 0.34, z, (0.05, 0.34), DARK, label)
        scene.box(x, 1.0, z, (0.56, 0.03), DARK, label)
    for side in (-1, 1):
        foot = 0.3 + side * 0.11 if rides else 0.07
        knee, toe = (0.17, 0.13) if rides else (0.13, 0.18)
        leg = [
            (x + side * 0.09, 0.95, z),
            (x + side * knee, (foot + 0.95) / 2, z),
            (x + side * toe, foot, z),
        ]
        scene.limb(leg, (0.2, 0.16, 0.11), trousers, label)
        scene.disc(x + side * toe, foot, z, (0.08, 0.05), DARK, label)
        arm = [(x + side * 0.21, 1.43, z), (x + side * 0.3, 1.15, z), (x + side * 0.27, 0.9, z)]
        scene.limb(arm, (0.14, 0.13, 0.09), tint(coat, 0.87), label)
        scene.disc(x + side * 0.27, 0.88, z, (0.045, 0.06), skin, label)
    body = [(x, 1.52, z), (x, 1.42, z), (x, 1.12, z), (x, 0.84, z)]
    scene.limb(body, (0.2, 0.45, 0.39, 0.4), coat, label)
    scene.disc(x, 1.62, z, (0.1, 0.14), skin, label)
    scene.disc(x, 1.68, z, (0.11, 0.1), (40, 44, 60) if rides else hair, label)
    if rides:
        scene.disc(x, 0.78, z, (0.04, 0.05), (196, 30, 28), label)


def draw_lamp(scene: Scene, x: float, z: float, reach: float) -> None:
    """Draw a street lamp with an arm over the road."""
    heights = (7.2, 3.0, 1.3, 1.2, 0.0)
    scene.limb([(x, y, z) for y in heights], (0.1, 0.13, 0.15, 0.22, 0.22), (92, 98, 98), POLE)
    arm = [(x, 7.1, z), (x + reach, 7.6, z), (x + reach, 7.68, z), (x, 7.2, z)]
    scene.polygon(arm, ((104, 110, 110), (80, 86, 86)), POLE)
    scene.disc(x + reach, 7.62, z, (0.34, 0.1), (120, 124, 122), POLE)


def draw_sign(scene: Scene, x: float, z: float) -> None:
    """Draw a warning sign and a blue plate on a pole."""
    scene.limb([(x, 2.9, z), (x, 0, z)], (0.08, 0.08), (112, 114, 112), POLE)
    for size, tone in ((0.5, (186.0, 34.0, 36.0)), (0.31, (232.0, 232.0, 226.0))):
        triangle = [(x + size * np.sin(t), 2.65 + size * np.cos(t), z) for t in (0.0, 2.094, 4.189)]
        scene.polygon(triangle, (tone, tint(tone, 0.9)), SIGN)
    scene.limb([(x, 2.84, z), (x, 2.63, z)], (0.08, 0.05), DARK, SIGN)
    scene.disc(x, 2.56, z, (0.03, 0.03), DARK, SIGN)
    scene.box(x, 2.3, z, (0.6, 0.35), (38, 74, 144), SIGN)


def draw_signal(scene: Scene, x: float, z: float) -> None:
    """Draw a traffic light at green."""
    scene.limb([(x, 2.4, z), (x, 0, z)], (0.11, 0.11), (60, 62, 64), POLE)
    scene.box(x, 3.4, z, (0.48, 1.2), DARK, SIGN)
    for y, tone in ((3.15, (60, 22, 20)), (2.8, (70, 50, 20)), (2.45, (60, 236, 150))):
        scene.disc(x, y, z, (0.12, 0.12), tone, SIGN)


def finish(scene: Scene) -> NDArray[np.uint8]:
    """Return the image as from a camera: downscaled, slightly soft, vignetted, with grain."""
    small = cv2.resize(scene.image, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 0.5)
    small = small * 0.93 + cv2.GaussianBlur(small, (0, 0), 18) * 0.07
    rows, columns = np.mgrid[-1 : 1 : HEIGHT // 2 * 1j, -1 : 1 : WIDTH // 2 * 1j]
    vignette = 1.1 - 0.1 * (rows**2 + columns**2)
    grain = scene.rng.normal(size=small.shape[:2]) * 1.8
    return np.asarray((small * vignette[..., None] + grain[..., None]).clip(0, 255), np.uint8)


def draw(seed: int = 7, seconds: float = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the image, uint8 RGB, and its label map, after some seconds of traffic."""
    scene = Scene(seed)
    rng = scene.rng
    things: list[tuple[float, Callable[[], None]]] = []

    def add(draw: Callable[..., None], x: float, z: float, *details: object) -> None:
        things.append((z, partial(draw, scene, x, z, *details)))

    walls = (
        (134, 117, 99),
        (116, 92, 82),
        (138, 124, 106),
        (126, 108, 92),
        (108, 84, 76),
        (132, 113, 97),
    )
    for side, near in ((-1, 8.0), (1, 10.0)):
        while near < 130:
            far = near + float(rng.uniform(5.5, 8.5))
            height, wall = float(rng.choice([6.2, 6.8, 8.9])), walls[int(rng.integers(len(walls)))]
            things.append((near + 3, partial(draw_house, scene, side, near, far, height, wall)))
            near = far + float(rng.choice([0.0, 0.0, 0.6]))
    for x, z in ((-4.4, 24), (-4.3, 44), (-4.4, 75), (7.2, 20), (7.6, 36), (7.8, 60)):
        add(draw_tree, x, z, 8.5, (float(rng.uniform(102, 120)), 117, 59))
    for x, z in ((-1.0, 135), (6.0, 136), (2.5, 134)):
        add(draw_tree, x, z, 12.0, (106, 117, 70))
    add(draw_car, 0.1, 17 + 7 * seconds, (128, 28, 30), True)
    add(draw_car, 3.6, 11.5 - 7 * seconds, (44, 62, 104), False)
    add(draw_car, 5.4, 19, (52, 56, 60), True)
    add(draw_car, 5.4, 25, (180, 184, 188), True)
    add(draw_car, 5.4, 32, (40, 70, 60), True)
    add(draw_car, 3.6, 38 - 7 * seconds, (196, 198, 200), False)
    add(draw_person, -4.3, 11 + seconds, (58, 50, 62), (44, 52, 76), PEDESTRIAN)
    add(draw_person, -3.9, 15.5 - seconds, (120, 44, 44), (38, 38, 42), PEDESTRIAN)
    add(draw_person, 7.6, 15 + seconds, (44, 56, 60), (30, 32, 38), PEDESTRIAN)
    add(draw_person, -1.75, 13 + 3 * seconds, (158, 172, 46), (38, 42, 58), BICYCLIST)
    add(draw_lamp, -3.1, 16.5, 1.6)
    add(draw_lamp, 6.8, 26, -1.6)
    add(draw_sign, -3.3, 9.8)
    add(draw_signal, 6.9, 22)
    draw_sky(scene)
    draw_ground(scene)
    for _, paint in sorted(things, key=lambda thing: -thing[0]):
        paint()
    return finish(scene), scene.labels[::2, ::2].copy()


def main() -> None:
    """Write the image and, if requested, its labels."""
    parser = argparse.ArgumentParser(description="Draw the sample image.")
    parser.add_argument("image", type=Path, help="PNG file of the image")
    parser.add_argument("--labels", type=Path, help="PNG file for the class of every pixel")
    options = parser.parse_args()
    image, labels = draw()
    Image.fromarray(image).save(options.image, optimize=True)
    if options.labels is not None:
        Image.fromarray(labels).save(options.labels, optimize=True)


if __name__ == "__main__":
    main()
