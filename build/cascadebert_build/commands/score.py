"""`score`: a corpus through a cascade, into files."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cascadebert_client.cli.route_arguments import add_route_arguments
from cascadebert_client.cli.served_cascades import choose_model, naming_cascades
from cascadebert_client.cli.server_arguments import (
    add_optional_server_arguments,
    credentials_from_arguments,
    headers_from_arguments,
)
from cascadebert_client.cli.stopping import stopped_by_signals
from cascadebert_client.sources import FORMATS

from ..config.placement import cores
from ..errors import UsageError
from ..extras import require
from .arguments import add_json_argument, print_result

_OUTPUT_FORMATS = ("parquet", "jsonl", "csv")
_BLOCK_ROWS = 10_000
_REPOSITORY = Path("model_repository")
# The arguments that one way of answering has and the other has not, with their defaults.
_SERVED_ONLY = {
    "header": [],
    "tls_ca": None,
    "tls_cert": None,
    "tls_key": None,
    "rows_per_request": None,
    "concurrency": None,
    "timeout_s": None,
}
_TIMEOUT_S, _ROWS_PER_REQUEST, _CONCURRENCY = 60.0, 64, 8


def add_score_parser(commands: Any) -> None:
    """Add `score`."""
    summary = "score a corpus: files of texts to files of answers, by workers of Ray Data"
    parser: argparse.ArgumentParser = commands.add_parser(
        "score", help=summary, description=summary
    )
    parser.set_defaults(run=_score)
    _add_input_arguments(parser)
    _add_output_arguments(parser)
    _add_cascade_arguments(parser)
    _add_worker_arguments(parser)
    add_optional_server_arguments(parser, "the members run in the workers, without a server")
    group = parser.add_argument_group("requests to a server")
    group.add_argument(
        "--rows-per-request", type=int, metavar="N",
        help=f"rows per request (default: {_ROWS_PER_REQUEST})",
    )  # fmt: skip
    group.add_argument(
        "--concurrency", type=int, metavar="N",
        help=f"requests in flight, of each worker (default: {_CONCURRENCY})",
    )  # fmt: skip
    group.add_argument(
        "--timeout-s", type=float, metavar="S",
        help=f"time limit of a request, in seconds (default: {_TIMEOUT_S:g})",
    )  # fmt: skip
    add_json_argument(parser)


def _add_input_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("input")
    group.add_argument(
        "input",
        metavar="INPUT",
        help="a .parquet, .jsonl, .json, .csv or .tsv file, which may be compressed (.gz), or a "
        "folder of them; a path, or a URL that fsspec knows, such as s3://bucket/folder",
    )
    group.add_argument(
        "--format", choices=FORMATS, help="format of the files (default: what their endings tell)"
    )
    group.add_argument(
        "--text", default="text", metavar="COLUMN", help="column of the text (default: text)"
    )
    group.add_argument("--text-pair", metavar="COLUMN", help="column of the second text of a pair")
    group.add_argument(
        "--on-invalid",
        choices=("fail", "skip"),
        default="fail",
        help="a row that cannot be classified, such as an empty one, ends the run, or is left out "
        "and listed in rejects-….jsonl in the output folder (default: %(default)s)",
    )


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="the folder of the parts, one for each block of the input; a path or a URL",
    )
    group.add_argument(
        "--output-format", choices=_OUTPUT_FORMATS, default="parquet",
        help="format of the parts (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--with-text", action="store_true", help="copy the texts into the parts, too"
    )
    group.add_argument(
        "--block-rows", type=int, default=_BLOCK_ROWS, metavar="N",
        help="rows of a block, and so of a part (default: %(default)s)",
    )  # fmt: skip
    choice = group.add_mutually_exclusive_group()
    choice.add_argument(
        "--resume",
        action="store_true",
        help="go on with a run that did not end, with the same input and settings",
    )
    choice.add_argument(
        "--overwrite", action="store_true", help="replace what an earlier run left in DIR"
    )


def _add_cascade_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cascade")
    group.add_argument(
        "--model-repository", type=Path, metavar="DIR",
        help=f"Triton model repository (default: {_REPOSITORY})",
    )  # fmt: skip
    group.add_argument(
        "--model", metavar="NAME", help="the cascade (default: the only one, or `cascade`)"
    )
    group.add_argument(
        "--model-version", metavar="VERSION", help="its version (default: the one that is served)"
    )
    add_route_arguments(group)


def _add_worker_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workers")
    group.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="worker processes of one core each (default: the cores of this machine, or of the "
        "cluster); 0 is this process alone, without Ray",
    )
    group.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="a Ray cluster, which must see the input, the output and the repository at the same "
        "paths (default: Ray is started on this machine)",
    )


def _score(args: argparse.Namespace) -> int:
    _require_consistent(args)
    require("score", "pyarrow", "fsspec")
    if args.workers != 0:
        require("score", "ray")
    from ..scoring.run import Wanted, score

    wanted = Wanted(
        source=args.input,
        output=args.output,
        file_format=args.format,
        text=args.text,
        text_pair=args.text_pair,
        on_invalid=args.on_invalid,
        output_format=args.output_format,
        with_text=args.with_text,
        block_rows=args.block_rows,
        resume=args.resume,
        overwrite=args.overwrite,
    )
    with stopped_by_signals():
        try:
            answerer = _answerer(args)
            with _workers(args) as workers:
                scored = score(wanted, answerer, workers)
        except KeyboardInterrupt:
            _say_what_is_left(args)
            raise
    print_result(args, asdict(scored), _text(scored))
    return 0


def _require_consistent(args: argparse.Namespace) -> None:
    """Refuse arguments that contradict each other.

    Raises:
        UsageError: They do.
    """
    if args.url is not None and args.model_repository is not None:
        raise UsageError(
            "--url asks a server, and --model-repository runs the members in workers: drop one"
        )
    for name, default in _SERVED_ONLY.items():
        if args.url is None and getattr(args, name) != default:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} is for calls of a server: give --url, too, or drop it")
    if args.workers == 0 and args.ray_address is not None:
        raise UsageError("--workers 0 runs without Ray: drop --ray-address, or give another number")
    for name in ("workers", "block_rows", "rows_per_request", "concurrency"):
        least = 0 if name == "workers" else 1
        value = getattr(args, name)
        if value is not None and value < least:
            raise UsageError(f"--{name.replace('_', '-')} {value}: give {least} or more")
    version = args.model_version
    if version is not None and args.url is None and not (version.isdecimal() and int(version)):
        raise UsageError(f"--model-version {version!r}: give a number from 1 on")


def _answerer(args: argparse.Namespace) -> Any:
    from ..scoring.engine import in_process, served
    from ..scoring.served import Server

    names = ("operating_point", "threshold", "stage")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.url is None:
        if isinstance(args.threshold, tuple):  # as a request has it
            given["threshold"] = ",".join(map(str, args.threshold))
        version = None if args.model_version is None else int(args.model_version)
        return in_process(args.model_repository or _REPOSITORY, args.model, version, given)
    args.timeout_s = _TIMEOUT_S if args.timeout_s is None else args.timeout_s
    with naming_cascades(args):
        credentials_from_arguments(args)  # refuses files that gRPC would refuse at every call
        choose_model(args)
        tls = None if args.tls_ca is None else (args.tls_ca, args.tls_cert, args.tls_key)
        server = Server(
            args.url,
            args.model,
            args.model_version,
            headers_from_arguments(args),
            tls,
            args.rows_per_request or _ROWS_PER_REQUEST,
            args.concurrency or _CONCURRENCY,
            args.timeout_s,
        )
        return served(server, given)


@contextlib.contextmanager
def _workers(args: argparse.Namespace) -> Generator[Any, None, None]:
    from ..scoring.tasks import OneProcess

    if args.workers == 0:
        yield OneProcess()
        return
    from ..scoring.ray_workers import ray_workers

    with ray_workers(args.workers, args.ray_address, cores()) as workers:
        yield workers


def _say_what_is_left(args: argparse.Namespace) -> None:
    from ..progress import say

    say(
        "score",
        "stopped",
        f"what is done is in {args.output}: the same command with --resume goes on",
    )


def _text(scored: Any) -> str:
    shares = ", ".join(
        f"{rows:,} at stage {stage} ({rows / scored.rows:.1%})"
        for stage, rows in scored.stages.items()
        if scored.rows
    )
    text = f"{scored.rows:,} rows in {scored.parts:,} parts in {scored.output}"
    text += f": exits {shares}" if shares else ""
    if scored.new_rows < scored.rows:
        text += f"; {scored.rows - scored.new_rows:,} were there already"
    if scored.rejects:
        text += f"; {scored.rejects:,} left out, see rejects-….jsonl there"
    return text
