"""Draws the pages of PDFs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from threading import Lock
from typing import Any

from segrt import forks
from segrt.arrays import from_array
from segrt.errors import InputError
from segrt.reading import MAX_PAGES, Page, Pixels, Reading, attempt, check_page

_PDFIUM = Lock()  # PDFium is not thread-safe
forks.hold(_PDFIUM)


def pages(content: str | bytes, reading: Reading) -> Iterator[Page]:
    """Draw each page; one that can't be drawn doesn't affect the others.

    Args:
        content: a file, or its bytes.
        reading: the scale and the limits.

    Raises:
        InputError: it is encrypted or damaged, or has no pages or more than `MAX_PAGES`.
    """
    with _PDFIUM:
        document = _opened(content)
        count = len(document)
    try:
        for index in range(min(count, MAX_PAGES)):
            with _PDFIUM:
                image = attempt(partial(_page, document, index, reading))
            yield Page(image, index)
        if count > MAX_PAGES:
            raise InputError(f"this PDF has {count} pages: those from {MAX_PAGES} on are skipped")
    finally:
        with _PDFIUM:
            document.close()


def page(content: str | bytes, index: int, reading: Reading) -> tuple[Pixels, int]:
    """Draw one page; see `pages`.

    Returns:
        tuple: the page, uint8 (H, W, 3) BGR, and the number of pages.

    Raises:
        ConfigError: there is no such page.
    """
    with _PDFIUM, closing(_opened(content)) as document:
        check_page(index, len(document))
        return _page(document, index, reading), len(document)


def _opened(content: str | bytes) -> Any:
    """The document; the caller holds the lock."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise InputError("this PDF is encrypted: save it without a password first") from None
        raise InputError("this PDF is damaged") from None
    if not len(document):
        document.close()
        raise InputError("this PDF has no pages")
    document.init_forms()  # so that filled-in form fields are drawn
    return document


def _page(document: Any, index: int, reading: Reading) -> Pixels:
    page = document[index]
    try:
        width, height = page.get_size()
        reading.check(int(width * reading.pdf_scale), int(height * reading.pdf_scale))
        bitmap = page.render(scale=reading.pdf_scale)
        image = from_array(bitmap.to_numpy()).copy()  # the bitmap's memory belongs to PDFium
        bitmap.close()
        return image
    finally:
        page.close()
