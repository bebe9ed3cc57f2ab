"""The logits of all runs of a task in one small file, so that figures need no training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..shared import TASKS
from .plan import COMPLETE, PABEE, cross_fitting

FOLDER = Path(__file__).parent / "logits"
NAMES = (*TASKS, *(f"{task}{COMPLETE}" for task in TASKS))
_RECORDS = "records"
# The parts of a run's record that a reader needs beside the figures.
_KEPT = ("seconds", "result", "accuracies", "versions", "hard")


@dataclass(frozen=True, slots=True)
class Packed:
    """The results of a task.

    Attributes:
        task: The name of the task.
        logits: The logits over the development rows by run, columns in GLUE's order: members have
            shape (n, n_labels), early exits (n, layers, n_labels). The cross-fitting has the number
            of errors in each training row instead.
        records: The records by run.
    """

    task: str
    logits: dict[str, NDArray[Any]]
    records: dict[str, Any]

    def seeds(self, *members: str) -> list[int]:
        """Return the seeds for which there is a run of all these members, ascending."""
        found: list[set[int]] = []
        for member in members:
            start = f"{self.task}-{member}-seed"
            found.append({int(n[len(start) :]) for n in self.logits if n.startswith(start)})
        return sorted(set.intersection(*found))

    def of(self, member: str, seed: int) -> NDArray[Any]:
        """Return the logits of one run."""
        return self.logits[f"{self.task}-{member}-seed{seed}"]


def load_packed(task: str) -> Packed:
    """Return what the repository has; empty if it has nothing."""
    path = FOLDER / f"{task}.npz"
    if not path.is_file():
        return Packed(task, {}, {})
    with np.load(path) as stored:
        records = json.loads(str(stored[_RECORDS]))
        logits = {
            name: _both(stored[name]) if stored[name].dtype == np.float16 else stored[name]
            for name in stored.files
            if name != _RECORDS
        }
    return Packed(task, logits, records)


def pack(task: str, runs_folder: Path) -> Packed:
    """Add new runs to what the repository has.

    Half precision keeps three decimals of logits of a few units, and of two labels only the
    difference is kept: their probabilities follow from it. Of PABEE's exits only the predictions
    are kept, because patience compares nothing else. Figures are always made from the packed
    logits, so they are the same everywhere.
    """
    known = load_packed(task)
    # "sst2-complete" is a task of its own, though its name begins like another's.
    others = tuple(f"{name}-" for name in NAMES if name.startswith(f"{task}-"))
    for path in sorted(runs_folder.glob(f"{task}-*.npz")):
        if path.name.startswith(others):
            continue
        with np.load(path) as stored:
            record = json.loads(str(stored["record"]))
            known.logits[path.stem] = (
                stored["wrong"].astype(np.int8)
                if "wrong" in stored.files
                else _both(_difference(stored["logits"]))
            )
        known.records[path.stem] = {key: record[key] for key in _KEPT if key in record}
    FOLDER.mkdir(exist_ok=True)
    if known.logits:
        arrays: dict[str, Any] = {
            **{name: _stored(name, of) for name, of in sorted(known.logits.items())},
            _RECORDS: np.array(json.dumps(known.records, sort_keys=True)),
        }
        np.savez_compressed(FOLDER / f"{task}.npz", **arrays)
    return known


def _stored(name: str, logits: NDArray[Any]) -> NDArray[Any]:
    """Return what is stored of a run; the counts of the cross-fitting are stored as they are."""
    if logits.ndim == 1:
        return logits
    if f"-{PABEE}-" in name:
        logits = np.eye(logits.shape[-1])[logits.argmax(axis=-1)]
    return _difference(logits)


def _difference(logits: NDArray[Any]) -> NDArray[np.float16]:
    """Return what is stored: of two labels the second's logit less the first's, (..., 1)."""
    if logits.shape[-1] == 2:
        logits = np.diff(logits.astype(np.float32), axis=-1)
    return logits.astype(np.float16)


def _both(stored: NDArray[np.float16]) -> NDArray[Any]:
    """Return logits with the stored differences; those of three labels or more are stored whole."""
    if stored.shape[-1] > 1:
        return stored
    half = stored.astype(np.float32) / 2
    return np.concatenate([-half, half], axis=-1)


def wrong_counts(task: str) -> NDArray[Any] | None:
    """Return how often the cross-fitting got each training row wrong; None: not packed."""
    return load_packed(task).logits.get(cross_fitting(task).name)
