"""The ceiling: what a request costs if its stages cost nothing, or what a GPU's would.

    python -m benchmarks.ceiling --glue GLUE --tokenizer CHECKPOINT/tokenizer.json
    python -m benchmarks.ceiling --quick

Two kinds of stages, which use no CPU: "null" answers at once; "gpu" takes a fixed time for a call
and a little for each row, one call at a time. Over both, through the real server with the real
perf_analyzer: the cascade, with its stages where `serve` has them and with all of them inline; a
blocking BLS model; the least that a Python model can do; other servers. And the core alone.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cascadebert_build.errors import UsageError

from ..suite.corpora import corpora
from ..tools.command import RESULTS, add_number, add_wait_quiet, as_json, new_parser, run_command
from ..tools.machine import this_machine
from ..tools.perf_analyzer_binary import find_binary
from .at_rest import at_rest
from .cells import ALL, CHOSEN, QUICK
from .core_alone import core_costs
from .measure import Ceiling
from .predictions import predicted_rows
from .report import PAGE, RECORD, write_report
from .repository import NULL, StageTimes, cascade_name, publish, write_tokenizer
from .timeline_cost import timeline_costs

# Requests that arrive together, and the rows of each.
_SHAPES = ((1, 1), (1, 16), (1, 64), (8, 1), (32, 1))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench."""
    return run_command(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("ceiling", __doc__)
    parser.add_argument("--glue", type=Path, metavar="DIR", help="folder with SST-2")
    parser.add_argument(
        "--tokenizer", type=Path, metavar="FILE",
        help="tokenizer.json of the stages (default: one made from the texts)",
    )  # fmt: skip
    parser.add_argument(
        "--stages", nargs="+", choices=("null", "gpu"), default=["null", "gpu"], metavar="KIND",
        help="null, gpu (default: both)",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="every load; takes an hour")
    parser.add_argument("--quick", action="store_true", help="one load, to check that it works")
    parser.add_argument("--no-peers", action="store_true", help="only Triton's contenders")
    parser.add_argument(
        "--instances", nargs="+", type=int, default=[1], metavar="N",
        help="numbers of instances of the cascade, each of which is measured (default: 1)",
    )  # fmt: skip
    add_number(parser, "--call-us", 1500.0, "microseconds of a call of a GPU's stage")
    add_number(parser, "--row-us", 10.0, "microseconds of each of its rows")
    add_number(parser, "--window-s", 5.0, "seconds of a window")
    add_number(parser, "--rest-s", 20.0, "seconds of a server at rest; 0: not measured")
    add_wait_quiet(parser, "window")
    parser.add_argument(
        "--report-only", action="store_true", help="report the run in --out; measure nothing"
    )
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "ceiling", metavar="DIR",
        help="folder for the results (default: %(default)s)",
    )  # fmt: skip
    return parser


def _run(args: argparse.Namespace) -> None:
    if not args.report_only:
        _measure(args)
    write_report(args.out)
    print((args.out / PAGE).read_text(encoding="utf-8"))


def _measure(args: argparse.Namespace) -> None:
    if args.tokenizer is not None and not args.tokenizer.is_file():
        raise UsageError(f"--tokenizer {args.tokenizer} does not exist: give a tokenizer.json")
    if min(args.instances) < 1:
        raise UsageError(f"--instances {min(args.instances)}: give 1 or more")
    texts = [text for text in corpora(args.glue)["short"].texts if isinstance(text, str)]
    cells = QUICK if args.quick else ALL if args.all else CHOSEN
    binary = find_binary()
    rows: list[dict[str, object]] = []
    predictions: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="cascadebert-ceiling-") as folder:
        scratch = Path(folder)
        tokenizer = args.tokenizer or write_tokenizer(scratch / "tokenizer.json", texts)
        publish(scratch / "core", tokenizer, NULL, [0.25])
        core = core_costs(scratch / "core", cascade_name(0.25), texts, _SHAPES)
        timelines = timeline_costs(scratch / "core", cascade_name(0.25), texts)
        rest = at_rest(scratch / "core", args.rest_s) if args.rest_s > 0 else None
        for kind in args.stages:
            gpu = kind == "gpu"
            times = StageTimes(args.call_us * 1e-6, args.row_us * 1e-6) if gpu else NULL
            ceiling = Ceiling(
                binary,
                tokenizer,
                texts,
                times,
                gpu,
                args.window_s,
                args.wait_quiet_s,
                scratch,
                args.instances,
            )
            found = list(ceiling.measure(cells, peers=not args.no_peers))
            rows += [{"stages": kind, **measured.row()} for measured in found]
            predictions += [
                {"stages": kind, **row} for row in predicted_rows(found, times, gpu=gpu)
            ]
    args.out.mkdir(parents=True, exist_ok=True)
    command = f"python -m benchmarks.ceiling {shlex.join(sys.argv[1:])}"
    figures = {
        "command": command,
        "machine": asdict(this_machine()),
        "core": [{**asdict(cost), "ratio": cost.over_tokenising} for cost in core],
        "timeline": [cost.row() for cost in timelines],
        "at_rest": rest,
        "rows": rows,
        "predicted": predictions,
    }
    (args.out / RECORD).write_text(as_json(figures), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
