"""`cascadebert classify`, `cascadebert status` and `cascadebert audit`.

The exit codes are those of `exit_codes`. Of `audit`, 1 means that a guarantee is broken and nothing
else: without a server or audits it ends with 2.
"""

import argparse
import contextlib
import io
import shutil
import sys
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from tqdm import tqdm

from cascadebert_core.guarantee import DEFAULT_CONFIDENCE, DISAGREEMENT, Guarantee

from .._audit import audit_of_point, counts_from_samples, guarantees_from_parameters, is_broken
from .._metrics_text import fetch_metrics, metrics_url, samples_from_text
from .._requests import Row
from .._sync import (
    DEFAULT_CONCURRENCY,
    DEFAULT_ROWS_PER_REQUEST,
    DEFAULT_STATUS_TIMEOUT_S,
    CascadeClient,
)
from .._traffic import BY, BY_REQUEST
from ..errors import CascadeClientError, InvalidRequest
from ..sources import rows_from_file, rows_from_lines
from .exit_codes import DONE, FAILED, WRONG_USE, run_command
from .rendering import (
    JsonLines,
    Renderer,
    Table,
    TabSeparated,
    audit_json,
    audit_text,
    status_json,
    status_text,
)
from .server_arguments import (
    add_server_arguments,
    credentials_from_arguments,
    headers_from_arguments,
)

DEFAULT_TIMEOUT_S = 30.0


class Subparsers(Protocol):
    """What `ArgumentParser.add_subparsers` returns; argparse keeps its class to itself."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser:
        """Add the parser of one command."""
        ...


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which cascade, and where."""
    add_server_arguments(parser)
    parser.add_argument(
        "--model", default="cascade", metavar="NAME", help="the cascade (default: %(default)s)"
    )
    parser.add_argument(
        "--model-version", metavar="VERSION", help="its version (default: the server chooses)"
    )


def add_classify_parser(subparsers: Subparsers) -> None:
    """Add the `classify` command; its handler is in the parsed arguments as `run`."""
    parser = subparsers.add_parser(
        "classify",
        help="classify texts with a served cascade",
        description="Classify texts given as arguments, in a file, or one per line on stdin.",
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a text to classify")
    parser.add_argument(
        "--pair",
        nargs="+",
        metavar="TEXT",
        help="the second texts of pairs, one for each TEXT, in order",
    )
    parser.add_argument("--pairs", action="store_true", help="stdin has text, tab, pair per line")
    parser.add_argument("--file", type=Path, metavar="FILE", help="a .tsv, .csv or .jsonl file")
    parser.add_argument(
        "--text", metavar="COLUMN", help="column of the text in the file (default: text)"
    )
    parser.add_argument("--text-pair", metavar="COLUMN", help="column of the pair in the file")
    parser.add_argument(
        "--output", type=Path, metavar="OUT", help="write to a .jsonl or .tsv file, not to stdout"
    )
    add_connection_arguments(parser)
    parser.add_argument(
        "--traffic",
        action="append",
        default=[],
        metavar="VERSION=SHARE",
        help="send this share of the traffic (0 to 1) to another version (may be repeated); the "
        "rest goes to --model-version",
    )
    parser.add_argument(
        "--traffic-by",
        choices=BY,
        default=BY_REQUEST,
        help="draw a version for each request, or choose it by the text, so that equal texts have "
        "one (default: %(default)s)",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--operating-point", metavar="NAME", help="a named set of thresholds of the policy"
    )
    choice.add_argument(
        "--threshold", type=float, metavar="P", help="exit when the confidence is above P (0 to 1)"
    )
    choice.add_argument(
        "--stage", type=int, metavar="N", help="let this stage alone answer (0 is the first)"
    )
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        metavar="S",
        help="seconds that a request may take (default: %(default)g)",
    )
    parser.add_argument(
        "--concurrency",
        type=int,
        metavar="N",
        help=f"requests in flight (default: {DEFAULT_CONCURRENCY}, or 1 for typed input)",
    )
    parser.add_argument(
        "--rows-per-request",
        type=int,
        metavar="N",
        help=f"rows in a request (default: {DEFAULT_ROWS_PER_REQUEST}, or 1 for typed input)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per row")
    parser.set_defaults(run=_classify)


def add_status_parser(subparsers: Subparsers) -> None:
    """Add the `status` command; its handler is in the parsed arguments as `run`."""
    parser = subparsers.add_parser(
        "status",
        help="show whether a server and its cascade are ready",
        description="Show a server, its cascade and their counters. Exit code 1: not ready.",
    )
    add_connection_arguments(parser)
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=DEFAULT_STATUS_TIMEOUT_S,
        metavar="S",
        help="seconds to wait for the answers (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_status)


def add_audit_parser(subparsers: Subparsers) -> None:
    """Add the `audit` command; its handler is in the parsed arguments as `run`."""
    parser = subparsers.add_parser(
        "audit",
        help="say whether a served cascade still keeps its promise",
        description=(
            "Read how often the answers of a served cascade were not its last stage's, and test "
            "the promise of every operating point. You may look as often as you like: the test "
            "allows for it. Exit code 0: the promises hold or it cannot be told yet, "
            "1: one is broken, 2: the server cannot be reached or audits nothing."
        ),
    )
    add_connection_arguments(parser)
    parser.add_argument(
        "--metrics-url",
        metavar="URL",
        help="the server's metrics (default: port 8002 of the host of --url)",
    )
    parser.add_argument(
        "--max-disagreement",
        type=float,
        metavar="P",
        help="test that at most this share of the rows (0 to 1) is answered otherwise than by the "
        "last stage (default: what the model's configuration promises)",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        metavar="P",
        help=f"of that test (default: {DEFAULT_CONFIDENCE})",
    )
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=DEFAULT_STATUS_TIMEOUT_S,
        metavar="S",
        help="seconds to wait for each answer (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    # 1 is an alarm, which a server that is down must not raise.
    parser.set_defaults(run=_audit, exit_codes={CascadeClientError: WRONG_USE})


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m cascadebert_client.cli`, for where only the client is installed."""
    parser = argparse.ArgumentParser(
        prog="cascadebert", description="Call a cascade served by Triton."
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add_classify_parser(subparsers)
    add_status_parser(subparsers)
    add_audit_parser(subparsers)
    return run_command(parser.parse_args(argv))


def _status(args: argparse.Namespace) -> int:
    with _client(args) as client:
        status = client.status(timeout_s=args.timeout_s)
    print(status_json(status) if args.json else status_text(status))
    return DONE if status.serving else FAILED


def _audit(args: argparse.Namespace) -> int:
    given = _given_guarantee(args)
    counts = counts_from_samples(
        samples_from_text(
            fetch_metrics(args.metrics_url or metrics_url(args.url), args.timeout_s),
            "cascadebert_audit",
        ),
        args.model,
    )
    if not counts:
        raise InvalidRequest(
            f"nothing is audited of a model {args.model!r} there: check the name, and that its "
            "policy's audit_rate is above 0 ([runtime] audit_rate in cascade.toml, then "
            "`cascadebert publish`)"
        )
    guarantees = {} if given is not None else _served_guarantees(args)
    points = [
        audit_of_point(point, policy, found, given or guarantees.get(point))
        for (policy, point), found in counts.items()
    ]
    print(audit_json(args.model, points) if args.json else audit_text(args.model, points))
    return FAILED if is_broken(points) else DONE


def _given_guarantee(args: argparse.Namespace) -> Guarantee | None:
    """Return the promise on the command line, if there is one."""
    for name in ("max_disagreement", "confidence", "timeout_s"):
        value: float | None = getattr(args, name)
        most = 1.0 if name != "timeout_s" else float("inf")
        if value is not None and not 0 < value < most:  # true for NaN too
            limits = "above 0" + (" and below 1" if most == 1 else "")
            raise InvalidRequest(f"--{name.replace('_', '-')} is {value}: give a number {limits}")
    if args.max_disagreement is None:
        if args.confidence is not None:
            raise InvalidRequest("--confidence is given: give --max-disagreement, too")
        return None
    return Guarantee(
        DISAGREEMENT, args.max_disagreement, _given(args.confidence, DEFAULT_CONFIDENCE)
    )


def _served_guarantees(args: argparse.Namespace) -> dict[str, Guarantee]:
    """Return what the model's configuration promises."""
    with _client(args) as client:
        guarantees = guarantees_from_parameters(client.model_parameters(timeout_s=args.timeout_s))
    if not guarantees:
        raise InvalidRequest(
            f"the configuration of {args.model!r} promises nothing: give --max-disagreement and "
            "--confidence"
        )
    return guarantees


def _classify(args: argparse.Namespace) -> int:
    _require_one_source(args)
    renderer = _renderer(args)
    typed = not args.texts and args.file is None and sys.stdin.isatty()
    if typed:
        print("Type one text per line; end with Ctrl-D.", file=sys.stderr)
    with contextlib.ExitStack() as resources:
        rows = _rows(args, resources)
        client = resources.enter_context(
            _client(args, traffic=_shares(args), traffic_by=args.traffic_by)
        )
        in_flight: deque[Row] = deque()
        answers = client.classify_stream(
            _remembered(rows, in_flight),
            # Someone who types waits for each answer.
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


def _client(args: argparse.Namespace, **options: Any) -> CascadeClient:
    return CascadeClient(
        args.url,
        args.model,
        args.model_version,
        headers=headers_from_arguments(args),
        credentials=credentials_from_arguments(args),
        **options,
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
                f"--traffic {each!r} is not VERSION=SHARE: give 2=0.1, say, for a tenth"
            ) from None
        if version in shares:
            raise InvalidRequest(f"--traffic names version {version} twice: give it one share")
        shares[version] = share
    return shares or None


def _require_one_source(args: argparse.Namespace) -> None:
    """Refuse options that belong to another source of rows than the one that is used."""
    if args.texts and args.file is not None:
        raise InvalidRequest("both TEXT and --file are given: give one of them")
    if args.file is None and (args.text is not None or args.text_pair is not None):
        raise InvalidRequest("--text and --text-pair name columns of a file: give --file too")
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
    return rows_from_file(stream, str(args.file), _given(args.text, "text"), args.text_pair)


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
    """Open where the answers go. A file appears under its name only when it is complete."""
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A terminal that cannot show a character shows its escape.
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
    """Keep the rows that have been read, until their answers come."""
    for row in rows:
        in_flight.append(row)
        yield row


def _with_progress(answers: Iterable[Any], args: argparse.Namespace) -> Iterable[Any]:
    """Show a progress bar, where it is seen and not in the way of the answers."""
    hidden = not sys.stderr.isatty() or (args.output is None and sys.stdout.isatty())
    total = None if hidden or args.file is None else _count_lines(args.file)
    return tqdm(answers, total=total, unit="row", disable=hidden, file=sys.stderr)


def _count_lines(path: Path) -> int:
    """Return about how many rows a file has: its lines, without a header."""
    with path.open("rb") as stream:
        lines = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    return lines - (path.suffix.lower() != ".jsonl")


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
