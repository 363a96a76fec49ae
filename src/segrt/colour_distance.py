"""How different colours look, with full colour vision and with a colour-vision deficiency."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Vision = Literal["normal", "protan", "deutan", "tritan"]
Floats = npt.NDArray[np.float64]

VISIONS: tuple[Vision, ...] = get_args(Vision)

CLOSE: dict[Vision, float] = {"normal": 20.0, "protan": 8.0, "deutan": 8.0, "tritan": 8.0}
"""CIEDE2000 differences below which two classes are hard to tell apart in a photo."""

# Severity 1.0 of Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of
# Color Vision Deficiency", IEEE TVCG 15 (6), 2009. For linear RGB.
_MACHADO: dict[Vision, list[list[float]]] = {
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}

# IEC 61966-2-1: sRGB's primaries and its white, D65.
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = _TO_XYZ.sum(axis=1)


def to_lab(rgb: npt.ArrayLike, vision: Vision = "normal") -> Floats:
    """Convert sRGB colours to CIELAB, as someone with this colour vision sees them.

    Example:
        >>> to_lab([255, 255, 255]).round(1).tolist()
        [100.0, 0.0, 0.0]

    Args:
        rgb: (..., 3), from 0 to 255.
        vision: full colour vision, or without the long ("protan"), medium ("deutan") or short
            ("tritan") cones, as simulated by Machado et al.

    Returns:
        np.ndarray: float64 (..., 3), L*, a*, b*.
    """
    encoded = np.asarray(rgb, np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    if vision != "normal":
        linear = np.clip(linear @ np.array(_MACHADO[vision]).T, 0, 1)
    relative = linear @ _TO_XYZ.T / _WHITE
    f = np.where(
        relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29
    )
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def ciede2000(one: Floats, other: Floats) -> Floats:
    """The CIEDE2000 difference of CIELAB colours.

    Sharma, Wu and Dalal, "The CIEDE2000 Color-Difference Formula: Implementation Notes,
    Supplementary Test Data, and Mathematical Observations", 2005; all parametric factors are 1.

    Example:
        >>> ciede2000(to_lab([128, 0, 0]), to_lab([0, 128, 0])).round()
        np.float64(62.0)

    Args:
        one: (..., 3).
        other: (..., 3), of a shape that can be broadcast with `one`.
    """
    lightness_1, a_1, b_1 = np.moveaxis(one, -1, 0)
    lightness_2, a_2, b_2 = np.moveaxis(other, -1, 0)
    chroma_7 = ((np.hypot(a_1, b_1) + np.hypot(a_2, b_2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(chroma_7 / (chroma_7 + 25.0**7))
    chroma_1, chroma_2 = np.hypot(stretch * a_1, b_1), np.hypot(stretch * a_2, b_2)
    hue_1 = np.degrees(np.arctan2(b_1, stretch * a_1)) % 360
    hue_2 = np.degrees(np.arctan2(b_2, stretch * a_2)) % 360

    grey = chroma_1 * chroma_2 == 0
    turn = np.where(grey, 0, (hue_2 - hue_1 + 180) % 360 - 180)
    d_lightness, d_chroma = lightness_2 - lightness_1, chroma_2 - chroma_1
    d_hue = 2 * np.sqrt(chroma_1 * chroma_2) * np.sin(np.radians(turn / 2))

    lightness, chroma = (lightness_1 + lightness_2) / 2, (chroma_1 + chroma_2) / 2
    hue = (hue_1 + hue_2) / 2 + np.where(np.abs(hue_1 - hue_2) > 180, 180, 0)
    hue = np.where(grey, hue_1 + hue_2, hue)
    weight = (
        1
        - 0.17 * np.cos(np.radians(hue - 30))
        + 0.24 * np.cos(np.radians(2 * hue))
        + 0.32 * np.cos(np.radians(3 * hue + 6))
        - 0.20 * np.cos(np.radians(4 * hue - 63))
    )
    middle = (lightness - 50) ** 2
    term_l = d_lightness / (1 + 0.015 * middle / np.sqrt(20 + middle))
    term_c = d_chroma / (1 + 0.045 * chroma)
    term_h = d_hue / (1 + 0.015 * chroma * weight)
    blue = 60 * np.exp(-((((hue % 360) - 275) / 25) ** 2))
    rotation = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7)) * np.sin(np.radians(blue))
    squares = term_l**2 + term_c**2 + term_h**2 + rotation * term_c * term_h
    return np.asarray(np.sqrt(np.maximum(squares, 0)), np.float64)


def differences(rgb: npt.ArrayLike, vision: Vision = "normal") -> Floats:
    """The CIEDE2000 difference of each two of K colours: float64 (K, K).

    Example:
        >>> float(differences([[0, 0, 0], [255, 255, 255]]).max().round())
        100.0

    Args:
        rgb: (K, 3), from 0 to 255.
        vision: as in `to_lab`.
    """
    lab = to_lab(rgb, vision)
    return ciede2000(lab[:, None], lab[None])


def smallest_difference(rgb: npt.ArrayLike, vision: Vision = "normal") -> float:
    """The smallest CIEDE2000 difference of any two colours; infinity for fewer than two.

    Example:
        >>> smallest_difference([[128, 64, 128], [140, 140, 140], [140, 140, 140]])
        0.0

    Args:
        rgb: (K, 3), from 0 to 255.
        vision: as in `to_lab`.
    """
    found = differences(rgb, vision)
    return float(found[np.triu_indices(len(found), 1)].min(initial=np.inf))


def are_close(rgb: npt.ArrayLike) -> bool:
    """Whether any two of the colours are hard to tell apart, with any colour vision.

    Example:
        >>> are_close([[128, 0, 0], [0, 128, 0]])
        False

    Args:
        rgb: (K, 3), from 0 to 255.
    """
    return any(smallest_difference(rgb, vision) < CLOSE[vision] for vision in VISIONS)
