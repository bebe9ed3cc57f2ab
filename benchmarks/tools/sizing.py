"""What a served cascade holds in memory, process by process, as its calls grow.

    python -m benchmarks.tools.sizing model_repository

Starts a server of its own, asks every stage by itself with rows of the longest length, and reads
/proc.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from cascadebert_build.errors import BuildError, CheckFailed, UsageError
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_build.server.ports import Ports
from cascadebert_build.server.serve import serve_cascades
from cascadebert_client import CascadeClient, CascadeClientError

from .memory import Memory, memory_of

_MIB = 2**20
_ANSWER_S = 300.0


def main(argv: Sequence[str] | None = None) -> int:
    """Print a Markdown table; 0 done, 1 a server that does not start or answer, 2 wrong use."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tools.sizing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("repository", type=Path, help="the model repository")
    parser.add_argument("--cascade", metavar="NAME", help="where the repository has several")
    parser.add_argument("--instances", type=int, default=1, help="of a stage (default: 1)")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1, 16, 64], metavar="N",
        help="of a request, ascending (default: 1 16 64)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    try:
        if min(args.rows) < 1 or sorted(args.rows) != args.rows:
            raise UsageError(f"--rows {args.rows}: give numbers from 1 on, ascending")
        cascade = args.cascade or _only_cascade(args.repository)
        moments = dict(measured(args.repository, cascade, args.instances, args.rows))
    except BuildError as exc:
        sys.stderr.write(f"benchmarks.tools.sizing: {exc}\n")
        return exc.exit_code
    print(table_of(moments))
    return 0


def measured(
    repository: Path, cascade: str, instances: int, rows: Sequence[int]
) -> Iterator[tuple[str, Memory]]:
    """Memory once loaded, then after a request of each size to each stage, with what it is after.

    Args:
        repository: the model repository.
        cascade: in it.
        instances: of every stage; with several, not all of them may be asked.
        rows: of the requests.

    Raises:
        UsageError: there is no such cascade.
        CheckFailed: the server or a model does not start, or does not answer.
    """
    policy = ModelRepository.read(repository).cascade(cascade).policy()
    with (
        serve_cascades(
            repository, [cascade], ports=Ports(0, 0, 0), instances={"": instances}, threads={"": 1}
        ) as server,
        CascadeClient(server.url, cascade) as client,
    ):
        assert server.pid is not None
        yield "loaded", memory_of(server.pid)
        for n in rows:
            for stage, settings in enumerate(policy.stages):
                # A word is a token at least: cut at the stage's own longest length.
                text = "a " * settings.max_length
                texts = [(text, text)] * n if policy.pair else [text] * n
                try:
                    client.classify(cast("list[str]", texts), stage=stage, timeout_s=_ANSWER_S)
                except CascadeClientError as exc:
                    raise CheckFailed(f"{n} rows to {settings.model}: {exc}") from exc
            yield f"after {n} {'row' if n == 1 else 'rows'}", memory_of(server.pid)


def table_of(moments: dict[str, Memory]) -> str:
    """Resident memory in MiB by process, and what all of them have in /dev/shm."""
    lines = [["process, MiB", *moments], ["---", *("---:" for _ in moments)]]
    lines += [
        [process, *(f"{m.resident[process] / _MIB:.0f}" for m in moments.values())]
        for process in next(iter(moments.values())).resident
    ]
    lines.append(["/dev/shm", *(f"{m.shared / _MIB:.0f}" for m in moments.values())])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _only_cascade(repository: Path) -> str:
    names = list(ModelRepository.read(repository).cascades)
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise UsageError(f"{repository} has the cascades {found}: give one as --cascade")
    return names[0]


if __name__ == "__main__":
    sys.exit(main())
