"""Reads the pages of TIFF files: any layout, with samples of 1 to 16 bits or floats.

tifffile decodes what Pillow can't, or gets wrong: separate planes, more than 8 bits, floats,
further bands. Pillow decodes what tifffile can't: subsampled YCbCr, separate planes as JPEGs,
and fax pages.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segrt import pillow_file
from segrt.arrays import from_array, to_uint8
from segrt.errors import InputError, TooLargeError
from segrt.formats import GEOTAGS, GeoTags
from segrt.reading import MAX_PAGES, Page, Pixels, Reading, attempt, check_page

# tifffile logs each oddity of a file; what matters becomes an error of its page.
if (_tifffile_log := logging.getLogger("tifffile")).level == logging.NOTSET:
    _tifffile_log.setLevel(logging.CRITICAL)

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _SEPARATED, _YCBCR = 0, 1, 2, 3, 5, 6
_UNSIGNED, _SIGNED, _FLOAT, _VOID = 1, 2, 3, 4
_KINDS = {_UNSIGNED: "unsigned", _SIGNED: "signed", _FLOAT: "float", _VOID: "untyped"}
_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 1, 2
_SEPARATE = 2  # planes, of PlanarConfiguration
_FAX, _OLD_JPEG, _JPEG = (2, 3, 4), 6, 7
# These expand by no more than the size of a strip or tile, which its page states.
_PLAIN = (1, 5, 8, 32773, 32946, 34925, 50000)  # none, LZW, deflate, PackBits, LZMA, Zstandard
# Whole images, whose own headers state their size: JPEG, JPEG 2000, WebP.
_PICTURES = (_JPEG, 33003, 33005, 34712, 50001)
_NUMBERS = (
    *("imagewidth", "imagelength", "imagedepth", "tilewidth", "tilelength", "rowsperstrip"),
    *("samplesperpixel", "photometric", "compression", "planarconfig", "predictor"),
)
_MOST_VALUES = 4096  # of a tag of the georeference: 680 ground control points
_BYTES_PER_PIXEL = 64  # of all bands together; the largest allowed image would take 11 GB


def pages(content: str | bytes, reading: Reading) -> Iterator[Page]:
    """Read the pages of a TIFF; overviews and masks (NewSubfileType 1 and 4) are no pages.

    A page that can't be read doesn't affect the others.

    Args:
        content: a file, or its bytes.
        reading: the limits.

    Raises:
        InputError: the file is no TIFF, is cut off between its pages, or holds more than
            `MAX_PAGES` pages or no page at all.
    """
    for index, (read, geotags) in enumerate(_readers(content, reading)):
        yield Page(attempt(read), index, geotags=geotags)


def page(content: str | bytes, index: int, reading: Reading) -> tuple[Pixels, int]:
    """Read one page; see `pages`. What follows the last page and can't be read counts as one.

    Returns:
        tuple: the page, uint8 (H, W, 3) BGR, and the number of pages.

    Raises:
        ConfigError: there is no such page.
    """
    found: Pixels | None = None
    count = 0
    try:
        for read, _ in _readers(content, reading):
            if count == index:
                found = read()
            count += 1
    except InputError:
        if found is None:
            raise
        count += 1
    check_page(index, count)
    assert found is not None
    return found, count


def _readers(
    content: str | bytes, reading: Reading
) -> Iterator[tuple[Callable[[], Pixels], GeoTags | None]]:
    """A function for each page, which reads it, and where it is; only the last may be called.

    Raises:
        InputError: the file is no TIFF, is cut off between its pages, or holds more than
            `MAX_PAGES` pages or no page at all.
    """
    import tifffile

    file = io.BytesIO(content) if isinstance(content, bytes) else content
    with tifffile.TiffFile(file) as tif:
        index, further = 0, 0
        for number, offset in enumerate(_directories(tif)):
            tif.filehandle.seek(offset)
            try:
                page = tifffile.TiffPage(tif, number)
            except Exception:
                yield _refuse, None
                index += 1
                continue
            if page.subfiletype & (_REDUCED | _MASK):
                further += 1
                continue
            if index == MAX_PAGES:
                raise InputError(
                    f"this TIFF has more than {MAX_PAGES} frames: the others are skipped"
                )
            geotags = _geotags(page)
            read = partial(_page, page, number, content, reading, geotags is not None)
            yield read, geotags
            index += 1
        if not index:
            raise InputError(
                f"this TIFF holds no image, only {further} overviews or thumbnails: if it is the "
                "raw file of a camera, develop it first"
            )
        _check_stack(tif, index + further)


def _refuse() -> Pixels:
    raise InputError("its tags are damaged")


def _directories(tif: Any) -> Iterator[int]:
    """The offset of each directory.

    Raises:
        InputError: the file ends before the next one.
    """
    file, form, seen = tif.filehandle, tif.tiff, set[int]()
    file.seek(8 if form.is_bigtiff else 4)
    while True:
        try:
            (offset,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
            if offset == 0 or offset in seen:
                return
            seen.add(offset)
            file.seek(offset)
            (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
        except (struct.error, OSError, ValueError):
            what = f"after page {len(seen) - 2}" if len(seen) > 1 else "before its first page"
            raise InputError(f"this TIFF breaks off {what}: is it cut off?") from None
        yield offset
        file.seek(offset + form.tagnosize + tags * form.tagsize)


def _check_stack(tif: Any, directories: int) -> None:
    """Refuse the rest of a stack whose images share one directory, as ImageJ writes large ones."""
    if directories != 1:
        return
    images = 1
    if tif.is_imagej:
        images = int((tif.imagej_metadata or {}).get("images", 1))
    elif tif.is_shaped:  # written by tifffile
        images = tif.series[0].size // max(1, tif.pages[0].size)
    if images > 1:
        raise InputError(
            f"this TIFF stores {images} images in one directory, of which the first is read: save "
            "it with a directory for each"
        )


def _geotags(page: Any) -> GeoTags | None:
    """Where a page is, if it says so, and is as upright as that assumes."""
    found: dict[int, tuple[float, ...] | str] = {}
    for number, kind in GEOTAGS.items():
        tag = page.tags.get(number)
        if tag is None:
            continue
        if tag.dtype != kind or tag.count > _MOST_VALUES:
            return None
        value = tag.value
        if isinstance(value, bytes):
            value = value.decode("ascii", "replace")
        if not isinstance(value, str):
            value = value if isinstance(value, tuple) else (value,)
            if not np.isfinite(value).all():
                return None
        found[number] = value
    return found if found and page.tags.valueof(274) in (None, 1) else None


def _page(
    page: Any, number: int, content: str | bytes, reading: Reading, is_located: bool
) -> Pixels:
    if not all(isinstance(getattr(page, name), int) for name in _NUMBERS):
        raise InputError("its tags are damaged")
    is_for_pillow = (
        page.photometric == _YCBCR
        or page.compression in (*_FAX, _OLD_JPEG)
        or (page.compression == _JPEG and page.planarconfig == _SEPARATE)
    )
    try:
        reading.check(page.imagewidth, page.imagelength)
        if not is_for_pillow:
            _check(page, reading)
    except InputError as error:
        if is_located:
            more = f"{error}; or use segrt geo, for georeferenced rasters of any size and type"
            raise type(error)(more) from None
        raise
    if is_for_pillow:
        return pillow_file.tiff_page(content, number, reading)
    _check_segments(page)
    samples = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # planes, height, width, samples
    samples = samples[..., 0].transpose(1, 2, 0) if len(samples) > 1 else samples[0]
    return np.ascontiguousarray(_upright(_colours(page, samples), page.tags.valueof(274)))


def _check(page: Any, reading: Reading) -> None:
    """Refuse what can't be decoded rightly, before it is decoded."""
    what = _layout(page)
    if page.imagedepth != 1:
        raise InputError(f"a TIFF volume of {page.imagedepth} slices is not an image ({what})")
    if not isinstance(page.bitspersample, int) or page.dtype is None:
        raise InputError(f"its samples can't be read ({what})")
    if page.sampleformat not in (_UNSIGNED, _FLOAT, _VOID) or (
        page.sampleformat != _FLOAT and page.bitspersample > 16
    ):
        raise InputError(
            "its samples must be unsigned integers of up to 16 bits, or floats from 0 to 1 "
            f"({what})"
        )
    if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _SEPARATED):
        raise InputError(f"its colours can't be read ({what}): save it as RGB")
    _check_bands(page, what)
    if page.compression not in (*_PLAIN, *_PICTURES):
        raise InputError(f"its compression can't be read ({what}): save it with deflate or LZW")
    size = page.imagewidth * page.imagelength * page.samplesperpixel * page.dtype.itemsize
    if size > _BYTES_PER_PIXEL * reading.limit:
        raise TooLargeError(f"its bands take {size:,} bytes ({what})")


def _check_bands(page: Any, what: str) -> None:
    """Refuse bands of which the file doesn't say which are red, green and blue."""
    needed = {_RGB: 3, _SEPARATED: 4}.get(page.photometric, 1)
    extra = page.samplesperpixel - needed
    if extra < 0:
        raise InputError(f"it has too few bands for its colours ({what})")
    alphas = (_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA)
    kinds = page.extrasamples[:extra]
    if needed == 1 and (len(kinds) < extra or any(kind not in alphas for kind in kinds)):
        raise InputError(
            f"the file doesn't say which of its {page.samplesperpixel} bands are red, green and "
            f"blue ({what}): save three of them with photometric RGB, or pass them as an array"
        )


def _check_segments(page: Any) -> None:
    """Refuse missing strips and tiles, and embedded images larger than their strip or tile.

    A strip of zero bytes is empty by intention: GDAL leaves out tiles without data.
    """
    counts, offsets = page.databytecounts, page.dataoffsets
    expected = int(np.prod(page.chunked))
    size = page.parent.filehandle.size
    if len(offsets) < expected or len(counts) < expected:
        raise InputError(f"{expected - min(len(offsets), len(counts))} of its strips are missing")
    wanted = page.size * page.dtype.itemsize if page.is_contiguous else 0
    if wanted and (offsets[0] + wanted > size or sum(counts) < wanted):
        raise InputError("its pixels are cut off")
    for offset, count in zip(offsets, counts, strict=False):
        if count and offset + count > size and not wanted:
            raise InputError("its pixels are cut off")
        if count and page.compression in _PICTURES:
            page.parent.filehandle.seek(offset)
            _check_picture(page.parent.filehandle.read(count), page)


def _check_picture(data: bytes, page: Any) -> None:
    with Image.open(io.BytesIO(data), formats=("JPEG", "JPEG2000", "WEBP")) as picture:
        width, height = picture.size
    if width > max(page.chunks[-2], page.imagewidth) or height > max(page.chunks[-3:-1]):
        raise TooLargeError(f"a strip or tile of it states {width} x {height} pixels")


def _colours(page: Any, samples: npt.NDArray[Any]) -> Pixels:
    """Convert samples (H, W, bands) to BGR, by the photometric interpretation of the page."""
    if page.photometric == _PALETTE:
        colours = np.asarray(page.colormap)  # 16 bits, but some programs write 8
        colours = colours >> 8 if colours.max() > 255 else colours
        return from_array(colours.astype(np.uint8).T[samples[..., 0]][..., ::-1])
    bits = page.bitspersample
    bands = 3 if page.photometric == _RGB else 4 if page.photometric == _SEPARATED else 1
    if page.extrasamples[:1] == (_ASSOCIATED_ALPHA,) and samples.shape[2] > bands:
        samples = _unmultiplied(samples[..., :bands], samples[..., bands : bands + 1], page)
    samples = samples[..., :bands]
    if page.sampleformat == _FLOAT:
        pixels = to_uint8(samples)
    elif bits == 1:
        pixels = to_uint8(samples.astype(np.bool_))
    elif bits < 8:
        pixels = np.rint(samples * (255 / (2**bits - 1))).astype(np.uint8)
    else:
        pixels = (samples >> (bits - 8) if bits > 8 else samples).astype(np.uint8, copy=False)
    if page.photometric == _WHITE_IS_ZERO:
        pixels = 255 - pixels
    if page.photometric == _SEPARATED:
        cmyk = Image.fromarray(np.ascontiguousarray(pixels), "CMYK")
        return from_array(np.asarray(cmyk.convert("RGB"))[..., ::-1])
    return from_array(pixels[..., ::-1])


def _unmultiplied(
    samples: npt.NDArray[Any], alpha: npt.NDArray[Any], page: Any
) -> npt.NDArray[Any]:
    """Colours that were multiplied by their alpha, as before that."""
    most = 1.0 if page.sampleformat == _FLOAT else 2.0**page.bitspersample - 1
    scale = np.divide(most, alpha, out=np.ones(alpha.shape), where=alpha > 0)
    return np.asarray(np.minimum(samples * scale, most), samples.dtype)


def _upright(pixels: Pixels, orientation: object) -> Pixels:
    """Apply the orientation tag."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _layout(page: Any) -> str:
    """Bands, type and layout in words."""
    bands, kind = page.samplesperpixel, _KINDS.get(page.sampleformat, "complex")
    colours = getattr(page.photometric, "name", str(page.photometric)).lower()
    compression = getattr(page.compression, "name", str(page.compression)).lower()
    planes = "separate" if page.planarconfig == _SEPARATE else "contiguous"
    return (
        f"{bands} band{'s' * (bands != 1)} of {page.bitspersample} bits, {kind}, photometric "
        f"{colours}, {planes}, compression {compression}"
    )
