"""How often do guarantees fail, and what do they cost?

    python -m benchmarks.studies.guarantees --glue GLUE

Writes RESULTS.md, guarantees.json and a picture beside this file. Without --glue only synthetic
populations are tried.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.tools.command import add_number, as_json, new_parser, run_command
from benchmarks.tools.machine import this_machine
from cascadebert_build.config.goals import Goal
from cascadebert_build.progress import counted
from cascadebert_core.guarantee import ACCURACY_DROP, DISAGREEMENT
from cascadebert_engine.files import write_text

from ..shared import TASKS, add_glue, dev_labels, section, write_below
from .plots import draw_outcomes
from .populations import Population, real_population, synthetic_populations
from .trials import GUARANTEE, VALIDATION_SET, Outcome, try_methods

HERE = Path(__file__).parent
_MARK = "<!-- Below: python -m benchmarks.studies.guarantees -->"
_SIZES = (320, 640, 1280, 2560, 5120)
_GOALS = ((DISAGREEMENT, 0.01), (DISAGREEMENT, 0.05), (ACCURACY_DROP, 0.02))


def main(argv: Sequence[str] | None = None) -> int:
    """Try everything, and write the results."""
    parser = new_parser("studies.guarantees", __doc__)
    add_glue(parser, required=False)
    add_number(parser, "--trials", 1000, "draws")
    add_number(parser, "--confidence", 0.95, "confidence of the guarantees")
    parser.add_argument("--output", type=Path, default=HERE)
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> None:
    populations = synthetic_populations()
    if args.glue is not None:
        populations += _real(args.glue)
    cases = [
        (population, Goal(kind, limit, args.confidence), n)
        for population in populations
        for kind, limit in _GOALS
        for n in _SIZES
    ]
    outcomes: list[Outcome] = []
    left_out = 0
    with counted("case", len(cases), what="draws") as advance:
        for population, goal, n in cases:
            several = population.answers.confidence.shape[1] > 1 or population.per_label
            # A scan is quick. A search with a test of every setting is not.
            few = several or goal.kind == ACCURACY_DROP
            trials = max(20, args.trials // 5) if few else args.trials
            found = try_methods(population, goal, n, trials)
            left_out += not found
            outcomes += found
            advance(1)
    args.output.mkdir(parents=True, exist_ok=True)
    result = {"machine": asdict(this_machine()), "outcomes": [asdict(o) for o in outcomes]}
    write_text(args.output / "guarantees.json", as_json(result))
    frame = pd.DataFrame(result["outcomes"])
    draw_outcomes(args.output / "guarantees.png", frame)
    summary = _summary(frame)
    note = f"{left_out} cases are left out: `tune` refuses because there are too few rows."
    body = "\n\n".join([summary, note, *_tables(frame)])
    write_below(args.output / "RESULTS.md", _MARK, "Do guarantees hold?", body)
    print(summary)


def _real(glue: Path) -> list[Population]:
    found = [real_population(name, dev_labels(glue, task)) for name, task in TASKS.items()]
    return [population for population in found if population is not None]


def _summary(outcomes: Any) -> str:
    lines: list[str] = []
    for method, own in outcomes.groupby("method", sort=False):
        worst = own.loc[own["broken"].idxmax()]
        share = (own["broken"] * own["trials"]).sum() / own["trials"].sum()
        lines.append(
            f"{method}: broken in {share:.1%} of the draws, at worst {worst['broken']:.1%} "
            f"({worst['population']}, {worst['kind']} {worst['limit']:g}, n {worst['n']}); "
            f"allowed {1 - worst['confidence']:.0%}"
        )
    return "\n".join(lines)


def _tables(outcomes: Any) -> list[str]:
    names = (
        "guarantee", "rows", "broken: guarantee", "broken: validation set", "deferred: guarantee",
        "validation set", "oracle",
    )  # fmt: skip
    parts: list[str] = []
    for population, own in outcomes.groupby("population", sort=False):
        lines: list[tuple[str, ...]] = []
        for (kind, limit, n), both in own.groupby(["kind", "limit", "n"], sort=False):
            by_method = both.set_index("method")
            kept = by_method.loc[GUARANTEE]
            picked = ("–", "–", "–")
            if VALIDATION_SET in by_method.index:
                of = by_method.loc[VALIDATION_SET]
                picked = tuple(f"{of[name]:.1%}" for name in ("broken", "deferral", "oracle"))
            lines.append(
                (f"{kind} {limit:g}", str(n), f"{kept['broken']:.1%} ± {kept['error']:.1%}",
                 picked[0], f"{kept['deferral']:.1%}", picked[1], picked[2])
            )  # fmt: skip
        parts.append(section(f"## {population}", "", names, lines))
    return parts


if __name__ == "__main__":
    sys.exit(main())
