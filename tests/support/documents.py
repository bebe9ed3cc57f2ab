"""The examples of the documents: commands, Python and configurations, with their places.

An example is what a reader copies at once: one command of a `console` block with its continuation
lines, or a whole block of `bash`, `python` or `toml`. Other blocks are output or other languages.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
NOT_RUN = Path(__file__).with_suffix(".toml")

_FENCE = re.compile(r"^( *)(```+)([\w-]*)\s*$")
_COMMENT = re.compile(r"\s+#\s.*$")
_WHOLE = ("bash", "python", "toml")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        file: The document, relative to the checkout.
        line: The line of its first line of text, from 1.
        language: The word after the fence; "" if there is none.
        text: Its text, without the fence and the fence's indentation.
    """

    file: str
    line: int
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """Something that a reader can run.

    Attributes:
        file: The document, relative to the checkout.
        line: The line of its first line, from 1.
        language: "console", "bash", "python" or "toml".
        text: What is run: without prompts, and with its comments.
    """

    file: str
    line: int
    language: str
    text: str

    @property
    def key(self) -> str:
        """The first line, without a comment at its end and with single spaces."""
        first = self.text.strip().splitlines()[0]
        return " ".join(_COMMENT.sub("", first).split())

    @property
    def place(self) -> str:
        """FILE:LINE."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an example is not run.

    Attributes:
        why: A sentence.
        test: The test that runs the same, relative to the checkout; None if there is none.
    """

    why: str
    test: str | None


def documents() -> list[str]:
    """Return the documents, relative to the checkout: README.md and the pages of docs/."""
    pages = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
    return ["README.md", *pages]


def examples_of(file: str) -> list[Example]:
    """Return the examples of a document, from top to bottom."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return [example for block in blocks(text, file) for example in examples(block)]


def blocks(text: str, file: str = "") -> Iterator[Block]:
    """Yield the fenced blocks of Markdown.

    Raises:
        ValueError: A block does not end.
    """
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        start = _FENCE.match(lines[number])
        number += 1
        if start is None:
            continue
        indent, fence, language = start.groups()
        first = number
        while number < len(lines) and lines[number].strip() != fence:
            number += 1
        if number == len(lines):
            raise ValueError(f"{file}:{first}: the block does not end")
        inside = [line.removeprefix(indent) for line in lines[first:number]]
        yield Block(file, first + 1, language, "\n".join(inside) + "\n")
        number += 1


def examples(block: Block) -> Iterator[Example]:
    """Yield the examples of a block."""
    if block.language in _WHOLE and block.text.strip():
        yield Example(block.file, block.line, block.language, block.text)
    elif block.language == "console":
        lines = block.text.splitlines()
        for i, line in enumerate(lines):
            if line.startswith("$ "):
                text = "\n".join(_command(lines[i:])) + "\n"
                yield Example(block.file, block.line + i, "console", text)


def _command(lines: list[str]) -> Iterator[str]:
    """The first command of a console: after a backslash, or with the prompt `>`, it goes on."""
    yield lines[0][2:]
    for before, line in pairwise(lines):
        if line.startswith("> "):
            yield line[2:]
        elif before.endswith("\\"):
            yield line
        else:
            return


def not_run() -> dict[str, Reason]:
    """Return the examples of documents.toml that are not run, by key.

    Raises:
        ValueError: An example is listed twice.
    """
    reasons: dict[str, Reason] = {}
    for group in tomllib.loads(NOT_RUN.read_text(encoding="utf-8"))["group"]:
        for key in group["examples"]:
            if key in reasons:
                raise ValueError(f"{NOT_RUN.name} lists {key!r} twice")
            reasons[key] = Reason(group["why"], group.get("test"))
    return reasons


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with a part of another one: tables are merged, all else replaced."""
    result = {**base, **change}
    for key, value in change.items():
        present = base.get(key)
        if isinstance(present, Mapping) and isinstance(value, Mapping):
            result[key] = merged(present, value)
    return result
