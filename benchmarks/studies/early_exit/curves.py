"""Early exiting's curves in the form that `cascadebert evaluate --report --early-exit` draws.

    python -m benchmarks.studies.early_exit.curves --glue GLUE --task sst2 > curves.json

From the packed logits of `benchmarks/accuracy`, means over seeds; cost is layers run over all.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.accuracy.packed_logits import load_packed
from benchmarks.studies.accuracy.plan import DEEBERT, DEPTH, PABEE, TASKS
from benchmarks.studies.accuracy.training import Place, dev_rows
from cascadebert_build.training.glue import TASKS as GLUE
from cascadebert_build.training.glue import accuracy

from .exit_curves import Curve, entropy_curve, patience_curve

_POINTS = 40


def main() -> int:
    """Print the curves of one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--glue", type=Path, required=True, help="folder of GLUE's tsv files")
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    args = parser.parse_args()
    rows = dev_rows(Place(args.glue.resolve(), Path(), Path(), ""), TASKS[args.task])
    labels = rows.label_indices(GLUE[args.task].labels)
    packed = load_packed(args.task)
    curves: list[dict[str, Any]] = []
    for name, member, curve_of in (
        ("DeeBERT", DEEBERT, entropy_curve),
        ("PABEE", PABEE, patience_curve),
    ):
        found = [curve_of(packed.of(args.task, member, s)) for s in packed.seeds(member, args.task)]
        if found:
            curves.append({"name": name, "points": _points(found, labels)})
    if not curves:
        print(f"{args.task}: no early exits are packed", file=sys.stderr)
        return 1
    print(json.dumps({"curves": curves}, indent=1))
    return 0


def _points(curves: list[Curve], labels: Any) -> list[dict[str, float]]:
    start = max(float(curve.layers[0]) for curve in curves)
    grid = np.linspace(start, DEPTH, _POINTS)
    if len(curves[0].settings) <= DEPTH:  # a patience each
        grid = np.mean([curve.layers for curve in curves], axis=0)
    values = [
        np.interp(grid, curve.layers, [accuracy(p, labels) for p in curve.predicted])
        for curve in curves
    ]
    return [
        {"cost": round(float(layers) / DEPTH, 4), "accuracy": round(float(value), 4)}
        for layers, value in zip(grid, np.mean(values, axis=0), strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main())
