"""One run of the plan: train it, and keep its logits on the development rows."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.checkpoints.logits import logits_of_checkpoint
from cascadebert_build.config.rows import Rows
from cascadebert_build.training.config import TrainConfig
from cascadebert_build.training.difficulty import Difficulty, difficulty_from_file, label_difficulty
from cascadebert_build.training.glue import TASKS as GLUE
from cascadebert_build.training.member import train_member

from ..early_exit.deebert import train_deebert
from ..early_exit.pabee import train_pabee
from ..shared import TASKS, GlueTask, dev_rows, train_rows
from .packed_logits import load_packed, wrong_counts
from .plan import (
    DEEBERT,
    DEPTH,
    DIFFICULTY,
    DIFFICULTY_LAYERS,
    FOLDS,
    LARGE,
    LAYERS,
    PABEE,
    SEEDS,
    TEACHER,
    Run,
    cross_fitting,
    glue_name,
)

_LARGE_RATE, _SMALL_RATE = 5e-5, 1e-4
# Its lower exits learn too slowly otherwise.
_PABEE_RATE, _PABEE_EXTRA_EPOCHS = 1e-4, 1
MAX_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Place:
    """Where a plan reads and writes.

    Attributes:
        glue: The folder of GLUE's tsv files.
        base: The checkpoint of the 6-layer backbone, without a head; for complete members, the
            folder of `accuracy.pretrained`.
        work: The folder for everything that is made.
        precision: The precision of the trainings.
    """

    glue: Path
    base: Path
    work: Path
    precision: str

    def checkpoint(self, run: Run) -> Path:
        """Return the folder of a run's weights."""
        return self.work / "checkpoints" / run.name

    def result(self, run: Run) -> Path:
        """Return the file of a run's figures and logits. It exists once the run is done."""
        return self.work / "runs" / f"{run.name}.npz"

    def serves(self, run: Run) -> bool:
        """Whether what others need of a run is here."""
        if run.kind == DIFFICULTY:
            return self.difficulty(run).is_file()
        if run.kind == TEACHER:
            return self.result(run).is_file()
        return self.result(run).is_file() and self.checkpoint(run).is_dir()

    def difficulty(self, run: Run) -> Path:
        """Return the file of the cross-fitting of the run's task."""
        return self.work / "difficulty" / f"{run.task}.json"


def use_one_thread() -> None:
    """Set up a worker. Two trainings on a core each end before two in turn on both cores."""
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()


def restore_difficulty(place: Place, task: str, seeds: Sequence[int] = SEEDS) -> None:
    """Write a task's difficulty from the packed results, if this machine does not have it."""
    path, wrong = place.difficulty(cross_fitting(task)), wrong_counts(task)
    if path.is_file() or wrong is None:
        return
    rows = train_rows(place.glue, TASKS[glue_name(task)])
    path.parent.mkdir(parents=True, exist_ok=True)
    protocol = {"method": "restored from the packed results", "seeds": list(seeds)}
    Difficulty(rows.sha256(), protocol, wrong.astype(np.int64), len(seeds)).write(path)


def restore_teacher(place: Place, task: str, seeds: Sequence[int]) -> None:
    """Write the large members' logits of the training rows from the packed results.

    So small members can be trained where the large member's weights are not.
    """
    packed = load_packed(task)
    for seed in seeds:
        run = Run(task, seed, TEACHER)
        if run.name in packed.logits and not place.serves(run):
            logits = packed.logits[run.name].astype(np.float32)
            write_run(place.result(run), time.monotonic(), {}, logits=logits)


def teacher_logits(place: Place, run: Run) -> NDArray[np.float32]:
    """Return the large member's logits of the training rows, shape (n, n_labels), for a run."""
    with np.load(place.result(Run(run.task, run.seed, TEACHER))) as stored:
        return stored["logits"]


def perform(run: Run, place: Place) -> None:
    """Train, predict, and write the result. An interrupted run continues from its checkpoint."""
    started = time.monotonic()
    task = TASKS[run.task]
    rows = train_rows(place.glue, task)
    config = _config(run, task, place)
    if run.kind == DIFFICULTY:
        cross_fit(
            run, rows, place, started, base=place.base, config=config, seeds=SEEDS,
            layers=DIFFICULTY_LAYERS,
        )  # fmt: skip
        return
    dev = dev_rows(place.glue, task)
    output = place.checkpoint(run)
    large = place.checkpoint(Run(run.task, run.seed, LARGE))
    record: dict[str, Any] = {}
    if run.kind == DEEBERT:
        logits = train_deebert(
            large, rows, dev, task.labels, output, seed=run.seed, max_length=MAX_LENGTH
        )
    elif run.kind == PABEE:
        logits, record = train_pabee(
            place.base, rows, dev, task.labels, output=output, config=config
        )
    else:
        layers = None if run.kind == LARGE else LAYERS[run.layers]
        logits, record = train_run(
            run, rows, dev, place, base=place.base, config=config, layers=layers
        )
    write_run(
        place.result(run), started, record,
        logits=logits.astype(np.float32), labels=dev.label_indices(task.labels),
    )  # fmt: skip


def train_run(
    run: Run,
    rows: Rows,
    dev: Rows,
    place: Place,
    *,
    base: Path,
    config: TrainConfig,
    layers: tuple[int, ...] | None = None,
    known_logits: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Train a member, unless it is there.

    Args:
        run: The member.
        rows: The rows to train on.
        dev: The rows to predict.
        place: Where to read and write.
        base: The pretrained model.
        config: The hyperparameters.
        layers: The layers of the base that it keeps; None: all.
        known_logits: The teacher's logits of `rows`, for a distilled member; None: the large
            member's checkpoint computes them.

    Returns:
        Its logits on the development rows, and the record of its training.
    """
    labels = tuple(GLUE[glue_name(run.task)].labels)
    output = place.checkpoint(run)
    if not (output / "training.json").is_file():
        hard = None
        if run.kind == "dar":
            hard = difficulty_from_file(place.difficulty(run), rows).hard
        own = run.distilled and known_logits is None
        teacher = str(place.checkpoint(Run(run.task, run.seed, LARGE))) if own else None
        train_member(
            rows, str(base), output, config, labels=labels, hard=hard, teacher=teacher,
            teacher_logits=known_logits, layers=layers,
        )  # fmt: skip
    record = json.loads((output / "training.json").read_text())
    return logits_of_checkpoint(str(output), dev.texts, labels, MAX_LENGTH, run.name), record


def cross_fit(
    run: Run,
    rows: Rows,
    place: Place,
    started: float,
    *,
    base: Path,
    config: TrainConfig,
    seeds: Sequence[int],
    layers: tuple[int, ...] | None = None,
) -> None:
    """Find the hard training rows of a task by cross-fitting, and write them."""
    path = place.difficulty(run)
    difficulty = label_difficulty(
        rows,
        str(base),
        path.with_name(f"{path.name}.parts"),
        config,
        folds=FOLDS,
        seeds=seeds,
        labels=GLUE[glue_name(run.task)].labels,
        layers=layers,
    )
    difficulty.write(path)
    record = {"hard": float(difficulty.hard.mean()), "protocol": difficulty.protocol}
    write_run(place.result(run), started, record, wrong=difficulty.wrong)


def write_run(path: Path, started: float, record: dict[str, Any], **arrays: NDArray[Any]) -> None:
    """Write a run's result whole or not at all.

    Args:
        path: A .npz file. It has `record` as JSON beside the arrays.
        started: When the run began, on the clock of `time.monotonic`.
        record: What is needed to repeat it. `seconds` is added.
        arrays: The logits and labels of the development rows, or what the run is for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {**record, "seconds": round(time.monotonic() - started, 1)}
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, record=np.array(json.dumps(record)), **arrays)
    temporary.replace(path)


def _config(run: Run, task: GlueTask, place: Place) -> TrainConfig:
    if run.kind == DIFFICULTY:  # its models have no validation rows to stop them
        return TrainConfig(
            learning_rate=_SMALL_RATE, max_length=MAX_LENGTH, precision=place.precision,
            epochs=3, patience=0,
        )  # fmt: skip
    large = run.layers == DEPTH
    epochs = task.large_epochs if large else task.small_epochs
    rate = _LARGE_RATE if large else _SMALL_RATE
    if run.kind == PABEE:
        epochs, rate = epochs + _PABEE_EXTRA_EPOCHS, _PABEE_RATE
    return TrainConfig(
        epochs=epochs,
        learning_rate=rate,
        max_length=MAX_LENGTH,
        precision=place.precision,
        seed=run.seed,
        objective=run.kind if run.kind not in {LARGE, PABEE, DEEBERT} else "plain",
        metric=GLUE[run.task].metric,
    )
