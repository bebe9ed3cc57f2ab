"""`train`: fine-tune one member."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..config import DataConfig
from ..data import rows_from_source
from ..objectives import OBJECTIVES
from ..train import TrainConfig, train_member

_HELP = {
    "epochs": "at most",
    "learning_rate": "peak",
    "batch_size": "rows in a step",
    "warmup_ratio": "share of the steps in which the learning rate rises",
    "weight_decay": "of AdamW",
    "patience": "epochs without a better validation accuracy before it stops; 0: never stop",
    "max_length": "tokens, special ones included",
    "seed": "of weights, order and split",
}


def add_train_parser(commands: Any) -> None:
    """Add `train`."""
    summary = "fine-tune one member from a base checkpoint and a data file"
    parser = commands.add_parser("train", help=summary, description=summary)
    parser.set_defaults(run=_train)
    parser.add_argument("data", metavar="DATA", help="tsv, csv, jsonl, or a hub data set")
    parser.add_argument(
        "--base", type=Path, required=True, metavar="CHECKPOINT", help="folder or hub id"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--validation", metavar="DATA", help="default: a tenth of DATA")
    parser.add_argument("--text", default="text", metavar="COLUMN", help="default: %(default)s")
    parser.add_argument("--text-pair", metavar="COLUMN")
    parser.add_argument("--label", default="label", metavar="COLUMN", help="default: %(default)s")
    parser.add_argument("--labels", metavar="A,B,…", help="names, in the order of integer labels")
    parser.add_argument("--subset", metavar="NAME", help="configuration of a hub data set")
    parser.add_argument("--objective", choices=sorted(OBJECTIVES), default="plain")
    for field in fields(TrainConfig):
        if field.name in _HELP:
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=type(field.default), default=field.default, metavar="N",
                help=f"{_HELP[field.name]} (default: %(default)s)",
            )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")


def _train(args: argparse.Namespace) -> int:
    def rows(path: str, split: str) -> Any:
        return rows_from_source(
            DataConfig(path, args.text, args.text_pair, args.label, split, args.subset)
        )

    config = TrainConfig(objective=args.objective, **{name: getattr(args, name) for name in _HELP})
    result = train_member(
        rows(args.data, "train"),
        str(args.base.resolve()) if args.base.exists() else str(args.base),
        args.output,
        config,
        labels=None if args.labels is None else args.labels.split(","),
        validation=None if args.validation is None else rows(args.validation, "validation"),
    )
    if args.json:
        print(json.dumps(asdict(result)))
    else:
        print(
            f"{args.output}: validation accuracy {result.best_accuracy:.2%} "
            f"({result.train_rows} training rows, {result.validation_rows} held out)"
        )
    return 0
