"""One run of the plan: trained, and its logits on the development rows kept."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.early_exit.deebert import train_deebert
from benchmarks.studies.early_exit.pabee import train_pabee
from cascadebert_build.checkpoints.logits import logits_of_checkpoint
from cascadebert_build.config.rows import Rows, rows_from_source
from cascadebert_build.config.schema import DataConfig
from cascadebert_build.training.config import TrainConfig
from cascadebert_build.training.difficulty import Difficulty, difficulty_from_file, label_difficulty
from cascadebert_build.training.glue import TASKS as GLUE
from cascadebert_build.training.member import train_member

from .packed_logits import wrong_counts
from .plan import (
    DEEBERT,
    DEPTH,
    DIFFICULTY,
    DIFFICULTY_LAYERS,
    FOLDS,
    LARGE,
    LAYERS,
    PABEE,
    SAMPLE_SEED,
    SEEDS,
    TASKS,
    GlueTask,
    Run,
)

LARGE_RATE, SMALL_RATE = 5e-5, 1e-4
# Its lower exits learn too slowly otherwise.
PABEE_RATE, PABEE_EXTRA_EPOCHS = 1e-4, 1
MAX_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Place:
    """Where a plan reads and writes.

    Attributes:
        glue: folder of GLUE's tsv files.
        base: checkpoint of the 6-layer backbone, without a head.
        work: everything that is made.
        precision: of the trainings.
    """

    glue: Path
    base: Path
    work: Path
    precision: str

    def checkpoint(self, run: Run) -> Path:
        """Folder of a run's weights."""
        return self.work / "checkpoints" / run.name

    def result(self, run: Run) -> Path:
        """A run's figures and logits; there once it is done."""
        return self.work / "runs" / f"{run.name}.npz"

    def serves(self, run: Run) -> bool:
        """Whether what others need of a run is here."""
        if run.kind == DIFFICULTY:
            return self.difficulty(run).is_file()
        return self.result(run).is_file() and self.checkpoint(run).is_dir()

    def difficulty(self, run: Run) -> Path:
        """What the cross-fitting of the run's task says."""
        return self.work / "difficulty" / f"{run.task}.json"


def use_one_thread() -> None:
    """Set up a worker: two trainings on a core each end before one after the other on both."""
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()


def restore_difficulty(place: Place, task: str) -> None:
    """Write a task's difficulty from the repository's packed results, where a machine is new."""
    run = Run(task, 0, DIFFICULTY, len(DIFFICULTY_LAYERS))
    path, wrong = place.difficulty(run), wrong_counts(task)
    if path.is_file() or wrong is None:
        return
    rows = train_rows(place, TASKS[task])
    path.parent.mkdir(parents=True, exist_ok=True)
    protocol = {"method": "restored from the packed results", "seeds": list(SEEDS)}
    Difficulty(rows.sha256(), protocol, wrong.astype(np.int64), len(SEEDS)).write(path)


def train_rows(place: Place, task: GlueTask) -> Rows:
    """The training rows, or the fixed sample of them."""
    rows = _rows(place.glue / task.train, task)
    if task.sample is None:
        return rows
    rng = np.random.default_rng(SAMPLE_SEED)
    return rows.subset(sorted(rng.permutation(len(rows.texts))[: task.sample].tolist()))


def dev_rows(place: Place, task: GlueTask) -> Rows:
    """The development rows, on which everything is reported."""
    return _rows(place.glue / task.dev, task)


def _rows(path: Path, task: GlueTask) -> Rows:
    columns = GLUE[task.name].columns
    assert columns is not None
    return rows_from_source(DataConfig(str(path), *columns, "", None))


def perform(run: Run, place: Place) -> None:
    """Train, predict, write the result. What is interrupted goes on from its last checkpoint."""
    started = time.monotonic()
    task = TASKS[run.task]
    rows = train_rows(place, task)
    if run.kind == DIFFICULTY:
        difficulty = _cross_fit(run, rows, place)
        write_run(
            place.result(run),
            started,
            {"hard": float(difficulty.hard.mean())},
            wrong=difficulty.wrong,
        )
        return
    labels = GLUE[run.task].labels
    dev = dev_rows(place, task)
    output = place.checkpoint(run)
    large = place.checkpoint(Run(run.task, run.seed, LARGE))
    record: dict[str, Any] = {}
    if run.kind == DEEBERT:
        logits = train_deebert(
            large, rows, dev, labels, output, seed=run.seed, max_length=MAX_LENGTH
        )
    elif run.kind == PABEE:
        config = _config(run, task, place)
        logits, record = train_pabee(place.base, rows, dev, labels, output=output, config=config)
    else:
        if not (output / "training.json").is_file():
            train_member(
                rows,
                str(place.base),
                output,
                _config(run, task, place),
                labels=labels,
                hard=difficulty_from_file(place.difficulty(run), rows).hard
                if run.kind == "dar"
                else None,
                teacher=str(large) if run.distilled else None,
                layers=None if run.kind == LARGE else LAYERS[run.layers],
            )
        record = json.loads((output / "training.json").read_text())
        logits = logits_of_checkpoint(str(output), dev.texts, labels, MAX_LENGTH, run.name)
    truth = dev.label_indices(labels)
    write_run(place.result(run), started, record, logits=logits.astype(np.float32), labels=truth)


def _config(run: Run, task: GlueTask, place: Place) -> TrainConfig:
    large = run.layers == DEPTH
    epochs = task.large_epochs if large else task.small_epochs
    rate = LARGE_RATE if large else SMALL_RATE
    if run.kind == PABEE:
        epochs, rate = epochs + PABEE_EXTRA_EPOCHS, PABEE_RATE
    return TrainConfig(
        epochs=epochs,
        learning_rate=rate,
        max_length=MAX_LENGTH,
        precision=place.precision,
        seed=run.seed,
        objective=run.kind if run.kind not in {LARGE, PABEE} else "plain",
        metric=GLUE[run.task].metric,
    )


def _cross_fit(run: Run, rows: Rows, place: Place) -> Difficulty:
    path = place.difficulty(run)
    difficulty = label_difficulty(
        rows,
        str(place.base),
        path.with_name(f"{path.name}.parts"),
        TrainConfig(
            learning_rate=SMALL_RATE, max_length=MAX_LENGTH, precision=place.precision,
            epochs=3, patience=0,
        ),
        folds=FOLDS,
        seeds=SEEDS,
        labels=GLUE[run.task].labels,
        layers=DIFFICULTY_LAYERS,
    )  # fmt: skip
    difficulty.write(path)
    return difficulty


def write_run(path: Path, started: float, record: dict[str, Any], **arrays: NDArray[Any]) -> None:
    """Write a run's result whole or not at all.

    Args:
        path: a .npz, made with `record` as JSON beside the arrays.
        started: when the run began, on `time.monotonic`'s clock.
        record: what it takes to repeat it; `seconds` is added.
        arrays: logits and labels of the development rows, or what the run is for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {**record, "seconds": round(time.monotonic() - started, 1)}
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, record=np.array(json.dumps(record)), **arrays)
    temporary.replace(path)
