"""The files of a corpus: one, or those of a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cascadebert_client.sources import format_of_name, unknown_format

from ..errors import UsageError
from ..progress import counted
from .store import Store

_AT_ONCE = 1 << 20
# Names that other programs leave in a folder of data.
_HIDDEN = (".", "_")


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of the corpus.

    Attributes:
        name: Relative to the folder; the file's own name if the corpus is one file.
        fingerprint: What tells cheaply that it has changed.
        content: A hash of its bytes on a disk; in a store its fingerprint, which the store makes.
    """

    name: str
    fingerprint: str
    content: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is to be scored.

    Attributes:
        url: The file or the folder.
        is_file: Whether it is one file.
        file_format: Of all files; None: their endings tell.
        text: The column of the text.
        text_pair: The column of the second text of a pair; None for single texts.
    """

    url: str
    is_file: bool
    file_format: str | None
    text: str
    text_pair: str | None

    def place(self, name: str) -> tuple[Store, str]:
        """The store and the name in it of a file."""
        return (Store(self.url), "") if self.is_file else (Store(self.url), name)


def corpus_at(
    url: str, *, file_format: str | None, text: str, text_pair: str | None
) -> tuple[Corpus, list[str]]:
    """The corpus at a path or URL, and the names of its files, sorted.

    Raises:
        UsageError: There is nothing, or a file of unknown format.
    """
    store = Store(url)
    kind = store.kind()
    if kind is None:
        raise UsageError(f"{url} does not exist: give a file, or a folder of files")
    if kind == "file":
        names = [url.rstrip("/").rpartition("/")[2]]
    else:
        names = [
            name
            for name in store.files()
            if not any(part.startswith(_HIDDEN) for part in name.split("/"))
        ]
        if not names:
            raise UsageError(
                f"{url} has no files: give a folder with .parquet, .jsonl or .csv files"
            )
    corpus = Corpus(url, kind == "file", file_format, text, text_pair)
    if file_format is None:
        for name in names:
            if format_of_name(name) is None:
                raise UsageError(unknown_format(name if corpus.is_file else f"{url}/{name}"))
    return corpus, names


def identified(corpus: Corpus, names: Sequence[str]) -> list[InputFile]:
    """The files with their hashes.

    Raises:
        UsageError: A file cannot be read.
    """
    files: list[InputFile] = []
    with counted("file", len(names), what="hash the input") as advance:
        for name in names:
            store, place = corpus.place(name)
            before = store.fingerprint(place)
            content = before if not store.is_local else _hash(store, place)
            files.append(InputFile(name, before, content))
            advance()
    return files


def require_unchanged(corpus: Corpus, file: InputFile) -> None:
    """Refuse a file that is another than when the run began.

    Raises:
        UsageError: It has changed.
    """
    store, place = corpus.place(file.name)
    if store.fingerprint(place) != file.fingerprint:
        raise UsageError(f"{file.name} changed while it was scored: start again with --overwrite")


def hash_of_files(files: Sequence[InputFile]) -> str:
    """One hash of names and contents."""
    text = "\n".join(f"{file.name}\t{file.content}" for file in files)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _hash(store: Store, name: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with store.opened(name) as stream:
        block: Any = stream.read(_AT_ONCE)
        while block:
            digest.update(block)
            block = stream.read(_AT_ONCE)
    return digest.hexdigest()
