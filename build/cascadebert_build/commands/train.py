"""`train`: fine-tune one member."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from cascadebert_client.sources import FORMATS

from ..config.checkpoint_source import checkpoint_source
from ..config.labels import LABELS_ARE
from ..config.rows import Rows, rows_from_source
from ..config.schema import DataConfig
from ..errors import UsageError
from ..pipeline.preflight import TrainingInputs, check_training
from ..progress import say
from ..proposal.columns import GivenColumns, training_columns
from ..proposal.data_file import columns_of_data, sample_of_file
from ..training import processes
from ..training.config import TrainConfig, label_names
from ..training.difficulty import difficulty_from_file, difficulty_path
from ..training.glue import HUB_DATA_SET, METRICS, TASKS
from ..training.judges import judges_of
from ..training.member import train_member
from ..training.objectives import OBJECTIVES, ObjectiveConfig

_HELP = {
    "epochs": "largest number of epochs",
    "learning_rate": "peak learning rate",
    "batch_size": "rows in a step",
    "warmup_ratio": "share of the steps in which the learning rate rises",
    "weight_decay": "weight decay of AdamW",
    "patience": "stop after this many validations without a better metric; 0: never stop",
    "max_length": "largest number of tokens, including special ones",
    "precision": "auto, fp32, bf16 or fp16; auto: bf16 or fp16 on a GPU, fp32 on a CPU",
    "checkpoint_steps": "validate and save after this many steps; 0: after every epoch",
    "seed": "seed of weights, row order and split",
}
_CONSTANTS_HELP = {
    "margin": "dar: confidence of easy rows should exceed that of hard ones by this",
    "weight": "dar: weight of the regulariser beside the cross-entropy",
    "alpha": "gatekeeper: weight of the correct rows",
    "distill_weight": "with --teacher: share of distillation in the loss",
    "distill_temperature": "with --teacher: temperature of both members",
}


def add_train_parser(commands: Any) -> None:
    """Add `train`."""
    summary = "fine-tune one member from a base checkpoint and a data file"
    parser = commands.add_parser("train", help=summary, description=summary)
    parser.set_defaults(run=_train)
    add_data_arguments(parser)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder of the trained member"
    )
    parser.add_argument("--validation", metavar="DATA", help="default: a tenth of DATA")
    parser.add_argument(
        "--objective", choices=OBJECTIVES, default="plain",
        help="what is minimised, see docs/training.md (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--difficulty",
        type=Path,
        metavar="FILE",
        help="difficulty of DATA, written by `cascadebert difficulty`; for --objective dar "
        "(default: DATA.difficulty.json)",
    )
    parser.add_argument("--teacher", metavar="CHECKPOINT", help="a larger member to distil from")
    parser.add_argument(
        "--metric",
        choices=sorted(METRICS),
        help="metric that chooses the epoch (default: the task's, or accuracy)",
    )
    for field in fields(ObjectiveConfig):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=float, default=field.default, metavar="X",
            help=f"{_CONSTANTS_HELP[field.name]} (default: %(default)s)",
        )  # fmt: skip
    training_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the rows to train on, their columns, and the base checkpoint."""
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a tsv, csv, jsonl, json or parquet file, which may be compressed (.gz), or a hub "
        "data set",
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="the files' format (default: what their endings tell)"
    )
    parser.add_argument("--base", required=True, metavar="CHECKPOINT", help="folder or hub id")
    parser.add_argument(
        "--layers",
        metavar="0,2,…",
        help="keep only these layers of the base, if there is no small base for a small member",
    )
    parser.add_argument(
        "--task",
        choices=sorted(TASKS),
        help="GLUE task: takes its columns, labels and metric, for its files or the hub's data set",
    )
    parser.add_argument(
        "--text", metavar="COLUMN", help="default: text, or what is recognised in a file without it"
    )
    parser.add_argument(
        "--text-pair",
        metavar="COLUMN",
        help="default: no pairs of texts; in a file without a column text, what is recognised",
    )
    parser.add_argument(
        "--label", metavar="COLUMN", help="default: label, or the only column with a usual name"
    )
    parser.add_argument(
        "--labels", metavar="A,B,…", help="label names in the order of integer labels"
    )
    parser.add_argument(
        "--labels-are",
        choices=LABELS_ARE,
        default="auto",
        help="whether numbers in the label column are names or indices (default: what fits all)",
    )
    parser.add_argument("--subset", metavar="NAME", help="configuration of a hub data set")


def training_arguments(parser: argparse.ArgumentParser, without: tuple[str, ...] = ()) -> None:
    """Add the hyperparameters of a training."""
    for field in fields(TrainConfig):
        if field.name in _HELP and field.name not in without:
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=type(field.default), default=field.default,
                metavar="NAME" if field.name == "precision" else "N",
                help=f"{_HELP[field.name]} (default: %(default)s)",
            )  # fmt: skip


def settings_from_arguments(args: argparse.Namespace) -> TrainConfig:
    """Read the hyperparameters."""
    return TrainConfig(**{name: getattr(args, name) for name in _HELP if hasattr(args, name)})


def rows_of(args: argparse.Namespace, path: str, split: str) -> Rows:
    """Read rows of a file or hub data set, with the given columns or those of the task.

    Raises:
        UsageError: The rows cannot be read, or the task's file has no header.
    """
    task = TASKS.get(args.task) if args.task else None
    columns: tuple[str, str | None, str] = ("text", None, "label")
    subset = args.subset
    if task is not None and not Path(path).exists():
        columns = (*task.hub_columns, "label")
        subset = subset or args.task
        split = task.validation if split == "validation" else split
    elif task is not None:
        if task.columns is None:
            raise UsageError(
                f"{path}: GLUE's file of {args.task} has no header: give it one and name the "
                f"columns without --task, or take it from the hub ({HUB_DATA_SET})"
            )
        columns = task.columns
    elif Path(path).is_file():
        columns = _columns_of_file(args, path)
    return rows_from_source(
        DataConfig(
            path,
            args.text or columns[0],
            args.text_pair or columns[1],
            args.label or columns[2],
            split,
            subset,
            labels_are=args.labels_are,
            format=args.format,
        ),
        "name the columns with --text, --text-pair and --label",
    )


def _columns_of_file(args: argparse.Namespace, path: str) -> tuple[str, str | None, str]:
    """The columns of a file: the given ones, the usual ones, or what is recognised.

    Raises:
        UsageError: They are not clear, or the file cannot be read.
    """
    names = columns_of_data(path, args.format)
    text = args.text or ("text" if "text" in names else None)
    label = args.label or ("label" if "label" in names else None)
    if text is not None and label is not None:
        return text, args.text_pair, label
    sample = sample_of_file(path, args.format)
    found = training_columns(path, sample, GivenColumns(text, args.text_pair, label))
    assert found.label is not None
    if processes.is_first():
        pair = "" if found.text_pair is None else f" and {found.text_pair!r}"
        what = f"text {found.text!r}{pair}, label {found.label!r}"
        say("columns", Path(path).name[:12], what)
    return found.text, found.text_pair, found.label


def labels_of(args: argparse.Namespace) -> list[str] | None:
    """Label names in the order of integer labels: the given ones, or the task's."""
    if args.labels is not None:
        return args.labels.split(",")
    return list(TASKS[args.task].labels) if args.task else None


def base_of(args: argparse.Namespace) -> str:
    """The base checkpoint: an absolute folder, or a hub id."""
    return _source(args.base)


def _source(given: str) -> str:
    return checkpoint_source(given, Path.cwd())


def layers_of(args: argparse.Namespace) -> tuple[int, ...] | None:
    """The layers of the base to keep; None is all.

    Raises:
        UsageError: A layer is not a number.
    """
    if args.layers is None:
        return None
    parts = args.layers.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--layers {args.layers!r}: give numbers from 0 on, such as 0,2,5")
    return tuple(int(part) for part in parts)


def _train(args: argparse.Namespace) -> int:
    constants = ObjectiveConfig(
        **{field.name: getattr(args, field.name) for field in fields(ObjectiveConfig)}
    )
    rows = rows_of(args, args.data, "train")
    difficulty = None
    if args.objective == "dar":
        path = args.difficulty or difficulty_path(args.data)
        difficulty = difficulty_from_file(path, rows)
    inputs = TrainingInputs(
        rows,
        base_of(args),
        args.output,
        replace(
            settings_from_arguments(args),
            objective=args.objective,
            constants=constants,
            metric=args.metric or (TASKS[args.task].metric if args.task else "accuracy"),
        ),
        labels=labels_of(args),
        validation=None
        if args.validation is None
        else rows_of(args, args.validation, "validation"),
        hard=None if difficulty is None else difficulty.hard,
        teacher=None if args.teacher is None else _source(args.teacher),
    )
    layers = layers_of(args)
    check_training(inputs)
    if difficulty is not None and processes.is_first():
        names = label_names(rows, inputs.base, inputs.labels)
        warning = judges_of(difficulty, rows.label_indices(names)).warning
        if warning is not None:
            say("WARNING", "difficulty", warning)
    result = train_member(
        inputs.rows,
        inputs.base,
        inputs.output,
        inputs.config,
        labels=inputs.labels,
        validation=inputs.validation,
        hard=inputs.hard,
        layers=layers,
        teacher=inputs.teacher,
    )
    if not processes.is_first():
        return 0
    if args.json:
        print(json.dumps(asdict(result)))
    else:
        print(
            f"{args.output}: validation {result.metric} {result.best:.2%} "
            f"({result.train_rows} training rows, {result.validation_rows} held out, "
            f"{result.rows_per_s:.0f} rows/s)"
        )
    return 0
