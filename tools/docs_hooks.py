"""What the theme of the documentation leaves out for screen readers and the keyboard."""

from __future__ import annotations

import re


def on_post_page(output: str, **_: object) -> str:
    """Name the search dialog, and let the keyboard scroll code.

    Example:
        >>> on_post_page('<div class="md-search" role="dialog">')
        '<div class="md-search" role="dialog" aria-label="Search">'
    """
    output = output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
    output = output.replace('<div class="highlight-ipynb', '<div tabindex="0" class="highlight-ipynb')
    return re.sub(r"(<pre[^>]*>(?:<span></span>)?)<code>", r'\1<code tabindex="0">', output)
