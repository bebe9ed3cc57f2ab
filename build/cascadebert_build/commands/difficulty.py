"""`difficulty`: which training rows are hard."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..config.rows import Rows
from ..errors import UsageError
from ..pipeline.preflight import TrainingInputs, check_difficulty
from ..training import processes
from ..training.config import label_names
from ..training.difficulty import Difficulty, difficulty_path, label_difficulty
from ..training.judges import Judges, judges_of
from .train import (
    add_data_arguments,
    base_of,
    labels_of,
    layers_of,
    rows_of,
    settings_from_arguments,
    training_arguments,
)

_EXAMPLES = 5
_WIDTH = 76


def add_difficulty_parser(commands: Any) -> None:
    """Add `difficulty`."""
    summary = "find the training rows that models trained without them mostly get wrong"
    parser = commands.add_parser("difficulty", help=summary, description=summary)
    parser.set_defaults(run=_difficulty)
    add_data_arguments(parser)
    parser.add_argument("--folds", type=int, default=5, metavar="K", help="default: %(default)s")
    parser.add_argument(
        "--seeds", default="1,2,3", metavar="A,B,…", help="train every fold once for each seed "
        "(default: %(default)s)"
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: DATA.difficulty.json beside the data"
    )
    training_arguments(parser, without=("seed",))
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")


def _difficulty(args: argparse.Namespace) -> int:
    output = args.output or difficulty_path(args.data)
    rows = rows_of(args, args.data, "train")
    base = base_of(args)
    labels = labels_of(args)
    layers, seeds = layers_of(args), _seeds(args.seeds)
    settings = settings_from_arguments(args)
    parts = output.with_name(f"{output.name}.parts")
    inputs = TrainingInputs(rows, base, parts / "model", settings, labels)
    check_difficulty(inputs, output, args.folds, seeds)
    difficulty = label_difficulty(
        rows,
        base,
        parts,
        settings,
        folds=args.folds,
        seeds=seeds,
        labels=labels,
        layers=layers,
    )
    if not processes.is_first():
        return 0
    difficulty.write(output)
    names = label_names(rows, base, labels)
    judges = judges_of(difficulty, rows.label_indices(names))
    if args.json:
        summary = {
            "output": str(output),
            "rows": len(rows.texts),
            "hard": int(difficulty.hard.sum()),
            "accuracy": judges.accuracy,
            "majority": judges.majority,
            "too_weak": judges.too_weak,
            "warning": judges.warning,
        }
        print(json.dumps(summary))
    else:
        print(_summary(rows, difficulty, judges, names))
        print(f"\nwritten to {output}")
    return 0


def _seeds(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts) or len(set(parts)) != len(parts):
        raise UsageError(f"--seeds {text!r}: give distinct whole numbers, such as 1,2,3")
    return tuple(int(part) for part in parts)


def _summary(rows: Rows, difficulty: Difficulty, judges: Judges, names: tuple[str, ...]) -> str:
    """The share of hard rows by label, and the hardest rows."""
    targets = rows.label_indices(names)
    hard = difficulty.hard
    lines = [f"{len(hard)} rows, {hard.mean():.1%} of them hard", ""]
    width = max(len(name) for name in names) + 2
    for i, name in enumerate(names):
        of_label = hard[targets == i]
        share = float(of_label.mean()) if len(of_label) else 0.0
        lines.append(f"{name:{width}}{len(of_label):>8} rows {share:>8.1%} hard")
    worst = np.argsort(-difficulty.wrong, kind="stable")[:_EXAMPLES]
    worst = worst[hard[worst]]
    if len(worst):
        lines += ["", "among the hardest:"]
    for i in worst:
        text = rows.texts[i] if isinstance(rows.texts[i], str) else " | ".join(rows.texts[i])
        lines.append(f"  {names[targets[i]]:{width}}{str(text)[:_WIDTH]}")
    lines += [
        "",
        f"the fold models are right on {judges.accuracy:.1%} of the rows; the most frequent label "
        f"is on {judges.majority:.1%}",
    ]
    if judges.warning is not None:
        lines.append(f"WARNING: {judges.warning}")
    return "\n".join(lines)
