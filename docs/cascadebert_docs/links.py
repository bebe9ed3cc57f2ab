"""Where a file of the checkout is on the site, and what becomes of a link to it."""

from __future__ import annotations

import posixpath
from collections.abc import Collection
from pathlib import Path

from .markdown import replace_links

DOCS = "docs/"
_README = "README.md"
_INDEX = "index.md"


def site_path(file: str) -> str:
    """Return the place of a file of the checkout on the site; the README is the first page."""
    return _INDEX if file == _README else file.removeprefix(DOCS)


def repository_path(page: str, pages_elsewhere: Collection[str]) -> str:
    """Return the file of the checkout that a page of the site is made from.

    Args:
        page: The page's place on the site.
        pages_elsewhere: The files outside of docs/ that are pages.
    """
    for file in pages_elsewhere:
        if site_path(file) == page:
            return file
    return DOCS + page


def targets(text: str, file: str) -> list[str]:
    """Return the files of the checkout that a page links or shows.

    Args:
        text: The page's Markdown.
        file: The page's file, relative to the checkout.
    """
    found: list[str] = []

    def note(image: bool, label: str, address: str) -> str:
        if _is_local(address):
            found.append(_resolved(file, address.partition("#")[0]))
        return ""

    replace_links(text, note)
    return found


def rewritten(text: str, file: str, on_site: Collection[str], root: Path) -> str:
    """Return a page with the links of the checkout turned into links of the site.

    A link to a file that is not on the site, such as code, becomes its text alone. A link to
    nothing stays as it is, and a strict build of the site fails on it.

    Args:
        text: The page's Markdown.
        file: The page's file, relative to the checkout.
        on_site: The files of the checkout that are on the site.
        root: The checkout.
    """
    here = posixpath.dirname(site_path(file)) or "."

    def replace(image: bool, label: str, address: str) -> str:
        mark = "!" if image else ""
        if not _is_local(address):
            return f"{mark}[{label}]({address})"
        path, hash_, anchor = address.partition("#")
        target = _resolved(file, path)
        if target in on_site:
            return f"{mark}[{label}]({posixpath.relpath(site_path(target), here)}{hash_}{anchor})"
        if (root / target).exists():
            return label
        return f"{mark}[{label}]({address})"

    return replace_links(text, replace)


def _is_local(address: str) -> bool:
    return not address.startswith(("#", "http:", "https:", "mailto:"))


def _resolved(file: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
