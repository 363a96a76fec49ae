"""What the theme of the documentation leaves out for screen readers and the keyboard."""

from __future__ import annotations


def on_post_page(output: str, **_: object) -> str:
    """Name the search dialog, and let the keyboard scroll code.

    Example:
        >>> on_post_page('<div class="md-search" role="dialog">')
        '<div class="md-search" role="dialog" aria-label="Search">'
    """
    output = output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
    # In docs/extra.css, these scroll rather than the code within them.
    output = output.replace("<pre", '<pre tabindex="0"')
    return output.replace('<div class="highlight-ipynb', '<div tabindex="0" class="highlight-ipynb')
