"""About 400 small files of the formats that people bring, each with the pixels it must give.

The expected pixels are computed from the array that is written, by the rules of docs/inputs.md, not
by reading the file. Formats that the writing libraries can't write are put together byte by byte.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

Array = npt.NDArray[Any]

HEIGHT, WIDTH = 36, 44  # no multiples of the tiles (16 x 16), and not square


@dataclass(frozen=True)
class File:
    """A file, and what reading it must give.

    Attributes:
        name: its name, unique in the table.
        data: its bytes.
        images: uint8 (H, W, 3), RGB, for each image in it.
        refused: a part of the error that must follow the images; None if there is none.
        tolerance: largest difference of a sample; 0 for lossless formats.
    """

    name: str
    data: bytes
    images: tuple[Array, ...] = ()
    refused: str | None = None
    tolerance: int = 0


def noise(*shape: int, dtype: Any = np.uint8) -> Array:
    """Random integers over the whole range of a type."""
    random = np.random.default_rng(sum(shape))
    return random.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def smooth() -> Array:
    """An RGB picture that lossy formats keep well."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    picture = np.stack([40 + 4 * x, 30 + 5 * y, 200 - 2 * (x + y)], axis=2)
    return np.asarray(picture, np.uint8)


def rgb(grey: Array) -> Array:
    """A grey image with three equal channels."""
    return np.repeat(np.asarray(grey, np.uint8)[..., None], 3, axis=2)


def pillow(image: Image.Image, form: str, **options: Any) -> bytes:
    """A file written by Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def tiff(*pages: tuple[Array, dict[str, Any]], **options: Any) -> bytes:
    """A TIFF written by tifffile."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, **options) as writer:
        for array, page in pages:
            writer.write(array, **({"photometric": "rgb", "metadata": None} | page))
    return buffer.getvalue()


def tiff_by_hand(
    samples: Array, bits: int, tags: dict[int, tuple[int, ...]], order: str = "<"
) -> bytes:
    """A TIFF of one strip with packed samples of any number of bits, rows padded to bytes.

    Args:
        samples: integers (H, W, S).
        bits: per sample.
        tags: further tags of type SHORT.
        order: "<" or ">".
    """
    height, width, count = samples.shape
    places = np.arange(bits - 1, -1, -1)
    flat = (samples.reshape(height, -1, 1) >> places & 1).reshape(height, -1).astype(np.uint8)
    pixels = np.packbits(flat, axis=1).tobytes()
    shorts = {256: (width,), 257: (height,), 258: (bits,) * count, 259: (1,), 277: (count,)}
    shorts |= {278: (height,), 279: (len(pixels),), 273: (8,)} | tags
    start = 8 + len(pixels) + len(pixels) % 2
    extra_at, extra, entries = start + 2 + 12 * len(shorts) + 4, b"", b""
    for tag, values in sorted(shorts.items()):
        kind, form = (4, "I") if tag in (273, 279) else (3, "H")
        value = struct.pack(f"{order}{len(values)}{form}", *values)
        if len(value) > 4:
            extra, value = extra + value, struct.pack(f"{order}I", extra_at + len(extra))
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + value.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    directory = struct.pack(f"{order}H", len(shorts)) + entries + bytes(4) + extra
    return head + pixels.ljust(start - 8, b"\0") + directory


def layouts_of_tiffs() -> Iterator[File]:
    """Bits x layout x compression x predictor x tiles or strips x byte order."""
    for bits, layout, packed, predictor, tiles, order in itertools.product(
        (8, 16, 32),
        ("contig", "separate"),
        ("none", "lzw", "deflate", "packbits", "zstd", "lzma"),
        (False, True),
        (False, True),
        "<>",
    ):
        if predictor and packed in ("none", "packbits"):
            continue
        if bits == 32:
            array = noise(HEIGHT, WIDTH, 3).astype(np.float32) / 255
            expected = np.rint(array.astype(np.float64) * 255)
        else:
            whole = noise(HEIGHT, WIDTH, 3, dtype=np.uint8 if bits == 8 else np.uint16)
            array, expected = whole, whole >> (bits - 8)
        options: dict[str, Any] = {"planarconfig": layout}
        options |= {"compression": packed} if packed != "none" else {}
        options |= {"predictor": True} if predictor else {}
        options |= {"tile": (16, 16)} if tiles else {"rowsperstrip": 10}
        stored = array if layout == "contig" else array.transpose(2, 0, 1)
        kind = "float" if bits == 32 else "uint"
        name = f"{kind}{bits}-{layout}-{packed}{'-predictor' * predictor}"
        name += f"-{'tiles' if tiles else 'strips'}-{'little' if order == '<' else 'big'}.tif"
        yield File(name, tiff((stored, options), byteorder=order), (expected.astype(np.uint8),))


def kinds_of_tiffs() -> Iterator[File]:
    """Photometric interpretations, alpha, orientation, and odd numbers of bits."""
    eight, grey = noise(HEIGHT, WIDTH, 3), noise(HEIGHT, WIDTH)
    sixteen = noise(HEIGHT, WIDTH, 3, dtype=np.uint16)
    black, white = {"photometric": "minisblack"}, {"photometric": "miniswhite"}
    yield File("grey8.tif", tiff((grey, black)), (rgb(grey),))
    yield File("white8.tif", tiff((grey, white)), (rgb(255 - grey),))
    yield File("grey16.tif", tiff((sixteen[..., 0], black)), (rgb(sixteen[..., 0] >> 8),))
    yield File("white16.tif", tiff((sixteen[..., 0], white)), (rgb(255 - (sixteen[..., 0] >> 8)),))
    for kind in (np.float16, np.float32, np.float64):
        array = (eight / 255).astype(kind)
        expected = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
        yield File(f"{kind.__name__}.tif", tiff((array, {})), (expected,))
    options = {"predictor": 3, "compression": "deflate"}
    data = tiff(((eight / 255).astype(np.float32), options))
    yield File("float32-predictor3.tif", data, (eight,))
    yield File("bilevel.tif", tiff((grey > 90, black)), (rgb(np.where(grey > 90, 255, 0)),))
    yield File("big.tif", tiff((eight, {}), bigtiff=True), (eight,))
    yield File("big-big.tif", tiff((eight, {}), bigtiff=True, byteorder=">"), (eight,))
    palette = noise(3, 256, dtype=np.uint16)
    indexed = {"photometric": "palette", "colormap": palette}
    yield File("palette.tif", tiff((grey, indexed)), ((palette >> 8).T[grey].astype(np.uint8),))
    small = {"photometric": "palette", "colormap": palette >> 8}  # 8 bits, as some programs write
    yield File("palette8.tif", tiff((grey, small)), ((palette >> 8).T[grey].astype(np.uint8),))
    yield from _alphas(eight, sixteen)
    cmyk = noise(HEIGHT, WIDTH, 4)
    mixed = (255 - cmyk[..., :3].astype(int)) * (255 - cmyk[..., 3:].astype(int)) / 255
    inks = {"photometric": "separated"}
    yield File("cmyk.tif", tiff((cmyk, inks)), (np.rint(mixed).astype(np.uint8),), tolerance=1)
    wide = cmyk.astype(np.uint16) * 257
    yield File("cmyk16.tif", tiff((wide, inks)), (np.rint(mixed).astype(np.uint8),), tolerance=1)
    planes = {"photometric": "separated", "planarconfig": "separate"}
    yield File(
        "cmyk-separate.tif",
        tiff((cmyk.transpose(2, 0, 1), planes)),
        (np.rint(mixed).astype(np.uint8),),
        tolerance=1,
    )
    for bits, order in itertools.product((1, 2, 4, 8, 10, 12, 14), "<>"):
        samples = noise(HEIGHT, WIDTH, 1, dtype=np.uint16) >> (16 - bits)
        grey8 = samples * 255 // (2**bits - 1) if bits <= 8 else samples >> (bits - 8)
        for photometric in (0, 1):
            pixels = 255 - grey8 if photometric == 0 else grey8
            data = tiff_by_hand(samples, bits, {262: (photometric,)}, order)
            word = ("white", "black")[photometric]
            side = "little" if order == "<" else "big"
            yield File(f"packed{bits}-{word}-{side}.tif", data, (rgb(pixels[..., 0]),))
    for bits in (2, 4, 10, 12, 14):
        samples = noise(HEIGHT, WIDTH, 3, dtype=np.uint16) >> (16 - bits)
        pixels = samples * 255 // (2**bits - 1) if bits <= 8 else samples >> (bits - 8)
        data = tiff_by_hand(samples, bits, {262: (2,)})
        yield File(f"packed{bits}-rgb.tif", data, (pixels.astype(np.uint8),))


def _alphas(eight: Array, sixteen: Array) -> Iterator[File]:
    alpha = np.maximum(noise(HEIGHT, WIDTH, 1), 128)
    free = {"extrasamples": ["unassalpha"]}
    yield File("rgba8.tif", tiff((np.dstack([eight, alpha]), free)), (eight,))
    with_alpha = np.dstack([sixteen, alpha.astype(np.uint16) * 257])
    yield File("rgba16.tif", tiff((with_alpha, free)), (sixteen >> 8,))
    moved = {"extrasamples": ["unassalpha"], "planarconfig": "separate"}
    planes = with_alpha.transpose(2, 0, 1)
    yield File("rgba16-separate.tif", tiff((planes, moved)), (sixteen >> 8,))
    multiplied = np.rint(eight * (alpha / 255)).astype(np.uint8)
    bound = {"extrasamples": ["assocalpha"]}
    data = tiff((np.dstack([multiplied, alpha]), bound))
    yield File("premultiplied.tif", data, (eight,), tolerance=2)
    grey = {"photometric": "minisblack", "extrasamples": ["unassalpha"], "planarconfig": "contig"}
    two = np.dstack([eight[..., :1], alpha])
    yield File("grey-alpha.tif", tiff((two, grey)), (rgb(eight[..., 0]),))
    for bands in (4, 5, 10):
        more = np.dstack([eight, *[alpha] * (bands - 3)])
        extra = {"extrasamples": ["unspecified"] * (bands - 3)}
        yield File(f"rgb-and-{bands - 3}-bands.tif", tiff((more, extra)), (eight,))


def turned(picture: Array) -> dict[int, Array]:
    """A picture as shown, for each orientation in which it may be stored."""
    right = np.rot90(picture, -1)
    mirrored, transposed = picture[:, ::-1], picture.transpose(1, 0, 2)
    order = (picture, mirrored, mirrored[::-1], picture[::-1])
    return dict(enumerate((*order, transposed, right, right[::-1], np.rot90(picture)), 1))


def turned_tiffs() -> Iterator[File]:
    """All values of the orientation tag."""
    eight = noise(HEIGHT, WIDTH, 3)
    for number, expected in turned(eight).items():
        tag = [(274, "H", 1, number)]
        for bits in (8, 16):
            array = eight.astype(np.uint16) * 257 if bits == 16 else eight
            data = tiff((array, {"extratags": tag}))
            yield File(f"turned{number}-{bits}.tif", data, (expected,))


def pages_of_tiffs() -> Iterator[File]:
    """Overviews, masks, pages of several kinds, and pages that can't be read."""
    one, two = noise(HEIGHT, WIDTH, 3), noise(HEIGHT, WIDTH + 2, 3)
    full: tuple[Array, dict[str, Any]] = one, {}
    small = (one[::2, ::2], {"subfiletype": 1})
    mask = (one[..., 0] > 9, {"subfiletype": 4, "photometric": "mask"})
    yield File("overviews.tif", tiff(full, small, small), (one,))
    yield File("overviews-and-mask.tif", tiff(full, mask, small), (one,))
    yield File("overviews-between.tif", tiff(full, small, (two, {})), (one, two))
    yield File("thumbnail-first.tif", tiff(small, full), (one,))
    yield File("only-thumbnails.tif", tiff(small, small), refused="holds no image")
    yield File("multi-page-flag.tif", tiff((one, {"subfiletype": 2}), full), (one, one))
    data = tiff(full, (two.astype(np.uint16) * 257, {}), (one[..., 0], {"photometric": 1}))
    yield File("mixed-pages.tif", data, (one, two, rgb(one[..., 0])))
    signed = (one[..., 0].astype(np.int16), {"photometric": "minisblack"})
    yield File("bad-page-last.tif", tiff(full, (two, {}), signed), (one, two), "16 bits, signed")
    whole = tiff(full, (two, {}))
    yield File("cut-between-pages.tif", whole[: whole.index(two.tobytes()) - 1], (one,), "cut off")
    stack = io.BytesIO()
    tifffile.imwrite(stack, np.stack([one] * 3), photometric="rgb", truncate=True)
    yield File("one-directory.tif", stack.getvalue(), (one,), "stores 3 images in one directory")


def refused_tiffs() -> Iterator[File]:
    """What segrt can't interpret; the error tells bands, type and layout."""
    base = noise(HEIGHT, WIDTH, 12)
    black = {"photometric": "minisblack", "planarconfig": "contig"}
    for kind in (np.int8, np.int16, np.int32, np.uint32, np.int64, np.uint64, np.complex64):
        array = base[..., 0].astype(kind)
        word = {"u": "unsigned", "i": "signed", "c": "complex"}[np.dtype(kind).kind]
        refused = f"1 band of {8 * np.dtype(kind).itemsize} bits, {word}"
        yield File(f"{np.dtype(kind)}.tif", tiff((array, black)), refused=refused)
    for bands in (2, 3, 4, 10):
        extra = black | {"extrasamples": ["unspecified"] * (bands - 1)}
        for bits in (8, 16):
            data = tiff((base[..., :bands].astype(f"u{bits // 8}"), extra))
            refused = f"{bands} bands of {bits} bits, unsigned, photometric minisblack"
            yield File(f"{bands}-bands-{bits}.tif", data, refused=refused)
    over = np.full((HEIGHT, WIDTH, 3), 1.5, np.float32)
    yield File("float-range.tif", tiff((over, {})), refused="must be from 0 to 1")
    nan = np.full((HEIGHT, WIDTH, 3), np.nan, np.float32)
    yield File("float-nan.tif", tiff((nan, {})), refused="must be from 0 to 1")
    lab = tiff((base[..., :3], {"photometric": "cielab"}))
    yield File("lab.tif", lab, refused="photometric cielab")
    volume = tiff((base.transpose(2, 0, 1)[:4], black | {"volumetric": True, "tile": (2, 16, 16)}))
    yield File("volume.tif", volume, refused="a TIFF volume of 4 slices")
    whole = tiff((base[..., :3], {}))
    yield File("cut.tif", whole[: len(whole) - 200], refused="cut off")
    short = bytearray(whole)
    at = short.index(struct.pack("<I", 3 * HEIGHT * WIDTH))  # the size of the only strip
    short[at : at + 4] = struct.pack("<I", 99)
    yield File("short-strip.tif", bytes(short), refused="cut off")
    strips = tiff((base[..., :3], {"rowsperstrip": 5, "compression": "deflate"}))
    yield File("cut-strip.tif", strips[: len(strips) - 9], refused="cut off")


def tiffs_of_pillow() -> Iterator[File]:
    """Compressions that tifffile does not write: fax, and JPEG in YCbCr."""
    bilevel = smooth()[..., 0] > 120
    image = Image.fromarray(bilevel)
    for name in ("group3", "group4", "tiff_ccitt", "tiff_lzw", "packbits"):
        data = pillow(image, "TIFF", compression=name)
        yield File(f"bilevel-{name}.tif", data, (rgb(np.where(bilevel, 255, 0)),))
    photo = Image.fromarray(smooth())
    data = pillow(photo, "TIFF", compression="jpeg", quality=100)
    yield File("jpeg-in-tiff.tif", data, (smooth(),), tolerance=6)
    data = pillow(photo.convert("YCbCr"), "TIFF", compression="tiff_lzw")
    yield File("ycbcr-lzw.tif", data, (smooth(),), tolerance=3)


def png_by_hand(samples: Array, bits: int, colour: int, *chunks: bytes) -> bytes:
    """A PNG with packed samples (H, W, S) of any number of bits, not interlaced."""
    height, width, count = samples.shape
    places = np.arange(bits - 1, -1, -1)
    flat = (samples.reshape(height, width * count, 1) >> places & 1).astype(np.uint8)
    rows = np.packbits(flat.reshape(height, -1), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    extra = b"".join(chunk(c[:4], c[4:]) for c in chunks)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(raw))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def pngs() -> Iterator[File]:
    """Every colour type and number of bits."""
    for colour, count in ((0, 1), (2, 3), (4, 2), (6, 4)):
        for bits in (1, 2, 4, 8, 16) if colour == 0 else (8, 16):
            samples = noise(HEIGHT, WIDTH, count, dtype=np.uint16) >> (16 - bits)
            pixels = samples >> (bits - 8) if bits >= 8 else samples * 255 // (2**bits - 1)
            colours = pixels[..., :3] if count > 2 else rgb(pixels[..., 0])
            data = png_by_hand(samples, bits, colour)
            yield File(f"colour{colour}-{bits}.png", data, (colours.astype(np.uint8),))
    for bits in (1, 2, 4, 8):
        palette = noise(2**bits, 3)
        samples = noise(HEIGHT, WIDTH, 1, dtype=np.uint16) >> (16 - bits)
        for name, chunks in (("palette", ()), ("transparent", (b"tRNS\0\x80",))):
            data = png_by_hand(samples, bits, 3, b"PLTE" + palette.tobytes(), *chunks)
            yield File(f"{name}-{bits}.png", data, (palette[samples[..., 0]],))
    grey = noise(HEIGHT, WIDTH, 1, dtype=np.uint16)
    data = png_by_hand(grey, 16, 0, b"tRNS" + struct.pack(">H", int(grey[0, 0, 0])))
    yield File("grey-transparent.png", data, (rgb(grey[..., 0] >> 8),))


def jpegs() -> Iterator[File]:
    """Subsampling, progressive, grey, CMYK, orientation, and odd names."""
    picture, image = smooth(), Image.fromarray(smooth())
    high: dict[str, Any] = {"quality": 100, "subsampling": 0}
    for name in ("photo.jpg", "photo.jpeg", "photo.jpe", "photo.jfif", "photo.JPG", "photo"):
        yield File(name, pillow(image, "JPEG", **high), (picture,), tolerance=3)
    for name in ("photo.png", "photo.txt", "photo.heic", "photo.tif"):
        yield File(f"jpeg-called-{name}", pillow(image, "JPEG", **high), (picture,), tolerance=3)
    data = pillow(image, "JPEG", progressive=True, **high)
    yield File("progressive.jpg", data, (picture,), tolerance=3)
    for sampling in (1, 2):
        data = pillow(image, "JPEG", quality=100, subsampling=sampling)
        yield File(f"sampling{sampling}.jpg", data, (picture,), tolerance=8)
    grey = picture[..., 0]
    yield File(
        "grey.jpg", pillow(Image.fromarray(grey), "JPEG", quality=100), (rgb(grey),), None, 2
    )
    inks = np.dstack([255 - picture, np.zeros_like(grey)])
    data = pillow(Image.fromarray(inks, "CMYK"), "JPEG", **high)
    yield File("cmyk.jpg", data, (picture,), tolerance=4)
    second = Image.fromarray(picture[::-1])
    data = pillow(image, "MPO", save_all=True, append_images=[second], **high)
    yield File("stereo.mpo", data, (picture,), tolerance=3)
    for number, expected in turned(picture).items():
        exif = Image.Exif()
        exif[274] = number
        data = pillow(image, "JPEG", exif=exif, **high)
        yield File(f"exif{number}.jpg", data, (expected,), tolerance=3)
    whole = pillow(image, "JPEG", **high)
    yield File("cut.jpg", whole[: len(whole) // 2], refused="truncated")


def animations() -> Iterator[File]:
    """Each frame is an image; so are the frames before the damage."""
    frames = [np.roll(smooth(), 9 * k, axis=1) for k in range(4)]
    pictures = [Image.fromarray(frame) for frame in frames]
    options: dict[str, Any] = {"save_all": True, "append_images": pictures[1:], "duration": 250}
    exact = tuple(frames)
    yield File("animated.png", pillow(pictures[0], "PNG", **options), exact)
    data = pillow(pictures[0], "WEBP", lossless=True, exact=True, **options)
    yield File("animated.webp", data, exact)
    few = [Image.fromarray(frame // 64 * 64).quantize(64) for frame in frames]
    shown = tuple(np.asarray(picture.convert("RGB")) for picture in few)
    options["append_images"] = few[1:]
    gif = pillow(few[0], "GIF", **options)
    yield File("animated.gif", gif, shown)
    yield File("still.gif", pillow(few[0], "GIF"), shown[:1])
    yield File("cut.gif", gif[: gif.rindex(b"!\xf9")], shown[:3], "breaks off after 3 frames")


def others() -> Iterator[File]:
    """Further formats of Pillow, by content or by suffix."""
    picture, image = smooth(), Image.fromarray(smooth())
    exact = noise(HEIGHT, WIDTH, 3)
    noisy = Image.fromarray(exact)
    grey = exact[..., 0]
    for form, suffix in (
        *(("BMP", "bmp"), ("DIB", "dib"), ("PPM", "ppm"), ("PPM", "pnm"), ("TGA", "tga")),
        *(("PCX", "pcx"), ("SGI", "sgi"), ("QOI", "qoi"), ("DDS", "dds")),
    ):
        yield File(f"a.{suffix}", pillow(noisy, form), (exact,))
    for form, suffix in (("BMP", "bmp"), ("PPM", "pgm"), ("TGA", "tga"), ("SGI", "bw")):
        yield File(f"grey.{suffix}", pillow(Image.fromarray(grey), form), (rgb(grey),))
    bilevel = Image.fromarray(grey > 99)
    for form, suffix in (("PPM", "pbm"), ("BMP", "bmp"), ("XBM", "xbm"), ("MSP", "msp")):
        yield File(f"bilevel.{suffix}", pillow(bilevel, form), (rgb(np.where(grey > 99, 255, 0)),))
    lossless = {"lossless": True, "exact": True}
    yield File("a.webp", pillow(noisy, "WEBP", **lossless), (exact,))
    clear = Image.fromarray(np.dstack([exact, noise(HEIGHT, WIDTH)]))
    for form, suffix in (("WEBP", "webp"), ("TGA", "tga"), ("QOI", "qoi"), ("DDS", "dds")):
        options = lossless if form == "WEBP" else {}
        yield File(f"alpha.{suffix}", pillow(clear, form, **options), (exact,))
    yield File("a.jp2", pillow(noisy, "JPEG2000"), (exact,))
    yield File("a.j2k", pillow(noisy, "JPEG2000", no_jp2=True), (exact,))
    wide = noise(HEIGHT, WIDTH, dtype=np.uint16)
    yield File("grey16.jp2", pillow(Image.fromarray(wide), "JPEG2000"), (rgb(wide >> 8),))
    data = pillow(image, "AVIF", quality=100, subsampling="4:4:4")
    yield File("a.avif", data, (picture,), tolerance=4)
    square = Image.fromarray(noise(32, 32, 3))
    data = pillow(square, "ICO", sizes=[(32, 32)])
    yield File("a.ico", data, (np.asarray(square),))
    png = pillow(Image.fromarray(noise(128, 128, 3)), "PNG")
    icon = b"ic07" + struct.pack(">I", len(png) + 8) + png
    data = b"icns" + struct.pack(">I", len(icon) + 8) + icon
    yield File("a.icns", data, (noise(128, 128, 3),))
    for suffix in ("ras", "sr"):
        data = cv2.imencode(".ras", exact[..., ::-1])[1].tobytes()
        yield File(f"a.{suffix}", data, (exact,))
    yield from _maps(exact, wide)


def _maps(exact: Array, wide: Array) -> Iterator[File]:
    """Portable maps with other ranges, as text and as floats."""
    size = b"%d %d\n" % (WIDTH, HEIGHT)
    text = " ".join(map(str, exact.ravel())).encode()
    yield File("text.ppm", b"P3\n# a comment\n" + size + b"255\n" + text, (exact,))
    yield File("wide.pgm", b"P5\n" + size + b"65535\n" + wide.astype(">u2").tobytes(), (
        rgb(wide >> 8),
    ))  # fmt: skip
    deep = noise(HEIGHT, WIDTH, 3, dtype=np.uint16)
    yield File("wide.ppm", b"P6\n" + size + b"65535\n" + deep.astype(">u2").tobytes(), (
        (deep >> 8).astype(np.uint8),
    ), tolerance=1)  # fmt: skip
    low = exact[..., 0] % 101
    yield File("range100.pgm", b"P5\n" + size + b"100\n" + low.tobytes(), (
        rgb(np.rint(low * 2.55)),
    ), tolerance=1)  # fmt: skip
    floats = (exact[..., 0] / 255).astype("<f4")
    yield File("a.pfm", b"Pf\n" + size + b"-1.0\n" + floats[::-1].tobytes(), (rgb(exact[..., 0]),))


def table() -> dict[str, File]:
    """All files, by name."""
    files: dict[str, File] = {}
    for group in (
        *(layouts_of_tiffs, kinds_of_tiffs, turned_tiffs, pages_of_tiffs, refused_tiffs),
        *(tiffs_of_pillow, pngs, jpegs, animations, others),
    ):
        for file in group():
            assert file.name not in files, file.name
            files[file.name] = file
    return files
