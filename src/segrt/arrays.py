"""Arrays of any library as images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from segrt.errors import InputError
from segrt.reading import Pixels
from segrt.types import Color

_CHANNELS = (1, 3, 4)
BAND_DTYPES = (np.uint8, np.uint16, np.int16, np.float32)
"""The types of bands that networks get as they are."""


class SupportsArray(Protocol):
    """An array of a library that converts it to NumPy: NumPy, torch, TensorFlow, h5py, xarray."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        """The array in NumPy's form."""


class SupportsDLPack(Protocol):
    """An array of a library with the DLPack protocol."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        """A capsule with the array."""


def is_array(source: object) -> bool:
    """Whether an object is an array: of NumPy, torch, TensorFlow, h5py, zarr, xarray, ...

    Example:
        >>> is_array(np.zeros((480, 640, 3), np.uint8)), is_array(["road.png"])
        (True, False)
    """
    names = ("__array__", "__array_interface__", "__dlpack__", "shape")
    return not isinstance(source, type) and any(hasattr(source, name) for name in names)


def as_numpy(source: Any) -> npt.NDArray[Any]:
    """Convert an array of any library to NumPy, without a copy where possible.

    Raises:
        InputError: its library can't convert it, with the reason.
    """
    if isinstance(source, np.ndarray):
        return np.asarray(source)
    kind = f"{type(source).__module__}.{type(source).__name__}"
    try:
        if hasattr(source, "__array__") or hasattr(source, "__array_interface__"):
            return np.asarray(source)
        if hasattr(source, "__dlpack__"):
            return np.from_dlpack(source)
    except Exception as error:  # a tensor on a GPU, or with gradients; a closed file
        raise InputError(f"this {kind} can't be converted to a NumPy array: {error}") from None
    raise InputError(f"this {kind} can't be converted to a NumPy array: pass one")


def from_array(array: npt.NDArray[Any], color: Color = "bgr") -> Pixels:
    """Convert an array to 8-bit BGR.

    Example:
        >>> from_array(np.zeros((480, 640), np.uint16)).shape
        (480, 640, 3)

    Args:
        array: (H, W) or (H, W, 1) grey, (H, W, 3) with colours, or (H, W, 4) with alpha, which is
            dropped, as OpenCV does. uint8 is used as is, and not copied if possible (memory-mapped
            arrays included). uint16: the upper 8 bits. Float: from 0 to 1, multiplied by 255 and
            rounded. bool: 0 and 255.
        color: the order of its channels.

    Returns:
        np.ndarray: uint8 (H, W, 3), BGR.

    Raises:
        InputError: another dtype or shape, no pixels, or floats outside [0, 1].
    """
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in _CHANNELS or 0 in array.shape:
        raise InputError(
            f"an array of shape {array.shape} is not an image: {_advice(array.shape)}it must be "
            "(H, W) or (H, W, 1 | 3 | 4), with colours in BGR order, or color='rgb'"
        )
    array = to_uint8(array[:, :, :3] if array.ndim == 3 else array)
    if channels != 1 and color == "rgb":
        array = array[:, :, ::-1]
    if channels == 1:
        array = np.broadcast_to(array.reshape(*array.shape[:2], 1), (*array.shape[:2], 3))
    return np.ascontiguousarray(array)


def from_bands(array: npt.NDArray[Any], bands: Sequence[str]) -> npt.NDArray[Any]:
    """Check an array of the bands that a network takes, and return it as it is.

    Example:
        >>> from_bands(np.zeros((480, 640, 4), np.uint16), ["red", "green", "blue", "nir"]).dtype
        dtype('uint16')

    Args:
        array: (H, W, C), or (H, W) for a single band; uint8, uint16, int16 or float32.
        bands: the names of the C bands, in order.

    Returns:
        np.ndarray: (H, W, C), with the bytes of each value in the order of this machine.

    Raises:
        InputError: another dtype or shape, no pixels, or floats that are not finite.
    """
    count = len(bands)
    if array.ndim == 2 and count == 1:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] != count or 0 in array.shape:
        first = "its bands come first: pass np.moveaxis(np.asarray(array), 0, 2); "
        raise InputError(
            f"an array of shape {array.shape} is not an image for this model: "
            f"{first if array.ndim == 3 and array.shape[0] == count else ''}it must be "
            f"(H, W, {count}) with the bands {', '.join(bands)}"
        )
    dtype = array.dtype.newbyteorder("=")
    if dtype not in BAND_DTYPES:
        raise InputError(
            f"an array of {array.dtype} is not an image for this model: its bands "
            f"{', '.join(bands)} must be uint8, uint16, int16 or float32"
        )
    if dtype == np.float32 and not (np.isfinite(array.min()) and np.isfinite(array.max())):
        raise InputError(
            "an array of bands must not hold NaN or infinity: replace them by a number, such as "
            "the mean of the band"
        )
    return np.ascontiguousarray(array, dtype)


def _advice(shape: tuple[int, ...]) -> str:
    if len(shape) == 3 and shape[0] in _CHANNELS:
        return (
            "its channels come first: pass np.moveaxis(np.asarray(array), 0, 2), with color='rgb' "
            "if they are RGB; "
        )
    if len(shape) == 4:
        return "it is a batch: pass its images one by one, as list(array); "
    return ""


def to_uint8(array: npt.NDArray[Any]) -> Pixels:
    """Scale the values of an array of any shape to 8 bits, as in `from_array`.

    Raises:
        InputError: the dtype is not supported, or floats are outside [0, 1].
    """
    if array.dtype == np.uint8:
        return np.asarray(array, np.uint8)
    if array.dtype == np.uint16:
        return np.asarray(array >> 8, np.uint8)
    if array.dtype == np.bool_:
        return np.where(array, np.uint8(255), np.uint8(0))
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # true for NaN as well
            raise InputError(
                f"an array of {array.dtype} must be from 0 to 1, but it is from {low:g} to "
                f"{high:g}: scale it, or convert it to uint8"
            )
        return np.asarray(np.rint(array * array.dtype.type(255)), np.uint8)
    raise InputError(
        f"an array of {array.dtype} is not an image: it must be uint8, uint16, bool, or float "
        "from 0 to 1"
    )
