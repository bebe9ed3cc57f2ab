"""Changes of a model repository: a plan lists them, and `apply` makes them in that order.

Each change is made whole or not at all, so a server that reads meanwhile never sees half of one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cascadebert_engine.files import write_text


class Change(Protocol):
    """One change of the repository."""

    @property
    def path(self) -> Path:
        """The file or folder that changes."""
        ...

    def apply(self) -> None:
        """Make the change."""
        ...


@dataclass(frozen=True, slots=True)
class TextFile:
    """A text file that is written or replaced.

    Attributes:
        path: The file.
        text: Its new text.
    """

    path: Path
    text: str

    def apply(self) -> None:
        """Write the file."""
        write_text(self.path, self.text)


@dataclass(frozen=True, slots=True)
class NewFolder:
    """A folder that is written beside its place and then renamed; an old one is replaced.

    Attributes:
        path: The folder.
        files: Its files by their names below it: a path is copied, a string is the text.
    """

    path: Path
    files: Mapping[str, Path | str]

    def apply(self) -> None:
        """Write the folder and put it in its place."""
        new = self.path.with_name(f".{self.path.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        for name, source in self.files.items():
            target = new / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, str):
                target.write_text(source, encoding="utf-8")
            else:
                shutil.copyfile(source, target)
        Removal(self.path, replacement=new).apply()


@dataclass(frozen=True, slots=True)
class Removal:
    """A file or folder that is deleted; a reader sees a folder whole or not at all.

    Attributes:
        path: The file or folder; it may be absent.
        replacement: A folder that takes its place.
    """

    path: Path
    replacement: Path | None = None

    def apply(self) -> None:
        """Delete it, or replace it."""
        old = self.path.with_name(f".{self.path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self.path.is_dir():
            self.path.rename(old)
        else:
            self.path.unlink(missing_ok=True)
        if self.replacement is not None:
            self.replacement.rename(self.path)
        shutil.rmtree(old, ignore_errors=True)


def apply(changes: Iterable[Change]) -> None:
    """Make all changes in their order.

    Raises:
        OSError: The repository cannot be written; the changes before that one are made.
    """
    for change in changes:
        change.apply()


def changed_file(path: Path, text: str) -> list[Change]:
    """The change that gives a file this text; empty if it has it already."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return []
    return [TextFile(path, text)]
