"""Compare gates on the packed logits of the accuracy study, and write RESULTS.md and a picture.

OPENBLAS_NUM_THREADS=1 python -m benchmarks.studies.gates --glue GLUE
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from benchmarks.tools.command import add_number, new_parser, run_command, say
from cascadebert_build.errors import CheckFailed

from ..shared import add_glue, write_below
from .comparisons import Effort
from .measured import measure_one, measure_two
from .measures import HeldOut
from .pairs import groups_of, twins_of
from .plots import draw_ratios
from .results import Results, body_of

HERE = Path(__file__).parent
_MARK = "<!-- Below: python -m benchmarks.studies.gates -->"


def main(argv: Sequence[str] | None = None) -> int:
    """Compute, draw and write."""
    parser = new_parser("studies.gates", __doc__)
    add_glue(parser)
    add_number(parser, "--splits", 6, "random splits into halves")
    add_number(parser, "--resamples", 200, "draws of the rows for intervals")
    add_number(parser, "--held-out", 2560, "rows that a promise is tuned on")
    add_number(parser, "--jobs", 2, "processes")
    parser.add_argument("--tasks", default="", help="comma-separated packed names; default: all")
    parser.add_argument("--output", type=Path, default=HERE, help="default: beside this file")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> None:
    effort = Effort(args.splits, args.resamples, HeldOut.of(args.held_out))
    wanted = set(filter(None, args.tasks.split(",")))
    groups, twins = (
        [group for group in found if not wanted or group.task in wanted]
        for found in (groups_of(args.glue), twins_of(args.glue))
    )
    if not groups:
        raise CheckFailed(f"no packed logits of {args.tasks or 'any task'}: see studies.accuracy")
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        of_twins = [pool.submit(measure_two, group, effort) for group in twins]
        of_groups = [pool.submit(measure_one, group, effort) for group in groups]
        for n, done in enumerate(as_completed([*of_groups, *of_twins]), start=1):
            say(f"{n:3} of {len(of_groups) + len(of_twins)}: {done.result()[0]}")
        singles, by_label, blends = zip(*(one.result()[1] for one in of_groups), strict=True)
        pairs = [one.result()[1] for one in of_twins]
    results = Results(list(singles), pairs, list(by_label), list(blends))
    args.output.mkdir(parents=True, exist_ok=True)
    write_below(args.output / "RESULTS.md", _MARK, "Which gate?", body_of(results))
    draw_ratios(args.output / "gates.png", results)


if __name__ == "__main__":
    sys.exit(main())
