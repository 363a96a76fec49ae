"""What mkdocs and its theme leave out: links into the repository, screen readers, the keyboard."""

from __future__ import annotations

import logging
import re
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

LOG = logging.getLogger("mkdocs.hooks.docs_hooks")  # mkdocs --strict counts its warnings
ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(\]\(|\]: )(\.\./[^)\s#]+)")


def repository_links(text: str, page: str, repository: str) -> tuple[str, list[str]]:
    """Make relative links out of docs/ absolute: they work on GitHub, but not on the site.

    Example:
        >>> repository_links("[CPU](../benchmarks/results/cpu.md)", "index.md", "https://x.org")
        ('[CPU](https://x.org/blob/main/benchmarks/results/cpu.md)', [])

    Args:
        text: Markdown of a page.
        page: its path in docs/.
        repository: address of the repository.

    Returns:
        The changed text, and the targets that do not exist.
    """
    missing: list[str] = []

    def replace(match: re.Match[str]) -> str:
        before, target = match[1], match[2]
        path = normpath(PurePosixPath("docs", page).parent / target)
        if path.startswith("docs/"):
            return match[0]
        if not (ROOT / path).exists():
            missing.append(target)
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"{before}{repository}/{kind}/main/{path}"

    return LINK.sub(replace, text), missing


def on_page_markdown(markdown: str, page: Any, config: Any, **_: object) -> str:
    """Link to the repository, and warn of links to files that it lacks."""
    text, missing = repository_links(markdown, page.file.src_uri, config.repo_url)
    for target in missing:
        LOG.warning("%s: the repository has no %s", page.file.src_uri, target)
    return text


def on_page_content(html: str, page: Any, files: Any, **_: object) -> str:
    """Link from the notebook to pages: mkdocs does so only in Markdown."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def replace(match: re.Match[str]) -> str:
        target = files.get_file_from_path(match[1])
        if target is None:
            LOG.warning("%s: there is no page %s", page.file.src_uri, match[1])
            return match[0]
        return f'href="{target.url_relative_to(page.file)}'

    return re.sub(r'href="([\w-]+\.md)', replace, html)


def accessible(output: str, **_: object) -> str:
    """Name the search dialog, and let the keyboard scroll code.

    Example:
        >>> accessible('<div class="md-search" role="dialog">')
        '<div class="md-search" role="dialog" aria-label="Search">'
    """
    output = output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
    # In docs/extra.css, these scroll rather than the code within them.
    output = output.replace("<pre", '<pre tabindex="0"')
    return output.replace('<div class="highlight-ipynb', '<div tabindex="0" class="highlight-ipynb')


on_post_page = accessible
on_post_template = accessible  # of 404.html
