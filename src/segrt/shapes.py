"""Label maps as polygons and as COCO run-length encoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Ring = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Polygon:
    """The outline of one connected region of one class, along the edges of its pixels.

    Coordinates refer to pixel corners: (0, 0) is the upper left corner of the image, (W, H) the
    lower right one. Pixels that touch at a corner are connected.

    Example:
        >>> for polygon in result.polygons():
        ...     print(polygon.class_name, polygon.area, polygon.exterior.tolist())

    Attributes:
        class_id: the class.
        class_name: its name.
        exterior: int32 (N, 2), x and y of the corners; the first is not repeated at the end.
        holes: the outlines of the holes, in the same form.
    """

    class_id: int
    class_name: str
    exterior: Ring = field(repr=False)
    holes: tuple[Ring, ...] = field(repr=False)

    @property
    def area(self) -> float:
        """Area in pixels, without the holes."""
        return abs(_signed_area(self.exterior)) - sum(
            abs(_signed_area(hole)) for hole in self.holes
        )


def bounds(mask: Mask) -> tuple[int, int, int, int]:
    """Left, top, right and bottom edge of a mask that is not empty, in pixels.

    Example:
        >>> bounds(np.array([[False, True], [False, True]]))
        (1, 0, 2, 2)
    """
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def outlines(mask: Mask) -> list[tuple[Ring, tuple[Ring, ...]]]:
    """Trace the outlines of the regions of a mask exactly.

    Example:
        >>> [(exterior, holes)] = outlines(np.ones((2, 3), bool))
        >>> exterior.tolist()
        [[3, 0], [3, 2], [0, 2], [0, 0]]

    Args:
        mask: bool (H, W).

    Returns:
        list: exterior and holes of each connected region, as in `Polygon`. By the shoelace formula,
            the area of exteriors is positive and that of holes negative.
    """
    import cv2

    # OpenCV's contours connect the centres of the border pixels. If each pixel is doubled, these
    # centres lie a quarter of a pixel inside the corners of the true outline, so rounding away
    # from the centre of the pixel yields the corners.
    doubled = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [_corners((contour.reshape(-1, 2) + 1) // 2) for contour in contours]
    if not rings:
        return []
    parents = hierarchy.reshape(-1, 4)[:, 3]
    holes: dict[int, list[Ring]] = {index: [] for index in np.flatnonzero(parents < 0).tolist()}
    for index in np.flatnonzero(parents >= 0).tolist():
        holes[int(parents[index])].append(_turned(rings[index], -1))
    return [(_turned(rings[index], 1), tuple(inner)) for index, inner in holes.items()]


def _corners(points: npt.NDArray[Any]) -> Ring:
    """Remove points that repeat their predecessor or lie on the line through their neighbours."""
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    straight = before[:, 0] * after[:, 1] == before[:, 1] * after[:, 0]
    return np.asarray(points[~straight], np.int32)


def _signed_area(ring: Ring) -> float:
    x, y = ring.astype(np.int64).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def _turned(ring: Ring, sign: int) -> Ring:
    return ring if _signed_area(ring) * sign > 0 else ring[::-1]


def rle_counts(labels: npt.NDArray[np.int32]) -> dict[int, list[int]]:
    """COCO run lengths of each class: column by column, alternating, starting with background.

    Example:
        >>> rle_counts(np.array([[0, 1], [0, 1]], np.int32))
        {0: [0, 2, 2], 1: [2, 2]}

    Args:
        labels: int (H, W).

    Returns:
        dict: class id to run lengths, for each class that occurs; only the first length may be 0.
    """
    flat = labels.ravel(order="F")
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    ends, values = np.append(starts[1:], flat.size), flat[starts]
    counts = {}
    for value in np.unique(values).tolist():
        own = values == value
        edges = np.stack([starts[own], ends[own]], axis=1).ravel()
        runs = np.diff(edges, prepend=0, append=flat.size)
        counts[value] = runs[: len(runs) - (runs[-1] == 0)].tolist()
    return counts


def rle_string(counts: list[int]) -> str:
    """Compress run lengths to a string like pycocotools does (`rleToString` in its maskApi.c).

    From the fourth count on, the difference from the count two positions earlier is encoded. A
    number is split into digits of five bits, lowest first, and each digit becomes a character
    counted from "0"; 32 is added to all but the last digit.

    Example:
        >>> rle_string([0, 2, 2])
        '022'
    """
    rest = np.array(counts, np.int64)
    rest[3:] -= np.array(counts, np.int64)[1:-2]
    digits, written = [], []
    alive = np.ones(len(rest), np.bool_)
    while alive.any():
        digit, rest = rest & 31, rest >> 5
        more = np.where(digit & 16, rest != -1, rest != 0)
        digits.append(digit + 48 + 32 * more)
        written.append(alive)
        alive = alive & more
    return (
        np.stack(digits, axis=1)[np.stack(written, axis=1)]
        .astype(np.uint8)
        .tobytes()
        .decode("ascii")
    )
