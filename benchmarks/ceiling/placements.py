"""A real cascade with its stages in processes of their own, and inline, in turns.

    python -m benchmarks.ceiling.placements cascade.toml

The three placements are cascades of one server, over copies of the same stages. The order of each
turn is the reverse of the one before. All figures are medians over the turns, and their ratios to
"process".
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

import cascadebert_build as cascadebert
from cascadebert_build.config.schema import AUTO_PLACEMENT, PLACEMENTS
from cascadebert_build.errors import UsageError
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.pipeline.workspace import workspace_of
from cascadebert_build.repository.publish import publish_cascade
from cascadebert_build.server.ports import Ports
from cascadebert_build.server.serve import serve_cascades

from ..tools.command import RESULTS, add_number, new_parser, run_command, say
from ..tools.perf_analyzer import Load, PerfAnalyzer
from ..tools.perf_analyzer_binary import find_binary
from ..tools.request_data import write_texts
from .processes import cpu_seconds

_CLIENTS = (1, 8, 64)
_BASE = "process"
_PLACEMENTS = tuple(name for name in PLACEMENTS if name != AUTO_PLACEMENT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison."""
    return run_command(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("ceiling.placements", __doc__)
    parser.add_argument("config", type=Path, metavar="cascade.toml", help="the cascade")
    add_number(parser, "--turns", 3, "how often each placement is measured")
    add_number(parser, "--window-s", 7.0, "seconds of a window")
    parser.add_argument(
        "--work-dir", type=Path, default=RESULTS / "placements", metavar="DIR",
        help="folder for artefacts (default: %(default)s)",
    )  # fmt: skip
    return parser


def _run(args: argparse.Namespace) -> None:
    if args.turns < 1:
        raise UsageError(f"--turns {args.turns}: give 1 or more")
    config = cascadebert.load_config(args.config)
    steps = CascadeBuild(config, workspace_of(config, args.work_dir.resolve()))
    with tempfile.TemporaryDirectory(prefix="cascadebert-placements-") as folder:
        scratch = Path(folder)
        steps.build(scratch / "built")
        _publish(steps, scratch / "repository")
        rows = _measure(steps, scratch, args.turns, args.window_s)
    for clients, group in pd.DataFrame(rows).groupby("clients"):
        medians = group.groupby("placement").median(numeric_only=True).drop(columns="clients")
        print(f"{clients} clients", medians.round(2).to_markdown(), sep="\n\n", end="\n\n")
        print((medians / medians.loc[_BASE]).round(3).to_markdown(), end="\n\n")


def _publish(steps: CascadeBuild, repository: Path) -> None:
    """Publish the cascade once for each placement, with stages of its own."""
    policy, artefacts = steps.policy(), steps.artefacts()
    for placement in _PLACEMENTS:
        stages = tuple(
            replace(stage, model=f"{placement}_{i}") for i, stage in enumerate(policy.stages)
        )
        publish_cascade(
            repository,
            placement,
            replace(policy, stages=stages),
            [of.stage_files(stage) for of, stage in zip(artefacts, stages, strict=True)],
            replace(steps.config.runtime, placement=placement),
        )


def _measure(
    steps: CascadeBuild, scratch: Path, turns: int, window_s: float
) -> list[dict[str, object]]:
    """Return a row for every window: throughput, medians in ms, CPU of a request in ms."""
    binary, rows = find_binary(), list[dict[str, object]]()
    data = write_texts(scratch / "texts.json", steps.rows.texts)
    with serve_cascades(scratch / "repository", ports=Ports(0, 0, 0)) as server:
        pids = [stub.pid for stub in server.stubs()] + ([server.pid] if server.pid else [])
        perf = PerfAnalyzer(binary, server.url)
        for turn in range(turns):
            order = _PLACEMENTS[:: -1 if turn % 2 else 1]
            for clients in _CLIENTS:
                for placement in order:
                    before = cpu_seconds({"all": pids})["all"]
                    window = perf.measure(placement, data, Load(clients, 1, window_s))
                    cpu_s = cpu_seconds({"all": pids})["all"] - before
                    say(f"{placement}, {clients} clients: {window.throughput_rps:.1f} requests/s")
                    rows.append(
                        {
                            "placement": placement,
                            "clients": clients,
                            "requests/s": window.throughput_rps,
                            "exited p50 ms": window.exited.p50_ms if window.exited else None,
                            "deferred p50 ms": window.deferred.p50_ms if window.deferred else None,
                            "p99 ms": window.all.p99_ms,
                            "CPU ms": 1000 * cpu_s / window.total,
                            "deferred": window.deferred_share,
                        }
                    )
    return rows


if __name__ == "__main__":
    sys.exit(main())
