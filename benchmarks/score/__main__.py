"""Rows per second per core of `score`, beside what else could score a corpus, in one run.

    python -m benchmarks.score --config cascade.toml --glue GLUE
    python -m benchmarks.score --quick

The contenders take turns over the same texts, on all cores of this machine:

- `score` with a worker for each core, from a .jsonl file to Parquet parts;
- `classify_stream` against the embedded server;
- transformers' pipeline with the last member alone, 32 rows at once, sorted by length;
- the limit of the bare runtime: the members in ONNX Runtime over tokens made before, with no gate,
  no files and no waiting, each row in the stages that it needs.

Ray's start is measured apart: it takes seconds, however large the corpus. Wanted: `score` at 0.95
of the limit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cascadebert_build as cascadebert
from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_build.config.placement import cores
from cascadebert_build.errors import UsageError
from cascadebert_build.scoring.engine import in_process
from cascadebert_build.scoring.ray_workers import RayWorkers, ray_workers
from cascadebert_build.scoring.run import Wanted, score
from cascadebert_build.server.ports import Ports
from cascadebert_build.server.serve import serve_cascades
from cascadebert_client import CascadeClient

from ..tools.command import (
    add_common,
    add_number,
    as_json,
    new_parser,
    run_command,
    say,
)
from ..tools.machine import this_machine, wait_until_quiet
from ..tools.ratio import ratio_of
from .contenders import Cascade, limit_of, pipeline_rate, quick_config, stream_rate, texts_of

SCORE, STREAM, PIPELINE, LIMIT = "score", "classify_stream", "transformers pipeline", "limit"
_WANTED = 0.95


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench."""
    return run_command(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("score", __doc__)
    parser.add_argument("--config", type=Path, metavar="cascade.toml", help="the cascade")
    add_number(parser, "--rows", 100_000, "rows of `score` in a turn; others get what they need")
    add_number(parser, "--turns", 3, "turns of each contender")
    add_number(parser, "--window-s", 20.0, "seconds of a turn of the others")
    add_common(parser, "score", before="turn")
    return parser


def _run(args: argparse.Namespace) -> None:
    if args.quick:
        args.turns, args.rows, args.window_s = 1, 3_000, 1.0
    elif args.config is None or args.glue is None:
        raise UsageError("give --config cascade.toml and --glue DIR, or --quick")
    with tempfile.TemporaryDirectory(prefix="cascadebert-score-") as folder:
        scratch = Path(folder)
        path = quick_config(scratch) if args.quick else args.config
        config = config_from_file(path)
        cascadebert.build(config, scratch / "repository")
        cascade = Cascade(scratch / "repository", config, texts_of(args.glue, config))
        began_s = time.monotonic()
        with ray_workers(cores(), None, cores()) as workers:
            start_s = time.monotonic() - began_s
            rates = _rates(args, cascade, workers, scratch)
    figures = _figures(rates)
    args.out.mkdir(parents=True, exist_ok=True)
    command = f"python -m benchmarks.score {shlex.join(sys.argv[1:])}"
    machine = this_machine()
    result = {
        "command": command,
        "machine": asdict(machine),
        "ray_start_s": round(start_s, 1),
        "rows_per_s": dict(rates),
        "per_core": figures,
    }
    (args.out / "score.json").write_text(as_json(result))
    lines = [
        f"# Score a corpus\n\n`{command}`, commit {machine.commit}, {machine.cores} cores of "
        f"{machine.cpu}, {machine.date}. Medians of {args.turns} turns; brackets: lowest, highest. "
        f"Ray's start took {start_s:.1f} s and is not in these figures.\n",
        "| | rows/s per core | of the limit |",
        "|---|---|---|",
    ]
    for name, values in rates.items():
        ratio = ratio_of(values, rates[LIMIT])
        lines.append(f"| {name} | {figures[name]:.1f} | {ratio} |")
    ratio = ratio_of(rates[SCORE], rates[LIMIT])
    verdict = "met" if ratio.median >= _WANTED else "not met"
    lines.append(f"\nWanted: `score` at {_WANTED} of the limit or more: {verdict}.")
    (args.out / "RESULTS.md").write_text("\n".join(lines) + "\n")
    print((args.out / "RESULTS.md").read_text())


def _rates(
    args: argparse.Namespace, cascade: Cascade, workers: RayWorkers, scratch: Path
) -> dict[str, list[float]]:
    """Rows per second on all cores, by contender, one figure for each turn."""
    corpus = scratch / "corpus.jsonl"
    with corpus.open("w", encoding="utf-8") as stream:
        for text in itertools.islice(itertools.cycle(cascade.texts), args.rows):
            stream.write(json.dumps({"text": text}) + "\n")
    # Enough blocks that all workers end at about the same time.
    block_rows = max(100, args.rows // (40 * cores()))
    rates: dict[str, list[float]] = defaultdict(list)
    for turn in range(args.turns):
        for name in (LIMIT, SCORE, STREAM, PIPELINE):
            say(f"{name}, turn {turn + 1} of {args.turns}")
            if args.wait_quiet_s:
                wait_until_quiet(args.wait_quiet_s)
            rates[name].append(
                _score(cascade, workers, corpus, scratch / f"out-{turn}", block_rows)
                if name == SCORE
                else limit_of(cascade, args.window_s)
                if name == LIMIT
                else _stream(cascade, args.window_s)
                if name == STREAM
                else pipeline_rate(cascade, args.window_s)
            )
            say(f"{name}: {rates[name][-1]:.1f} rows/s")
    return rates


def _score(
    cascade: Cascade, workers: RayWorkers, corpus: Path, output: Path, block_rows: int
) -> float:
    answerer = in_process(cascade.repository, cascade.config.name, None, {})
    wanted = Wanted(str(corpus), str(output), block_rows=block_rows)
    scored = score(wanted, answerer, workers)
    return scored.rows / scored.seconds


def _stream(cascade: Cascade, window_s: float) -> float:
    name = cascade.config.name
    with (
        serve_cascades(cascade.repository, [name], ports=Ports(0, 0, 0)) as server,
        CascadeClient(server.url, name) as client,
    ):
        return stream_rate(client, cascade.texts, window_s)


def _figures(rates: dict[str, list[float]]) -> dict[str, float]:
    """Medians per core."""
    return {name: sorted(values)[len(values) // 2] / cores() for name, values in rates.items()}


if __name__ == "__main__":
    sys.exit(main())
