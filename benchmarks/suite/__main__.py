"""The bench: every contender on the same machine, members and text, and a report of it.

    python -m benchmarks.suite --glue GLUE --checkpoints FOLDER --out results
    python -m benchmarks.suite --config cascade.toml --out results
    python -m benchmarks.suite --quick

An interrupted run goes on where it was. With GLUE and the checkpoints it compares four pairs of
members; with a cascade.toml, your own two members on your held-out rows; with neither, small
stand-ins with random weights over made-up reviews, which shows that everything works and no more.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from cascadebert_build.errors import BuildError, UsageError
from cascadebert_engine.files import read_json, write_text

from ..tools.machine import this_machine
from ..tools.perf_analyzer_binary import find_binary
from ..tools.ratio import RESULTS
from .bench import Bench
from .corpora import corpora, corpora_of_config
from .page import page_of_run, summary_of_run
from .pairs import pairs_of
from .plan import FULL, QUICK
from .record import RUN, Record, rows_from_folder
from .results import Figures
from .run import SECTIONS, run_config, run_sections
from .svg_files import write_pictures
from .targets import verdicts_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; 0 done, 1 a check failed, 2 wrong use or bad input."""
    args = _parser().parse_args(argv)
    before = signal.signal(signal.SIGTERM, _end)
    try:
        _run(args)
    except BuildError as exc:
        sys.stderr.write(f"benchmarks.suite: {exc}\n")
        return exc.exit_code
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM as an exception: context managers end the servers."""
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.suite",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="cascade.toml", help="your own cascade")
    parser.add_argument("--glue", type=Path, metavar="DIR", help="has SST-2, MRPC and QNLI")
    parser.add_argument(
        "--checkpoints", type=Path, metavar="DIR", help="has sst2-small and sst2-large"
    )
    parser.add_argument("--quick", action="store_true", help="minutes, for correctness")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, metavar="SECTION", default=list(SECTIONS),
        help=f"of {', '.join(SECTIONS)}",
    )  # fmt: skip
    parser.add_argument("--pairs", nargs="+", metavar="NAME", help="of those that there are")
    parser.add_argument(
        "--wait-quiet-s", type=float, default=0.0,
        help="before each window, wait so long at most for others to leave the machine",
    )  # fmt: skip
    parser.add_argument(
        "--report-only", action="store_true", help="of the rows that --out has; measure nothing"
    )
    parser.add_argument("--no-peers", action="store_true", help="Triton's contenders alone")
    parser.add_argument(
        "--work-dir", type=Path, default=RESULTS / "work", metavar="DIR",
        help="for artefacts and model repositories (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "suite", metavar="DIR",
        help="for rows and report (default: %(default)s)",
    )  # fmt: skip
    return parser


def _run(args: argparse.Namespace) -> None:
    if not args.report_only:
        _measure(args)
    run = read_json(args.out / RUN)
    if run is None:
        raise UsageError(f"{args.out} has no run: leave --report-only out, or name another --out")
    figures = Figures(list(rows_from_folder(args.out)))
    write_text(args.out / "report.html", page_of_run(run, figures))
    write_text(args.out / "SUMMARY.md", summary_of_run(run, figures))
    write_pictures(figures, args.out)
    for verdict in verdicts_of(figures):
        print(verdict)
    print(f"report: {args.out / 'report.html'}")


def _measure(args: argparse.Namespace) -> None:
    if args.config is None and (args.glue is None) != (args.checkpoints is None):
        raise UsageError("give --glue and --checkpoints together, or neither")
    if args.config is not None and args.checkpoints is not None:
        raise UsageError("give --config, or --glue and --checkpoints: not both")
    plan = QUICK if args.quick else FULL
    work = args.work_dir.resolve()  # paths in what is built there are not of this folder
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
            plan, record, binary, Path(scratch), args.wait_quiet_s, peers=not args.no_peers
        )
        if args.config is not None:
            run_config(bench, args.only, args.config, texts, work)
            return
        chosen = [pair for pair in pairs if not args.pairs or pair.name in args.pairs]
        run_sections(
            bench, args.only, pairs=chosen, corpora=texts, work=work,
            checkpoints=args.checkpoints,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
