"""Where the answers of `classify` go: stdout, or a file that is complete or not there."""

import argparse
import contextlib
import gzip
import io
import json
import os
import shutil
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO, cast

from ..errors import InvalidRequest
from .rendering import CommaSeparated, JsonLines, Renderer, Table, TabSeparated

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

JSONL, TSV, CSV = FORMATS = ("jsonl", "tsv", "csv")
_ENDINGS = {".jsonl": JSONL, ".ndjson": JSONL, ".tsv": TSV, ".csv": CSV}
_GZIP = ".gz"
_STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


class Answers(Protocol):
    """An open output.

    Attributes:
        n_done: The rows that an earlier run has answered.
        rejects: How many rows were left out.
    """

    n_done: int
    rejects: int

    def write(self, line: str) -> None:
        """Write the line of one answer."""
        ...

    def flush(self) -> None:
        """Let readers see all lines."""
        ...

    def reject(self, problem: dict[str, Any]) -> None:
        """Note a row that is left out."""
        ...


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --output, --output-format, --json, --overwrite and --resume."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output",
        type=Path,
        metavar="OUT",
        help="write the answers to this .jsonl, .tsv or .csv file, which may be compressed (.gz); "
        "- is stdout (default: stdout)",
    )
    group.add_argument(
        "--output-format",
        choices=FORMATS,
        help="format of the answers (default: what the ending of OUT tells; a table on stdout)",
    )
    group.add_argument("--json", action="store_true", help="print one JSON object per row")
    group.add_argument(
        "--overwrite", action="store_true", help="replace OUT, or the rest of a run that failed"
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="continue a run to OUT that did not end, with the same input and settings",
    )


def path_of_output(args: argparse.Namespace) -> Path | None:
    """The path of --output; None for stdout.

    Raises:
        InvalidRequest: An option needs a file.
    """
    to_stdout = args.output is None or str(args.output) in _STDOUT
    if to_stdout and (args.overwrite or args.resume):
        option = "--overwrite" if args.overwrite else "--resume"
        raise InvalidRequest(f"{option} is for a file of answers: give --output OUT too")
    return None if to_stdout else args.output


def renderer_of_output(args: argparse.Namespace) -> Renderer:
    """Return what turns answers into the lines of the output.

    Raises:
        InvalidRequest: The output's name does not tell its format, or --json contradicts it.
    """
    path = path_of_output(args)
    kind: str | None = args.output_format
    if kind is None and args.json:
        kind = JSONL
    if path is not None:
        suffixes = [suffix.lower() for suffix in path.suffixes]
        if suffixes[-1:] == [_GZIP]:
            suffixes.pop()
        named = _ENDINGS.get(suffixes[-1]) if suffixes else None
        if kind is None and named is None:
            raise InvalidRequest(
                f"--output {path} ends in none of {', '.join(_ENDINGS)}: rename it, or give "
                f"--output-format {'|'.join(FORMATS)}"
            )
        if args.output_format is None and named is not None:
            kind = named
    if args.json and kind != JSONL:
        where = f"--output {path}" if args.output_format is None else f"--output-format {kind}"
        raise InvalidRequest(f"--json and {where}: name it .jsonl, or drop one")
    match kind:
        case "jsonl":
            return JsonLines(ascii_only=path is None)
        case "tsv":
            return TabSeparated()
        case "csv":
            return CommaSeparated()
        case _:
            on_terminal = sys.stdout.isatty()
            return Table(shutil.get_terminal_size().columns if on_terminal else None)


@contextlib.contextmanager
def open_output(
    args: argparse.Namespace, renderer: Renderer, settings: Mapping[str, Any]
) -> Generator[Answers, None, None]:
    """Open the output of the answers.

    Args:
        args: The arguments of `add_output_arguments`.
        renderer: Makes its lines.
        settings: What a run must have in common with the run that it continues.

    Raises:
        InvalidRequest: The file exists, or another run writes it, or it cannot be continued.
    """
    path = path_of_output(args)
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # If the terminal cannot show a character, print its escape instead of failing.
            sys.stdout.reconfigure(errors="backslashreplace")
        yield _started(_Stream(sys.stdout), renderer)
    elif path.exists() and not path.is_file():  # a named pipe, or a device
        if args.resume:
            raise InvalidRequest(f"--resume: {path} is not a file on disk: drop it")
        with path.open("w", encoding="utf-8", newline="\n") as stream:
            yield _started(_Stream(stream), renderer)
    else:
        yield from _file_answers(args, path, renderer, settings)


class _Stream:
    """Answers to a stream that cannot be taken back. Rejected rows are named on stderr."""

    def __init__(self, stream: TextIO):
        self.n_done = 0
        self.rejects = 0
        self._stream = stream

    def write(self, line: str) -> None:
        self._stream.write(line)

    def flush(self) -> None:
        self._stream.flush()

    def reject(self, problem: dict[str, Any]) -> None:
        self.rejects += 1
        print(f"cascadebert classify: skipped: {problem['problem']}", file=sys.stderr)


def _started(stream: _Stream, renderer: Renderer) -> _Stream:
    stream.write(renderer.header())
    return stream


class _FileAnswers(_Stream):
    """Answers to a file, and the rejected rows to a file beside it."""

    def __init__(self, stream: TextIO, n_done: int, rejects_path: Path):
        super().__init__(stream)
        self.n_done = n_done
        self.n_written = 0
        self._rejects_path = rejects_path
        self._rejects: TextIO | None = None

    def write(self, line: str) -> None:
        self._stream.write(line)
        self.n_written += 1

    def reject(self, problem: dict[str, Any]) -> None:
        self.rejects += 1
        if self._rejects is None:
            self._rejects = self._rejects_path.open("w", encoding="utf-8", newline="\n")
        self._rejects.write(f"{json.dumps(problem, ensure_ascii=False)}\n")

    def close(self) -> None:
        if self._rejects is not None:
            self._rejects.close()


def rejects_path(path: Path) -> Path:
    """The file of the rows that are left out of an output."""
    return path.with_name(f"{path.name}.rejects.jsonl")


def require_apart(source: Path | None, args: argparse.Namespace) -> None:
    """Refuse an output that would destroy its input.

    Raises:
        InvalidRequest: They are one file.
    """
    path = path_of_output(args)
    if source is None or path is None:
        return
    for each in (path, _partial(path), _record(path), rejects_path(path)):
        if each.exists() and source.samefile(each):
            raise InvalidRequest(f"--output would replace its input {each}: give another name")


def _file_answers(
    args: argparse.Namespace, path: Path, renderer: Renderer, settings: Mapping[str, Any]
) -> Iterator[_FileAnswers]:
    partial = _partial(path)
    raw = _locked(path)
    answers: _FileAnswers | None = None
    n_done = 0
    complete = bad_row = False
    try:
        if path.exists() and not args.overwrite:
            raise InvalidRequest(f"{path} exists: --overwrite replaces it, or give another name")
        if raw.seek(0, os.SEEK_END):
            n_done = _continued(args, path, raw, renderer, settings)
        else:
            _record(path).write_text(json.dumps(settings), encoding="utf-8")
        rejects_path(path).unlink(missing_ok=True)
        with _text_stream(path, raw) as stream:
            answers = _FileAnswers(stream, n_done, rejects_path(path))
            try:
                if not n_done:
                    stream.write(renderer.header())
                yield answers
            finally:
                answers.close()
        raw.flush()
        partial.replace(path)
        complete = True
        _record(path).unlink(missing_ok=True)
    except InvalidRequest as exc:
        bad_row = exc.row is not None
        raise
    finally:
        if not complete:
            n_written = 0 if answers is None else answers.n_written
            how = None
            if settings.get("input") is not None:  # it can be read again
                # The same command would meet the row that ended this run again.
                how = "--resume --on-invalid skip" if bad_row else "--resume"
            _left(path, raw, n_done + n_written, how, refused=answers is None)
        with contextlib.suppress(OSError):  # a full disk: its error is on its way already
            raw.close()


def _left(path: Path, raw: BinaryIO, n_rows: int, how: str | None, *, refused: bool) -> None:
    """Tell what a run leaves behind; nothing if it has no answers.

    Args:
        path: The output.
        raw: The answers so far.
        n_rows: How many there are.
        how: The options that continue the run; None if it cannot be continued.
        refused: Whether the run has not begun, because of what an earlier one has left.
    """
    partial = _partial(path)
    if refused and raw.seek(0, os.SEEK_END):
        return  # the answers of an earlier run
    if n_rows:
        rest = "" if how is None else f": the same command with {how} continues"
        print(f"cascadebert classify: the answers so far are in {partial}{rest}", file=sys.stderr)
    else:
        partial.unlink(missing_ok=True)
        _record(path).unlink(missing_ok=True)


def _locked(path: Path) -> BinaryIO:
    """Open the file of the answers so far, for this run alone.

    Raises:
        InvalidRequest: Another run has it.
    """
    partial = _partial(path)
    while True:
        raw = cast("BinaryIO", partial.open("a+b"))
        try:
            if fcntl is not None:
                fcntl.flock(raw, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raw.close()
            raise InvalidRequest(
                f"another run writes {path}: wait until it ends, or give another name"
            ) from exc
        # A run that ended just now has given this file its final name, or has removed it.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(partial.stat(), os.fstat(raw.fileno())):
                return raw
        raw.close()


def _continued(
    args: argparse.Namespace,
    path: Path,
    raw: BinaryIO,
    renderer: Renderer,
    settings: Mapping[str, Any],
) -> int:
    """Prepare the answers of an earlier run, and return how many are kept.

    Raises:
        InvalidRequest: They are in the way, or cannot be continued.
    """
    partial = _partial(path)
    if not args.resume:
        if not args.overwrite:
            raise InvalidRequest(
                f"{partial} has the answers of a run that did not end: --resume continues it, "
                "--overwrite starts again"
            )
        raw.truncate(0)
        _record(path).write_text(json.dumps(settings), encoding="utf-8")
        return 0
    try:
        before = json.loads(_record(path).read_text(encoding="utf-8"))
        different = [name for name in settings if before.get(name) != settings[name]]
    except (OSError, ValueError, AttributeError) as exc:
        raise InvalidRequest(
            f"{_record(path)} cannot be read, so the run cannot be continued: start again with "
            "--overwrite"
        ) from exc
    if different:
        name = different[0]
        was = (
            f"another {name}"
            if name == "input"
            else f"{name} {before.get(name)!r}, not {settings[name]!r}"
        )
        raise InvalidRequest(
            f"{partial} has the answers of a run with {was}: --resume needs the same, and "
            "--overwrite starts again"
        )
    quoted = isinstance(renderer, CommaSeparated)
    raw.seek(0)
    if path.suffix.lower() == _GZIP:
        try:
            with gzip.GzipFile(fileobj=raw, mode="rb") as stream:
                n_records, _ = _whole_records(stream, quoted=quoted)
        except (OSError, EOFError) as exc:
            raise InvalidRequest(
                f"{partial} is damaged ({exc}), as a run that was killed leaves it: start again "
                "with --overwrite"
            ) from exc
    else:
        n_records, size = _whole_records(raw, quoted=quoted)
        raw.truncate(size)
    n_done = n_records - bool(renderer.header())
    if n_done <= 0:
        raw.truncate(0)
    raw.seek(0, os.SEEK_END)
    return max(0, n_done)


def _whole_records(stream: Iterable[bytes], *, quoted: bool) -> tuple[int, int]:
    """Count the complete records of an output, and the bytes that they take.

    Args:
        stream: The output.
        quoted: Whether it is CSV, where a line end inside quotes ends no record.
    """
    count = size = end = quotes = 0
    for line in stream:
        size += len(line)
        quotes += line.count(b'"') if quoted else 0
        if line.endswith(b"\n") and quotes % 2 == 0:
            count, end = count + 1, size
    return count, end


@contextlib.contextmanager
def _text_stream(path: Path, raw: BinaryIO) -> Generator[TextIO, None, None]:
    binary: Any = raw
    if path.suffix.lower() == _GZIP:
        binary = gzip.GzipFile(filename="", fileobj=raw, mode="ab", mtime=0)
    stream = io.TextIOWrapper(binary, encoding="utf-8", newline="\n")
    try:
        yield stream
    finally:
        stream.flush()
        stream.detach()
        if binary is not raw:
            binary.close()


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial.json")
