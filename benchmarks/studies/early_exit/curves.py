"""Print early exiting's curves as `cascadebert evaluate --report --early-exit` reads them.

    python -m benchmarks.studies.early_exit.curves --glue GLUE --task sst2 > curves.json

The curves are means over seeds, from the packed logits of `benchmarks/studies/accuracy`. The cost
is the share of the layers that were run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.tools.command import new_parser, run_command
from cascadebert_build.errors import CheckFailed
from cascadebert_build.training.glue import accuracy

from ..accuracy.comparisons import mean_over_seeds
from ..accuracy.packed_logits import load_packed
from ..accuracy.plan import DEEBERT, DEPTH, PABEE
from ..shared import TASKS, add_glue, dev_labels
from .exit_curves import entropy_curve, patience_curve

_POINTS = 40


def main(argv: Sequence[str] | None = None) -> int:
    """Print the curves of one task."""
    parser = new_parser("studies.early_exit.curves", __doc__)
    add_glue(parser)
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> None:
    labels = dev_labels(args.glue, TASKS[args.task])
    packed = load_packed(args.task)
    curves: list[dict[str, Any]] = []
    for name, member, curve_of in (
        ("DeeBERT", DEEBERT, entropy_curve),
        ("PABEE", PABEE, patience_curve),
    ):
        found = [curve_of(packed.of(member, seed)) for seed in packed.seeds(member)]
        if found:
            grid = mean_over_seeds(found, accuracy, labels, _POINTS)
            points = [
                {"cost": round(float(layers) / DEPTH, 4), "accuracy": round(float(value), 4)}
                for layers, value in zip(*grid, strict=True)
            ]
            curves.append({"name": name, "points": points})
    if not curves:
        raise CheckFailed(f"{args.task}: no early exits are packed")
    print(json.dumps({"curves": curves}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
