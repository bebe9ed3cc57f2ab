"""Lines of UTF-8 text from a stream, with their numbers."""

import contextlib
import gzip
import itertools
import zlib
from collections.abc import Generator, Iterator
from typing import BinaryIO, TypeAlias

from ..errors import InvalidRequest
from .encodings import problem_of_byte, problem_of_start

Line: TypeAlias = tuple[int, str]
"""A line with its number, counted from 1."""


def raw_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines with their ends. A carriage return ends a line only if there is no line feed at all."""
    first = stream.readline()
    if first.endswith(b"\n") or b"\r" not in first:
        yield from itertools.chain([first] if first else [], stream)
    else:
        yield from first.splitlines(keepends=True)


def decoded_lines(stream: BinaryIO, name: str) -> Iterator[Line]:
    """Lines in UTF-8, with or without a byte-order mark.

    Raises:
        InvalidRequest: While iterating: a line is not UTF-8. The message names the likely encoding
            and a command that converts the file.
    """
    with damage_named(name):
        for number, raw in enumerate(raw_lines(stream), start=1):
            if number == 1:
                problem = problem_of_start(name, raw)
                if problem is not None:
                    raise InvalidRequest(problem)
            try:
                # Only the first line may begin with a byte-order mark.
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as exc:
                problem = problem_of_byte(name, number, raw, exc.start, stream)
                raise InvalidRequest(problem) from exc
            yield number, line


@contextlib.contextmanager
def damage_named(name: str) -> Generator[None, None, None]:
    """Name a file that is not gzip, or not all of it.

    Raises:
        InvalidRequest: Reading inside the block fails for that reason.
    """
    try:
        yield
    except gzip.BadGzipFile as exc:
        raise InvalidRequest(f"{name} is not compressed by gzip: rename it without .gz") from exc
    except (EOFError, zlib.error) as exc:
        raise InvalidRequest(f"{name} is damaged or cut off ({exc}): copy it again") from exc
