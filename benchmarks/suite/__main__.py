"""The bench: every contender on the same machine, with the same members and text, and a report.

    python -m benchmarks.suite --glue GLUE --checkpoints FOLDER --out results
    python -m benchmarks.suite --config cascade.toml --out results
    python -m benchmarks.suite --quick

An interrupted run continues with what is missing. With GLUE and the checkpoints it compares four
pairs of members. With a cascade.toml it compares your own two members on your held-out rows. With
neither it uses small stand-ins with random weights over made-up reviews, to show that everything
works.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType

from cascadebert_build.errors import UsageError
from cascadebert_engine.files import read_json

from ..tools.command import RESULTS, add_wait_quiet, new_parser, run_command
from ..tools.machine import this_machine
from ..tools.perf_analyzer_binary import find_binary
from .bench import Bench
from .ceiling import measure_ceiling
from .corpora import corpora, corpora_of_config
from .names import CEILING, IN_CLOSED_LOOPS, SECTIONS
from .pairs import pairs_of
from .plan import FULL, QUICK
from .record import RUN, Record, rows_from_folder
from .report import report_of
from .results import Results
from .run import run_config, run_sections

# The ceiling has stages of its own, so it is measured once, and not for each pair.
_SECTIONS = (*SECTIONS, CEILING)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench."""
    before = signal.signal(signal.SIGTERM, _raise_exit)
    try:
        return run_command(_parser(), _run, argv)
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise_exit(number: int, frame: FrameType | None) -> None:
    """Turn SIGTERM into an exception, so that context managers end the servers."""
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("suite", __doc__)
    parser.add_argument("--config", type=Path, metavar="cascade.toml", help="your own cascade")
    parser.add_argument(
        "--glue", type=Path, metavar="DIR", help="folder with SST-2, MRPC and QNLI"
    )  # fmt: skip
    parser.add_argument(
        "--checkpoints", type=Path, metavar="DIR", help="folder with sst2-small and sst2-large"
    )
    parser.add_argument("--quick", action="store_true", help="minutes, to check that it works")
    parser.add_argument(
        "--only", nargs="+", choices=_SECTIONS, metavar="SECTION", default=list(_SECTIONS),
        help=f"sections: {', '.join(_SECTIONS)} (default: all)",
    )  # fmt: skip
    parser.add_argument("--pairs", nargs="+", metavar="NAME", help="pairs (default: all)")
    parser.add_argument(
        "--short-only", action="store_true", help="leave out the long and the mixed text"
    )
    add_wait_quiet(parser, "window")
    parser.add_argument(
        "--report-only", action="store_true", help="report the rows in --out; measure nothing"
    )
    parser.add_argument("--no-peers", action="store_true", help="only Triton's contenders")
    parser.add_argument(
        "--contenders", nargs="+", choices=IN_CLOSED_LOOPS, metavar="NAME", default=[],
        help="contenders of the closed loops, by their names in the report, such as cascade, mosec "
        "and 'small alone' (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--clients", nargs="+", type=int, metavar="N",
        help=f"clients of the closed loops (default: {' '.join(map(str, FULL.concurrencies))})",
    )  # fmt: skip
    parser.add_argument(
        "--work-dir", type=Path, default=RESULTS / "work", metavar="DIR",
        help="folder for artefacts and model repositories (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "suite", metavar="DIR",
        help="folder for rows and report (default: %(default)s)",
    )  # fmt: skip
    return parser


def _run(args: argparse.Namespace) -> None:
    if not args.report_only:
        alone = set(args.only) == {CEILING}
        if not alone:
            _measure(args)
        if CEILING in args.only:
            measure_ceiling(
                args.out / CEILING,
                glue=args.glue,
                checkpoints=args.checkpoints,
                quick=args.quick,
                peers=not args.no_peers,
                wait_quiet_s=args.wait_quiet_s,
            )
        if alone:
            return
    run = read_json(args.out / RUN)
    if run is None:
        raise UsageError(f"{args.out} has no run: leave --report-only out, or name another --out")
    report = report_of(run, Results(list(rows_from_folder(args.out))))
    report.write(args.out)
    print(*report.verdicts, sep="\n")
    print(f"report: {args.out / 'report.html'}")


def _measure(args: argparse.Namespace) -> None:
    if args.config is None and (args.glue is None) != (args.checkpoints is None):
        raise UsageError("give --glue and --checkpoints together, or neither")
    if args.config is not None and args.checkpoints is not None:
        raise UsageError("give --config, or --glue and --checkpoints: not both")
    plan = QUICK if args.quick else FULL
    if args.clients:
        if min(args.clients) < 1:
            raise UsageError(f"--clients {min(args.clients)}: give 1 or more")
        plan = replace(plan, concurrencies=tuple(sorted(set(args.clients))))
    work = args.work_dir.resolve()  # paths in what is built there are relative to other folders
    binary = find_binary()
    texts = corpora(args.glue) if args.config is None else corpora_of_config(args.config)
    pairs = pairs_of(args.checkpoints)
    if args.pairs:
        unknown = sorted(set(args.pairs) - {pair.name for pair in pairs})
        if unknown:
            raise UsageError(f"no pair {unknown[0]!r}: {', '.join(pair.name for pair in pairs)}")
    record = Record(
        args.out,
        this_machine(),
        f"python -m benchmarks.suite {shlex.join(sys.argv[1:])}",
        {
            "plan": asdict(plan),
            "corpora": {c.name: [c.source, len(c.texts)] for c in texts.values()},
            "stand_in": args.checkpoints is None and args.config is None,
            "perf_analyzer": {"version": binary.version, "sha256": binary.sha256},
        },
    )
    with tempfile.TemporaryDirectory(prefix="cascadebert-bench-") as scratch:
        bench = Bench(
            plan,
            record,
            binary,
            Path(scratch),
            args.wait_quiet_s,
            peers=not args.no_peers,
            install_peers=not args.quick,
            chosen=frozenset(args.contenders),
        )
        if args.config is not None:
            run_config(bench, args.only, args.config, texts, work)
            return
        chosen = [pair for pair in pairs if not args.pairs or pair.name in args.pairs]
        if args.short_only:
            chosen = [replace(pair, texts=pair.texts[:1]) for pair in chosen]
        run_sections(
            bench, args.only, pairs=chosen, corpora=texts, work=work, checkpoints=args.checkpoints
        )


if __name__ == "__main__":
    sys.exit(main())
