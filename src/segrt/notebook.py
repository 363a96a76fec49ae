"""Results as notebooks show them: a picture, the shares of the classes, and the timings."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from io import BytesIO

from PIL import Image

MAX_SIDE = 800
"""Larger pictures are scaled down to this width or height: a notebook keeps what it shows."""

_ROWS = 12
"""Rows of the table; the rest are added up."""

_STYLE = (
    "display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start;font-family:system-ui,sans-serif"
)


def encoded(picture: Image.Image, file_format: str) -> bytes:
    """A picture in a file format, as "PNG", no larger than `MAX_SIDE`.

    Example:
        >>> encoded(result.overlay(), "PNG")[:4]
        b'\\x89PNG'
    """
    picture = picture.copy()
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = BytesIO()
    picture.save(buffer, file_format, quality=85)
    return buffer.getvalue()


def html(
    picture: Image.Image,
    title: str,
    areas: Mapping[str, float],
    colours: Mapping[str, list[int]],
    caption: str,
) -> str:
    """A picture beside a table of its classes.

    Args:
        picture: RGB.
        title: what the picture shows.
        areas: the share of each class, by name, largest first.
        colours: red, green and blue of each of them, from 0 to 255.
        caption: what is below the table.

    Returns:
        str: HTML with nothing that would be loaded from elsewhere.
    """
    image = base64.b64encode(encoded(picture, "JPEG")).decode()
    rows = [
        f'<tr><td style="background:rgb({red},{green},{blue});width:1.2em"></td>'
        f'<td style="text-align:left">{escape(name)}</td><td>{share:.1%}</td></tr>'
        for name, share in list(areas.items())[:_ROWS]
        for red, green, blue in [colours[name]]
    ]
    if rest := list(areas.values())[_ROWS:]:
        rows.append(
            f'<tr><td></td><td style="text-align:left">{len(rest)} more</td>'
            f"<td>{sum(rest):.1%}</td></tr>"
        )
    return (
        f'<div style="{_STYLE}"><img alt="{escape(title)}" style="max-width:min(100%,640px)" '
        f'src="data:image/jpeg;base64,{image}"><div><strong>{escape(title)}</strong>'
        f"<table>{''.join(rows)}</table><small>{escape(caption)}</small></div></div>"
    )
