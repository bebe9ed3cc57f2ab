"""Tables and links of Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

_FENCED = re.compile(r"^( *)(```+)[^\n]*\n.*?^ *\2 *$", re.MULTILINE | re.DOTALL)
_DEFINITION = re.compile(r"^\[([^\]]+)\]: (\S+)$", re.MULTILINE)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table. Pipes, line breaks and angle brackets in a cell are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in lines)


def _cell(text: str) -> str:
    # Code stands between backticks: there an escaped bracket would be read as it is written.
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    return "`".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts))


def linked(text: str) -> str:
    """Return text of the code in which mentions of pages, such as docs/client.md, are links."""
    return re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](\1)", text)


def replace_links(text: str, replace: Callable[[bool, str, str], str]) -> str:
    """Replace the links and images of Markdown, except in fenced blocks.

    Definitions such as `[label]: address` become links in place: `[text][label]` is replaced as
    `[text](address)` would be, and the definition goes.

    Args:
        text: The Markdown.
        replace: A function of (whether it is an image, its text, its address) that returns what
            stands in its place.
    """

    def one(match: re.Match[str]) -> str:
        image, label, address = match.groups()
        return replace(bool(image), label, address)

    for label, address in _DEFINITION.findall(text):
        text = text.replace(f"][{label}]", f"]({address})")
    text = _DEFINITION.sub("", text)
    parts: list[str] = []
    end = 0
    for block in _FENCED.finditer(text):
        parts += [_LINK.sub(one, text[end : block.start()]), block.group()]
        end = block.end()
    return "".join((*parts, _LINK.sub(one, text[end:])))
