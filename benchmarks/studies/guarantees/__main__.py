"""How often do promises fail, and what do they cost?

    python -m benchmarks.studies.guarantees --glue GLUE

Writes RESULTS.md, guarantees.json and a picture beside this file. Without --glue only synthetic
populations are tried.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from benchmarks.studies.accuracy.plan import TASKS
from benchmarks.studies.accuracy.training import Place, dev_rows
from benchmarks.tools.machine import this_machine
from cascadebert_build.config.goals import Goal
from cascadebert_build.training.glue import TASKS as GLUE
from cascadebert_core.guarantee import ACCURACY_DROP, DISAGREEMENT
from cascadebert_engine.files import write_text

from .plots import draw_outcomes
from .populations import Population, real_population, synthetic_populations
from .trials import Outcome, try_methods

HERE = Path(__file__).parent
MARK = "<!-- Below: python -m benchmarks.studies.guarantees -->"
SIZES = (320, 640, 1280, 2560, 5120)


def main() -> int:
    """Try everything, write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--glue", type=Path, help="folder of GLUE's tsv files")
    parser.add_argument("--trials", type=int, default=1000, help="draws (default: %(default)s)")
    parser.add_argument("--confidence", type=float, default=0.95, help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=HERE)
    args = parser.parse_args()
    populations = synthetic_populations()
    if args.glue is not None:
        populations += _real(args.glue.resolve())
    cases = [
        (population, Goal(kind, limit, args.confidence), n)
        for population in populations
        for kind, limit in ((DISAGREEMENT, 0.01), (DISAGREEMENT, 0.05), (ACCURACY_DROP, 0.02))
        for n in SIZES
    ]
    outcomes: list[Outcome] = []
    left_out = 0
    for population, goal, n in tqdm(cases, disable=None):
        several = population.answers.confidence.shape[1] > 1 or population.per_label
        # A scan is quick; a search with a test of every setting is not.
        few = several or goal.kind == ACCURACY_DROP
        found = try_methods(population, goal, n, max(20, args.trials // 5) if few else args.trials)
        left_out += not found
        outcomes += found
    args.output.mkdir(parents=True, exist_ok=True)
    write_text(
        args.output / "guarantees.json",
        json.dumps(
            {"machine": asdict(this_machine()), "outcomes": [asdict(o) for o in outcomes]}, indent=1
        )
        + "\n",
    )
    draw_outcomes(args.output / "guarantees.png", outcomes)
    path = args.output / "RESULTS.md"
    text = path.read_text(encoding="utf-8") if path.exists() else "# Do promises hold?\n\n"
    write_text(path, text.split(MARK)[0] + MARK + "\n\n" + _tables(outcomes, left_out))
    print(_summary(outcomes))
    return 0


def _real(glue: Path) -> list[Population]:
    found: list[Population] = []
    for name, task in TASKS.items():
        rows = dev_rows(Place(glue, Path(), Path(), ""), task)
        population = real_population(name, rows.label_indices(GLUE[name].labels))
        if population is not None:
            found.append(population)
    return found


def _summary(outcomes: Sequence[Outcome]) -> str:
    lines: list[str] = []
    for method in dict.fromkeys(o.method for o in outcomes):
        own = [o for o in outcomes if o.method == method]
        worst = max(own, key=lambda o: o.broken)
        share = sum(o.broken * o.trials for o in own) / sum(o.trials for o in own)
        lines.append(
            f"{method}: broken in {share:.1%} of the draws, at worst "
            f"{worst.broken:.1%} ({worst.population}, "
            f"{worst.kind} {worst.limit:g}, n {worst.n}); allowed {1 - worst.confidence:.0%}"
        )
    return "\n".join(lines)


def _tables(outcomes: Sequence[Outcome], left_out: int) -> str:
    lines = [
        *_summary(outcomes).splitlines(),
        "",
        f"{left_out} cases are left out: so few rows cannot show the promise, and `tune` refuses.",
        "",
    ]
    for population in dict.fromkeys(o.population for o in outcomes):
        lines += [
            f"## {population}",
            "",
            "| promise | rows | broken: promise | broken: validation set | deferred: promise | "
            "validation set | oracle |",
            "|---|---|---|---|---|---|---|",
        ]
        own = [o for o in outcomes if o.population == population]
        for key in dict.fromkeys((o.kind, o.limit, o.n) for o in own):
            by_method = {o.method: o for o in own if (o.kind, o.limit, o.n) == key}
            kept, picked = by_method["promise"], by_method.get("validation set")
            others = (
                ("–", "–", "–")
                if picked is None
                else (
                    f"{picked.broken:.1%}",
                    f"{picked.deferral:.1%}",
                    f"{picked.oracle or 0:.1%}",
                )
            )
            lines.append(
                f"| {key[0]} {key[1]:g} | {key[2]} | {kept.broken:.1%} ± {kept.error:.1%} | "
                f"{others[0]} | {kept.deferral:.1%} | {others[1]} | {others[2]} |"
            )
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
