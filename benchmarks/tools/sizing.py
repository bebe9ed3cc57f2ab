"""Measure the memory of a served cascade by process, as its calls grow.

    python -m benchmarks.tools.sizing model_repository

It starts a server of its own, asks every stage by itself with rows of the longest length, and reads
/proc.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from tabulate import tabulate

import cascadebert_build as cascadebert
from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_client import CascadeClient, CascadeClientError

from .command import add_number, new_parser, run_command
from .memory import Memory, memory_of

_MIB = 2**20
_ANSWER_S = 300.0


def main(argv: Sequence[str] | None = None) -> int:
    """Print a Markdown table."""
    parser = new_parser("tools.sizing", __doc__)
    parser.add_argument("repository", type=Path, help="the model repository")
    parser.add_argument("--cascade", metavar="NAME", help="if the repository has several")
    add_number(parser, "--instances", 1, "instances of each stage")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1, 16, 64], metavar="N",
        help="rows of a request, ascending (default: 1 16 64)",
    )  # fmt: skip
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> None:
    if min(args.rows) < 1 or sorted(args.rows) != args.rows:
        raise UsageError(f"--rows {args.rows}: give numbers from 1 on, ascending")
    cascade = args.cascade or _only_cascade(args.repository)
    print(table_of(dict(measured(args.repository, cascade, args.instances, args.rows))))


def measured(
    repository: Path, cascade: str, instances: int, rows: Sequence[int]
) -> Iterator[tuple[str, Memory]]:
    """Yield the memory once loaded, then after a request of each size to each stage.

    Args:
        repository: The model repository.
        cascade: The name of the cascade.
        instances: The instances of every stage. With several, some of them may get no request.
        rows: The rows of the requests.

    Raises:
        UsageError: There is no such cascade.
        CheckFailed: The server or a model does not start, or does not answer.
    """
    policy = ModelRepository.read(repository).cascade(cascade).policy()
    with (
        cascadebert.serve(
            repository, [cascade], instances={"": instances}, threads={"": 1}
        ) as server,
        CascadeClient(server.url, cascade) as client,
    ):
        assert server.pid is not None
        yield "loaded", memory_of(server.pid)
        for n in rows:
            for stage, settings in enumerate(policy.stages):
                # Each word is one token or more, so the text is cut at the stage's longest length.
                text = "a " * settings.max_length
                texts = [(text, text)] * n if policy.pair else [text] * n
                try:
                    client.classify(cast("list[str]", texts), stage=stage, timeout_s=_ANSWER_S)
                except CascadeClientError as exc:
                    raise CheckFailed(f"{n} rows to {settings.model}: {exc}") from exc
            yield f"after {n} {'row' if n == 1 else 'rows'}", memory_of(server.pid)


def table_of(moments: dict[str, Memory]) -> str:
    """Return resident memory in MiB by process, and the memory that all share in /dev/shm."""
    first = next(iter(moments.values()))
    lines = [
        [process, *(f"{m.resident[process] / _MIB:.0f}" for m in moments.values())]
        for process in first.resident
    ]
    lines.append(["/dev/shm", *(f"{m.shared / _MIB:.0f}" for m in moments.values())])
    return tabulate(lines, ["process, MiB", *moments], tablefmt="pipe")


def _only_cascade(repository: Path) -> str:
    names = list(ModelRepository.read(repository).cascades)
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise UsageError(f"{repository} has the cascades {found}: give one as --cascade")
    return names[0]


if __name__ == "__main__":
    sys.exit(main())
