"""Where the rows of `classify` come from: the command line, a file, or stdin."""

import argparse
import contextlib
import gzip
import hashlib
import json
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from .._files.formats import CSV, JSONL, TSV, format_of_name, is_gzip
from .._files.messages import did_you_mean
from .._rows import Row, RowEncoder
from ..errors import GIVE_NO_PAIRS, GIVE_PAIRS, InvalidRequest
from ..sources import FORMATS, CheckedRow, checked_rows_from_file, checked_rows_from_lines
from .polled_stream import PolledStream, buffered, is_slow

STDIN = "-"

_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Source:
    """The rows of a run.

    Attributes:
        rows: The rows, with their lines.
        path: The file on disk that they are read from; None for other sources.
        stop: Ends a wait for the next row. None if the rows are there from the start.
    """

    rows: Iterator[CheckedRow]
    path: Path | None = None
    stop: Callable[[], None] | None = None


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Add TEXT, --pair, --pairs, --file, --format, --text, --text-pair and --on-invalid."""
    group = parser.add_argument_group("input")
    group.add_argument("texts", nargs="*", metavar="TEXT", help="a text to classify; - is stdin")
    group.add_argument(
        "--pair", nargs="+", metavar="TEXT", help="the second text of each TEXT, in order"
    )
    group.add_argument(
        "--pairs", action="store_true", help="read text pairs from stdin, separated by a tab"
    )
    group.add_argument(
        "--file",
        type=Path,
        metavar="FILE",
        help="a .tsv, .csv, .jsonl, .json or .parquet file, which may be compressed (.gz); - is "
        "stdin, with --format",
    )
    group.add_argument(
        "--format",
        choices=FORMATS,
        help="the file's format (default: what its ending tells)",
    )
    group.add_argument(
        "--text", metavar="COLUMN", help="the file's column with the text (default: text)"
    )
    group.add_argument(
        "--text-pair", metavar="COLUMN", help="the file's column with the second text of a pair"
    )
    group.add_argument(
        "--on-invalid",
        choices=("fail", "skip"),
        default="fail",
        help="a row that cannot be classified, such as an empty one, ends the run, or is left out "
        "and listed in OUT.rejects.jsonl, or on stderr without --output (default: %(default)s)",
    )


def require_one_source(args: argparse.Namespace) -> None:
    """Refuse two sources of rows, and options that belong to another source.

    Raises:
        InvalidRequest: The arguments contradict each other.
    """
    if args.texts and args.file is not None:
        raise InvalidRequest("both TEXT and --file are given: give one of them")
    if args.texts == [STDIN]:
        args.texts = []
        if args.pair is not None:
            raise InvalidRequest("--pair is for TEXT: use --pairs with stdin")
    if args.file is None and (args.text is not None or args.text_pair is not None):
        raise InvalidRequest("--text and --text-pair name columns of a file: give --file too")
    if args.file is None and args.format is not None:
        raise InvalidRequest("--format is the format of a file: give --file too (- is stdin)")
    if args.pairs and (args.texts or args.file is not None):
        raise InvalidRequest("--pairs is for stdin: use --pair with TEXT, --text-pair with --file")
    if args.pair is not None and len(args.pair) != len(args.texts):
        raise InvalidRequest(
            f"{len(args.texts)} TEXT, but {len(args.pair)} after --pair: give one for each"
        )
    if str(args.file) == STDIN and args.format is None:
        raise InvalidRequest(
            f"--file - has no ending: give --format {'|'.join(FORMATS)}, or leave --file out to "
            "read one text per line"
        )


@contextlib.contextmanager
def naming_pair_options(args: argparse.Namespace) -> Generator[None, None, None]:
    """Name the options of this command if the cascade wants pairs, or none.

    Raises:
        InvalidRequest: The block raises it.
    """
    try:
        yield
    except InvalidRequest as exc:
        wants, has = ("--pair TEXT for each TEXT", "--pair")
        if args.file is not None:
            wants, has = ("--text-pair COLUMN", "--text-pair")
        elif not args.texts:
            wants, has = ("--pairs, and lines of text, tab, second text", "--pairs")
        given = str(exc)
        text = given.replace(GIVE_PAIRS, f"give {wants}")
        text = text.replace(GIVE_NO_PAIRS, f"leave {has} out")
        if text == given:
            raise
        raise InvalidRequest(text, target=exc.target, row=exc.row) from exc


@contextlib.contextmanager
def open_source(args: argparse.Namespace) -> Generator[Source, None, None]:
    """Open the source of the rows.

    Raises:
        InvalidRequest: The file does not exist, or cannot be read as what it should be.
    """
    if args.texts:
        pairs: list[Any] = args.texts
        if args.pair is not None:
            pairs = list(zip(args.texts, args.pair, strict=True))
        yield Source(_rows_of_arguments(pairs))
        return
    with contextlib.ExitStack() as resources:
        path: Path | None = args.file
        if path is None or str(path) == STDIN:
            path, name, stream = None, "stdin", sys.stdin.buffer
        else:
            name = str(path)
            try:
                stream = resources.enter_context(path.open("rb"))
            except FileNotFoundError as exc:
                beside = [each.name for each in path.parent.glob("*") if each.is_file()]
                raise InvalidRequest(
                    f"{path} does not exist: {did_you_mean(path.name, beside)}check the path after "
                    "--file"
                ) from exc
        stop: Callable[[], None] | None = None
        if is_slow(stream):
            path = None
            polled = resources.enter_context(PolledStream(stream.fileno()))
            stream, stop = buffered(polled), polled.stop
        if name == "stdin":
            stream = _decompressed(stream)
        if args.file is None:
            rows = checked_rows_from_lines(stream, name, pairs=args.pairs)
        else:
            column = "text" if args.text is None else args.text
            rows = checked_rows_from_file(stream, name, column, args.text_pair, args.format)
        yield Source(rows, path, stop)


def valid_rows(
    rows: Iterator[CheckedRow], reject: Callable[[dict[str, Any]], None] | None
) -> Iterator[tuple[int, Row]]:
    """Yield the rows that can be classified, each with its index among all rows, from 0.

    Args:
        rows: The rows of a source.
        reject: Takes the `row`, the `line` and the `problem` of each row that is left out. None
            fails at the first.

    Raises:
        InvalidRequest: A row is wrong, and `reject` is None.
    """
    for index, (line, row) in enumerate(rows):
        if not isinstance(row, InvalidRequest):
            yield index, row
        elif reject is None:
            raise InvalidRequest(f"{row}, or give --on-invalid skip", row=index) from row
        else:
            reject({"row": index, "line": line, "problem": str(row)})


def fingerprint(args: argparse.Namespace, source: Source) -> str | None:
    """A hash of all input; None if it can be read only once."""
    if args.texts:
        digest = hashlib.blake2b(json.dumps([args.texts, args.pair]).encode(), digest_size=16)
        return digest.hexdigest()
    if source.path is None:
        return None
    digest = hashlib.blake2b(digest_size=16)
    with source.path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def count_lines(path: Path, file_format: str | None) -> int | None:
    """Estimate the rows of a file: count its lines, without the header.

    None if its lines are not rows.
    """
    kind = file_format or format_of_name(str(path))
    if kind not in {TSV, CSV, JSONL} or is_gzip(str(path)):
        return None
    with path.open("rb") as stream:
        lines = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    return lines - (kind != JSONL)


def _rows_of_arguments(rows: list[Row]) -> Iterator[CheckedRow]:
    encoder = RowEncoder()
    for number, row in enumerate(rows, start=1):
        try:
            encoder.encode(row)
        except InvalidRequest as exc:
            yield number, exc
        else:
            yield number, row


def _decompressed(stream: BinaryIO) -> BinaryIO:
    """Decompress a stream that begins like gzip."""
    peek = getattr(stream, "peek", None)  # a stream of a test may not have it
    if peek is None or peek(2)[:2] != _GZIP_MAGIC:
        return stream
    return cast("BinaryIO", gzip.GzipFile(fileobj=stream))
