"""`cascadebert classify`: classify texts with a served cascade."""

import argparse
import contextlib
import itertools
import sys
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from .._base import DEFAULT_CONCURRENCY, DEFAULT_ROWS_PER_REQUEST, stream_parameters
from .._rows import Row
from .._sync import CascadeClient
from .._traffic import BY, BY_REQUEST
from .._types import Classification
from ..errors import InvalidRequest
from .exit_codes import DONE
from .inputs import (
    Source,
    add_input_arguments,
    count_lines,
    fingerprint,
    naming_pair_options,
    open_source,
    require_one_source,
    valid_rows,
)
from .live import answers_to_slow_rows
from .outputs import (
    Answers,
    add_output_arguments,
    open_output,
    path_of_output,
    rejects_path,
    renderer_of_output,
    require_apart,
)
from .progress import Advance, counted
from .rendering import JsonLines, Table
from .route_arguments import add_route_arguments
from .served_cascades import choose_model, naming_cascades
from .server_arguments import (
    Subparsers,
    add_connection_arguments,
    add_wait_argument,
    client_from_arguments,
)
from .stopping import stopped_by_signals
from .telemetry import spans_exported

DEFAULT_TIMEOUT_S = 30.0


def add_classify_parser(subparsers: Subparsers) -> None:
    """Add the `classify` command."""
    parser = subparsers.add_parser(
        "classify",
        help="classify texts with a served cascade",
        description="Classify texts from the command line, a file or stdin (one per line).",
    )
    parser.set_defaults(run=_classify)
    add_input_arguments(parser)
    add_output_arguments(parser)
    add_connection_arguments(parser)
    add_wait_argument(parser)
    _add_request_arguments(parser)


def _add_request_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("request")
    group.add_argument(
        "--traffic",
        action="append",
        default=[],
        metavar="VERSION=SHARE",
        help="send this share of the traffic (0 to 1) to another version, and the rest to "
        "--model-version; may be repeated",
    )
    group.add_argument(
        "--traffic-by",
        choices=BY,
        default=BY_REQUEST,
        help="draw a version for each request, or choose it by the text so that equal texts "
        "get the same version (default: %(default)s)",
    )
    add_route_arguments(group)
    group.add_argument(
        "--request-id",
        metavar="ID",
        help="the id that the server's log has for every request of this run",
    )
    group.add_argument(
        "--explain",
        action="store_true",
        help="show how each answer came about: when each stage had the row, and what it said",
    )
    group.add_argument(
        "--timeout-s",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        metavar="S",
        help="time limit of a request, in seconds (default: %(default)g)",
    )
    group.add_argument(
        "--concurrency",
        type=int,
        default=DEFAULT_CONCURRENCY,
        metavar="N",
        help="requests in flight (default: %(default)s)",
    )
    group.add_argument(
        "--rows-per-request",
        type=int,
        default=DEFAULT_ROWS_PER_REQUEST,
        metavar="N",
        help="rows per request (default: %(default)s); rows that come slowly, as from a pipe, are "
        "not waited for",
    )


def _classify(args: argparse.Namespace) -> int:
    require_one_source(args)
    renderer = renderer_of_output(args)
    if args.explain and not isinstance(renderer, (JsonLines, Table)):
        raise InvalidRequest("--explain has no column in .tsv and .csv: give --json, or .jsonl")
    if not args.texts and args.file is None and sys.stdin.isatty():
        print("Type one text per line; end with Ctrl-D.", file=sys.stderr)
    with (
        stopped_by_signals(),
        naming_cascades(args),
        naming_pair_options(args),
        contextlib.ExitStack() as resources,
    ):
        resources.enter_context(spans_exported("cascadebert-classify"))
        choose_model(args)
        source = resources.enter_context(open_source(args))
        require_apart(source.path, args)
        client = resources.enter_context(
            client_from_arguments(args, traffic=_shares(args), traffic_by=args.traffic_by)
        )
        output = resources.enter_context(open_output(args, renderer, _settings(args, source)))
        problems: list[str] = []
        reject = _noted(output, problems) if args.on_invalid == "skip" else None
        in_flight: deque[tuple[int, Row]] = deque()
        # An earlier run has answered the first rows.
        rows = itertools.islice(valid_rows(source.rows, reject), output.n_done, None)
        answers = _answers(args, client, source, _remembered(rows, in_flight))
        resources.callback(answers.close)
        exit_stages: Counter[int] = Counter()
        with _progress(args, source, output.n_done) as advance:
            for batch in answers:
                for answer in batch:
                    index, row = in_flight.popleft()
                    output.write(f"{renderer.line(index, row, answer)}\n")
                    exit_stages[answer.exit_stage] += 1
                advance(len(batch))
                if source.stop is not None:
                    output.flush()
        if problems and not exit_stages and not output.n_done:
            raise InvalidRequest(f"no row is valid; the first of {output.rejects}: {problems[0]}")
    if path_of_output(args) is not None:
        print(_summary(exit_stages, output, args), file=sys.stderr)
    return DONE


def _answers(
    args: argparse.Namespace, client: CascadeClient, source: Source, rows: Iterator[Any]
) -> Generator[list[Classification], None, None]:
    """Return the answers in the order of the rows, some at a time. Options are checked at once."""
    options = {
        "operating_point": args.operating_point,
        "threshold": args.threshold,
        "stage": args.stage,
        "request_id": args.request_id,
        "explain": args.explain,
        "timeout_s": args.timeout_s,
    }
    limits = {"rows_per_request": args.rows_per_request, "max_concurrency": args.concurrency}
    if source.stop is None:
        answers = client.classify_stream(rows, **limits, **options)
        return _one_by_one(answers)
    stream_parameters(**limits, **options)
    stop_reading = source.stop

    def stop() -> None:
        stop_reading()
        client.close()

    def classify(batch: list[Any]) -> list[Classification]:
        return client.classify(batch, **options)

    return answers_to_slow_rows(rows, classify, **limits, stop=stop)


def _one_by_one(
    answers: Generator[Classification, None, None],
) -> Generator[list[Classification], None, None]:
    with contextlib.closing(answers):
        for answer in answers:
            yield [answer]


def _settings(args: argparse.Namespace, source: Source) -> dict[str, Any]:
    """What a run must have in common with the run that it continues.

    --on-invalid is not among it: no answer that is written depends on it.
    """
    if path_of_output(args) is None:
        return {}
    found = fingerprint(args, source)
    if found is None and args.resume:
        raise InvalidRequest("--resume reads the input again: give it as a --file on disk")
    names = (
        "model", "model_version", "operating_point", "threshold", "stage", "traffic", "traffic_by",
        "text", "text_pair", "format", "output_format",
    )  # fmt: skip
    settings = {name: getattr(args, name) for name in names}
    if isinstance(args.threshold, tuple):
        settings["threshold"] = list(args.threshold)  # as JSON has it
    if args.explain:
        settings["explain"] = True
    return {"input": found, **settings}


def _noted(output: Answers, problems: list[str]) -> Callable[[dict[str, Any]], None]:
    """Pass rejected rows on, and remember the first problem."""

    def reject(problem: dict[str, Any]) -> None:
        if not problems:
            problems.append(problem["problem"])
        output.reject(problem)

    return reject


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


def _remembered(
    rows: Iterable[tuple[int, Row]], in_flight: deque[tuple[int, Row]]
) -> Iterator[Any]:
    """Yield the rows, and keep each with its index until its answer comes."""
    for index, row in rows:
        in_flight.append((index, row))
        yield row


def _progress(
    args: argparse.Namespace, source: Source, n_done: int
) -> contextlib.AbstractContextManager[Advance]:
    """Show how many rows are classified, unless the answers are printed on the same terminal.

    Without a terminal this is for files alone: a pipe may last for days.
    """
    to_terminal = path_of_output(args) is None and sys.stdout.isatty()
    hidden = to_terminal or (source.path is None and not sys.stderr.isatty())
    total = None if hidden or source.path is None else count_lines(source.path, args.format)
    return counted("row", total, what="classify", initial=n_done, hidden=hidden)


def _summary(exit_stages: Counter[int], output: Answers, args: argparse.Namespace) -> str:
    n_rows = exit_stages.total()
    shares = ", ".join(
        f"{count} at stage {stage} ({count / n_rows:.1%})"
        for stage, count in sorted(exit_stages.items())
    )
    rows = "1 row" if n_rows == 1 else f"{n_rows} rows"
    text = f"{rows} to {args.output}" + (f": exits {shares}" if shares else "")
    if output.n_done:
        text += f"; {output.n_done} were there already"
    if output.rejects:
        text += f"; {output.rejects} left out, see {rejects_path(args.output)}"
    return text
