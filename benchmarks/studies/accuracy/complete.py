"""Train complete pretrained members of 12, 6 and 3 layers, and the opponents of their cascades.

    python -m benchmarks.studies.accuracy.pretrained MODELS
    python -m benchmarks.studies.accuracy.complete --glue GLUE --models MODELS --work WORK
    python -m benchmarks.studies.accuracy.complete_results --glue GLUE --work WORK

One run after another. What is done, in --work or in the repository's packed results, is not done
again, and an interrupted training continues from its last checkpoint. A GPU is used if there is
one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tools.command import new_parser, run_command
from cascadebert_build.checkpoints.checkpoint import hide_weight_bars
from cascadebert_build.training.config import TrainConfig
from cascadebert_build.training.glue import TASKS as GLUE

from ..early_exit.deebert import train_deebert, train_logits
from ..early_exit.pabee import train_pabee
from ..shared import TASKS, add_glue, dev_rows, train_rows
from .packed_logits import load_packed, pack
from .plan import (
    COMPLETE,
    CUT,
    CUT_DEPTHS,
    DEEBERT,
    DEPTHS,
    DIFFICULTY,
    LARGE,
    PABEE,
    TEACHER,
    Run,
    cross_fitting,
    glue_name,
)
from .training import (
    MAX_LENGTH,
    Place,
    cross_fit,
    restore_difficulty,
    restore_teacher,
    teacher_logits,
    train_run,
    write_run,
)

# The cheapest first, by tokens of an epoch.
ORDER = ("cola", "rte", "mrpc", "sst2", "mnli", "qnli")
_DIFFICULTY_SEEDS = (1,)
# The peak learning rate and the epochs. Nothing stops earlier, because the rate is only low at the
# end. The best epoch is kept.
_LARGE, _CUT, _PABEE = (3e-5, 2), (5e-5, 5), (5e-5, 2)
_SMALL = {6: (1e-4, 6), 3: (2e-4, 8)}
_CROSS_FIT = (2e-4, 3)
# The steps that an interruption of a large training loses at most.
_CHECKPOINT_STEPS = 100
# Epochs that tasks of few rows have besides, and those of their small members.
_MORE = {"rte": 2, "mrpc": 1}
_MORE_OF_SMALL = {"rte": 6, "mrpc": 4}


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing."""
    parser = new_parser("studies.accuracy.complete", __doc__)
    add_glue(parser)
    parser.add_argument("--models", type=Path, required=True, help="of `accuracy.pretrained`")
    parser.add_argument("--work", type=Path, required=True, help="results and checkpoints")
    parser.add_argument("--tasks", default=",".join(ORDER), help="default: %(default)s")
    parser.add_argument("--seeds", default="1", help="default: %(default)s")
    parser.add_argument("--precision", default="auto", help="bf16 halves the time if supported")
    parser.add_argument("--only", default="", help="only members with this in their names")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> None:
    hide_weight_bars()
    place = Place(args.glue.resolve(), args.models.resolve(), args.work.resolve(), args.precision)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    started = time.monotonic()
    for task in args.tasks.split(","):
        restore_difficulty(place, f"{task}{COMPLETE}", _DIFFICULTY_SEEDS)
        restore_teacher(place, f"{task}{COMPLETE}", seeds)
        for run in runs_of_complete(task, seeds):
            if args.only in run.member and run.name not in load_packed(run.task).logits:
                _ensure(run, place, started)
                pack(run.task, place.result(run).parent)
    _say(started, "all done")


def runs_of_complete(task: str, seeds: Sequence[int]) -> Iterator[Run]:
    """Yield all runs of a task, each after those that it needs, the most telling ones first."""
    name = f"{task}{COMPLETE}"
    for seed in seeds:
        yield Run(name, seed, LARGE)
        yield Run(name, seed, DEEBERT)
        yield Run(name, seed, TEACHER)
        for distilled in (False, True):
            for depth in DEPTHS:
                yield Run(name, seed, "plain", depth, distilled)
        for depth in CUT_DEPTHS:
            yield Run(name, seed, CUT, depth, distilled=True)
    yield cross_fitting(name)
    for seed in seeds:
        for distilled in (False, True):
            yield Run(name, seed, "dar", DEPTHS[0], distilled)
    for seed in seeds:
        yield Run(name, seed, PABEE)


def _ensure(run: Run, place: Place, started: float) -> None:
    """Perform a run, and first those that it needs."""
    for needed in run.needs:
        if not place.serves(needed):
            _ensure(needed, place, started)
    if not place.serves(run):
        _say(started, f"{run.name} begins")
        perform(run, place)
        _say(started, f"{run.name} is done")


def _say(started: float, what: str) -> None:
    print(f"{(time.monotonic() - started) / 60:6.1f} min  {what}", flush=True)


def perform(run: Run, place: Place) -> None:
    """Train, predict, and write the result. An interrupted run continues from its checkpoint."""
    started = time.monotonic()
    task = TASKS[glue_name(run.task)]
    rows, dev = train_rows(place.glue, task), dev_rows(place.glue, task)
    base, config = place.base / base_of(run), _config(run, place)
    if run.kind == DIFFICULTY:
        cross_fit(run, rows, place, started, base=base, config=config, seeds=_DIFFICULTY_SEEDS)
        return
    if run.kind == TEACHER:
        known = train_logits(place.checkpoint(Run(run.task, run.seed, DEEBERT)))
        write_run(place.result(run), started, {}, logits=known)
        return
    output = place.checkpoint(run)
    record: dict[str, Any] = {}
    if run.kind == DEEBERT:
        logits = train_deebert(
            place.checkpoint(Run(run.task, run.seed, LARGE)), rows, dev, task.labels, output,
            seed=run.seed, max_length=MAX_LENGTH, bf16=place.precision == "bf16",
        )  # fmt: skip
    elif run.kind == PABEE:
        logits, record = train_pabee(base, rows, dev, task.labels, output=output, config=config)
    else:
        logits, record = train_run(
            run, rows, dev, place, base=base, config=config,
            layers=tuple(range(run.layers)) if run.kind == CUT else None,
            known_logits=teacher_logits(place, run) if run.distilled else None,
        )  # fmt: skip
    truth = dev.label_indices(task.labels)
    write_run(place.result(run), started, record, logits=logits.astype(np.float32), labels=truth)


def base_of(run: Run) -> str:
    """Return the folder of the pretrained model that a run begins with."""
    if run.kind in {LARGE, DEEBERT, PABEE, CUT}:
        return "mpnet"
    return f"l{run.layers}"


def _config(run: Run, place: Place) -> TrainConfig:
    task = glue_name(run.task)
    if run.kind == DIFFICULTY:
        rate, epochs = _CROSS_FIT
    else:
        rate, epochs = {LARGE: _LARGE, CUT: _CUT, PABEE: _PABEE, DEEBERT: _LARGE}.get(
            run.kind
        ) or _SMALL[run.layers]
    small = run.kind not in {LARGE, DEEBERT, PABEE, CUT, DIFFICULTY}
    return TrainConfig(
        epochs=epochs + (_MORE_OF_SMALL if small else _MORE).get(task, 0),
        learning_rate=rate,
        patience=0,
        checkpoint_steps=_CHECKPOINT_STEPS if run.kind in {LARGE, PABEE} else 0,
        max_length=MAX_LENGTH,
        precision=place.precision,
        seed=run.seed,
        objective="dar" if run.kind == "dar" else "plain",
        metric=GLUE[task].metric,
    )


if __name__ == "__main__":
    sys.exit(main())
