"""The logits of all runs of a task in one small file, so that figures need no training again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .plan import DIFFICULTY, ROBERTA, TASKS, Run

FOLDER = Path(__file__).parent / "logits"
NAMES = (*TASKS, ROBERTA)
_RECORDS = "records"
# Of a run's record: what a reader wants beside the figures.
_KEPT = ("seconds", "result", "accuracies", "versions", "hard")


@dataclass(frozen=True, slots=True)
class Packed:
    """Results of a task.

    Attributes:
        logits: by run; of members (n, n_labels), of early exits (n, layers, n_labels), over the
            development rows, columns in GLUE's order; the cross-fitting has how often each
            training row was got wrong instead.
        records: by run.
    """

    logits: dict[str, NDArray[Any]]
    records: dict[str, Any]

    def seeds(self, member: str, task: str) -> list[int]:
        """Seeds of which there is a run of the member, ascending."""
        start = f"{task}-{member}-seed"
        return sorted(int(name[len(start) :]) for name in self.logits if name.startswith(start))

    def of(self, task: str, member: str, seed: int) -> NDArray[Any]:
        """Logits of one run."""
        return self.logits[f"{task}-{member}-seed{seed}"]


def packed_path(task: str) -> Path:
    """Where a task's results lie in the repository."""
    return FOLDER / f"{task}.npz"


def load_packed(task: str) -> Packed:
    """What is in the repository; empty where nothing is."""
    path = packed_path(task)
    if not path.is_file():
        return Packed({}, {})
    with np.load(path) as stored:
        records = json.loads(str(stored[_RECORDS]))
        return Packed({name: stored[name] for name in stored.files if name != _RECORDS}, records)


def pack(task: str, runs_folder: Path) -> Packed:
    """Add what was run to what is in the repository.

    Half precision tells logits of a few units apart to the third decimal; figures are always made
    from the packed ones, so that everybody gets the same.
    """
    known = load_packed(task)
    # "sst2-roberta" is a task of its own here, though its name begins like another's.
    others = tuple(f"{name}-" for name in NAMES if name.startswith(f"{task}-"))
    for path in sorted(runs_folder.glob(f"{task}-*.npz")):
        if path.name.startswith(others):
            continue
        with np.load(path) as stored:
            record = json.loads(str(stored["record"]))
            known.logits[path.stem] = (
                stored["wrong"].astype(np.int8)
                if "wrong" in stored.files
                else stored["logits"].astype(np.float16)
            )
        known.records[path.stem] = {key: record[key] for key in _KEPT if key in record}
    FOLDER.mkdir(exist_ok=True)
    if known.logits:
        arrays: dict[str, Any] = {
            **dict(sorted(known.logits.items())),
            _RECORDS: np.array(json.dumps(known.records, sort_keys=True)),
        }
        np.savez_compressed(packed_path(task), **arrays)
    return known


def wrong_counts(task: str) -> NDArray[Any] | None:
    """How often the cross-fitting got each training row wrong; None where it is not packed."""
    return load_packed(task).logits.get(Run(task, 0, DIFFICULTY, 1).name)
