"""Draws the pages of PDFs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from threading import Lock
from typing import Any

from segrt import forks
from segrt.arrays import from_array
from segrt.errors import InputError
from segrt.reading import MAX_PAGES, Page, Pixels, Reading, attempt

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
    import pypdfium2

    with _PDFIUM:
        try:
            document = pypdfium2.PdfDocument(content)
        except pypdfium2.PdfiumError as error:
            if "password" in str(error).lower():
                raise InputError(
                    "this PDF is encrypted: save it without a password first"
                ) from None
            raise InputError("this PDF is damaged") from None
        document.init_forms()  # so that filled-in form fields are drawn
        count = len(document)
    try:
        if not count:
            raise InputError("this PDF has no pages")
        for index in range(min(count, MAX_PAGES)):
            with _PDFIUM:
                image = attempt(partial(_page, document, index, reading))
            yield Page(image, index)
        if count > MAX_PAGES:
            raise InputError(f"this PDF has {count} pages: those from {MAX_PAGES} on are skipped")
    finally:
        with _PDFIUM:
            document.close()


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
