"""`cascadebert classify`: classify texts with a served cascade."""

import argparse
import contextlib
import io
import shutil
import sys
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from .._base import DEFAULT_CONCURRENCY, DEFAULT_ROWS_PER_REQUEST
from .._files.formats import CSV, JSONL, TSV, format_of_name, is_gzip
from .._rows import Row
from .._traffic import BY, BY_REQUEST
from .._types import Classification
from ..errors import InvalidRequest
from ..sources import FORMATS, rows_from_file, rows_from_lines
from .exit_codes import DONE
from .rendering import JsonLines, Renderer, Table, TabSeparated
from .server_arguments import Subparsers, add_connection_arguments, client_from_arguments
from .thresholds import threshold_from_text

DEFAULT_TIMEOUT_S = 30.0


def add_classify_parser(subparsers: Subparsers) -> None:
    """Add the `classify` command."""
    parser = subparsers.add_parser(
        "classify",
        help="classify texts with a served cascade",
        description="Classify texts from the command line, a file or stdin (one per line).",
    )
    parser.set_defaults(run=_classify)
    _add_input_arguments(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="OUT",
        help="write the answers to this .jsonl or .tsv file (default: stdout)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per row")
    add_connection_arguments(parser)
    _add_request_arguments(parser)


def _add_input_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a text to classify")
    parser.add_argument(
        "--pair", nargs="+", metavar="TEXT", help="the second text of each TEXT, in order"
    )
    parser.add_argument(
        "--pairs", action="store_true", help="read text pairs from stdin, separated by a tab"
    )
    parser.add_argument(
        "--file",
        type=Path,
        metavar="FILE",
        help="a .tsv, .csv, .jsonl, .json or .parquet file, which may be compressed (.gz)",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="the file's format (default: what its ending tells)",
    )
    parser.add_argument(
        "--text", metavar="COLUMN", help="the file's column with the text (default: text)"
    )
    parser.add_argument(
        "--text-pair", metavar="COLUMN", help="the file's column with the second text of a pair"
    )


def _add_request_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--traffic",
        action="append",
        default=[],
        metavar="VERSION=SHARE",
        help="send this share of the traffic (0 to 1) to another version, and the rest to "
        "--model-version; may be repeated",
    )
    parser.add_argument(
        "--traffic-by",
        choices=BY,
        default=BY_REQUEST,
        help="draw a version for each request, or choose it by the text so that equal texts "
        "get the same version (default: %(default)s)",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--operating-point", metavar="NAME", help="use the thresholds of this name")
    choice.add_argument(
        "--threshold",
        type=threshold_from_text,
        metavar="P[,P…]",
        help="exit if the confidence is above P (0 to 1): one number for all stages that may "
        "defer, or one for each",
    )
    choice.add_argument(
        "--stage", type=int, metavar="N", help="use only this stage (0 is the first)"
    )
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        metavar="S",
        help="time limit of a request, in seconds (default: %(default)g)",
    )
    parser.add_argument(
        "--concurrency",
        type=int,
        metavar="N",
        help=f"requests in flight (default: {DEFAULT_CONCURRENCY}, or 1 if you type the texts)",
    )
    parser.add_argument(
        "--rows-per-request",
        type=int,
        metavar="N",
        help=f"rows per request (default: {DEFAULT_ROWS_PER_REQUEST}, or 1 if you type the texts)",
    )


def _classify(args: argparse.Namespace) -> int:
    _require_one_source(args)
    renderer = _renderer(args)
    typed = not args.texts and args.file is None and sys.stdin.isatty()
    if typed:
        print("Type one text per line; end with Ctrl-D.", file=sys.stderr)
    with contextlib.ExitStack() as resources:
        rows = _rows(args, resources)
        client = resources.enter_context(
            client_from_arguments(args, traffic=_shares(args), traffic_by=args.traffic_by)
        )
        in_flight: deque[Row] = deque()
        answers = client.classify_stream(
            _remembered(rows, in_flight),
            # A person who types waits for each answer.
            rows_per_request=_given(
                args.rows_per_request, 1 if typed else DEFAULT_ROWS_PER_REQUEST
            ),
            max_concurrency=_given(args.concurrency, 1 if typed else DEFAULT_CONCURRENCY),
            operating_point=args.operating_point,
            threshold=args.threshold,
            stage=args.stage,
            timeout_s=args.timeout_s,
        )
        resources.callback(answers.close)
        output = resources.enter_context(_output(args.output, renderer.header()))
        exit_stages: Counter[int] = Counter()
        for index, answer in enumerate(_with_progress(answers, args)):
            output.write(f"{renderer.line(index, in_flight.popleft(), answer)}\n")
            exit_stages[answer.exit_stage] += 1
    if args.output is not None:
        print(_summary(exit_stages, args.output), file=sys.stderr)
    return DONE


def _require_one_source(args: argparse.Namespace) -> None:
    """Refuse two sources of rows, and options that belong to another source."""
    if args.texts and args.file is not None:
        raise InvalidRequest("both TEXT and --file are given: give one of them")
    if args.file is None and (args.text is not None or args.text_pair is not None):
        raise InvalidRequest("--text and --text-pair name columns of a file: give --file too")
    if args.file is None and args.format is not None:
        raise InvalidRequest("--format is the format of a file: give --file too")
    if args.pairs and (args.texts or args.file is not None):
        raise InvalidRequest("--pairs is for stdin: use --pair with TEXT, --text-pair with --file")
    if args.pair is not None and len(args.pair) != len(args.texts):
        raise InvalidRequest(
            f"{len(args.texts)} TEXT, but {len(args.pair)} after --pair: give one for each"
        )


def _rows(args: argparse.Namespace, resources: contextlib.ExitStack) -> Iterable[Row]:
    if args.texts:
        return args.texts if args.pair is None else list(zip(args.texts, args.pair, strict=True))
    if args.file is None:
        return rows_from_lines(sys.stdin.buffer, "stdin", pairs=args.pairs)
    try:
        stream = resources.enter_context(args.file.open("rb"))
    except FileNotFoundError as exc:
        raise InvalidRequest(f"{args.file} does not exist: check the path after --file") from exc
    return rows_from_file(
        stream, str(args.file), _given(args.text, "text"), args.text_pair, args.format
    )


def _shares(args: argparse.Namespace) -> dict[str, float] | None:
    """Return the shares of --traffic, by version."""
    shares: dict[str, float] = {}
    given: list[str] = args.traffic
    for each in given:
        version, _, text = each.partition("=")
        try:
            share = float(text)
        except ValueError:
            raise InvalidRequest(
                f"--traffic {each!r} is not VERSION=SHARE: give, for example, 2=0.1 for a tenth"
            ) from None
        if version in shares:
            raise InvalidRequest(f"--traffic names version {version} twice: give it one share")
        shares[version] = share
    return shares or None


def _renderer(args: argparse.Namespace) -> Renderer:
    if args.output is None:
        if args.json:
            return JsonLines(ascii_only=True)
        on_terminal = sys.stdout.isatty()
        return Table(shutil.get_terminal_size().columns if on_terminal else None)
    match args.output.suffix.lower():
        case ".jsonl":
            return JsonLines(ascii_only=False)
        case ".tsv" if not args.json:
            return TabSeparated()
        case ".tsv":
            raise InvalidRequest(f"--json and --output {args.output}: name it .jsonl, or drop one")
        case _:
            raise InvalidRequest(f"--output {args.output} is neither .jsonl nor .tsv: rename it")


@contextlib.contextmanager
def _output(path: Path | None, header: str) -> Generator[TextIO, None, None]:
    """Open the output of the answers. A file gets its name only when it is complete."""
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # If the terminal cannot show a character, print its escape instead of failing.
            sys.stdout.reconfigure(errors="backslashreplace")
        stream: TextIO = sys.stdout
        stream.write(header)
        yield stream
        return
    partial = path.with_name(f"{path.name}.partial")
    complete = False
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(header)
            yield stream
        partial.replace(path)
        complete = True
    finally:
        if not complete:
            print(f"cascadebert classify: the answers so far are in {partial}", file=sys.stderr)


def _remembered(rows: Iterable[Row], in_flight: deque[Row]) -> Iterator[Any]:
    """Yield the rows, and keep each until its answer comes."""
    for row in rows:
        in_flight.append(row)
        yield row


def _with_progress(
    answers: Iterable[Classification], args: argparse.Namespace
) -> Iterable[Classification]:
    """Show a progress bar on a terminal, unless the answers are printed there."""
    hidden = not sys.stderr.isatty() or (args.output is None and sys.stdout.isatty())
    total = None if hidden or args.file is None else _count_lines(args.file, args.format)
    return tqdm(answers, total=total, unit="row", disable=hidden, file=sys.stderr)


def _count_lines(path: Path, file_format: str | None) -> int | None:
    """Estimate the rows of a file: count its lines, without the header.

    None if its lines are not rows.
    """
    kind = file_format or format_of_name(str(path))
    if kind not in {TSV, CSV, JSONL} or is_gzip(str(path)):
        return None
    with path.open("rb") as stream:
        lines = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    return lines - (kind != JSONL)


def _summary(exit_stages: Counter[int], path: Path) -> str:
    n_rows = exit_stages.total()
    shares = ", ".join(
        f"{count} at stage {stage} ({count / n_rows:.1%})"
        for stage, count in sorted(exit_stages.items())
    )
    rows = "1 row" if n_rows == 1 else f"{n_rows} rows"
    return f"{rows} to {path}" + (f": exits {shares}" if shares else "")


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value
