"""Which training rows are hard: most models that were not trained on them get them wrong.

CascadeBERT labels difficulty with several seeds and does not say how it trains the models. Here it
is cross-fitting: rows are split into folds, and each fold is predicted by a model trained on the
others. Every seed has other folds. Rows of equal text share a fold, so no row is predicted by a
model that was trained on it or on the same text.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_engine.files import read_json, sha256_of, write_json

from ..checkpoints.checkpoint import sha256_of_checkpoint
from ..checkpoints.logits import logits_of_checkpoint
from ..config.rows import Rows
from ..errors import UsageError
from ..graphs.logits import load_logits, save_logits
from ..progress import say, timed
from . import processes
from .config import TrainConfig, label_names
from .member import train_member

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How many predictions of each row were wrong.

    Attributes:
        data_sha256: Hash of texts and labels.
        protocol: Base checkpoint, folds, seeds and hyperparameters.
        wrong: Number of wrong predictions, shape (n,).
        predictions: Number of predictions of each row, one for every seed.
    """

    data_sha256: str
    protocol: dict[str, Any]
    wrong: NDArray[np.int64]
    predictions: int

    @property
    def hard(self) -> NDArray[np.bool_]:
        """Rows with more wrong predictions than right ones, bool of shape (n,)."""
        return 2 * self.wrong > self.predictions

    def write(self, path: Path) -> None:
        """Write the counts with the protocol that made them."""
        write_json(
            path,
            {
                "schema_version": SCHEMA_VERSION,
                "data_sha256": self.data_sha256,
                "protocol": self.protocol,
                "predictions": self.predictions,
                "wrong": self.wrong.tolist(),
            },
        )


def difficulty_path(data: str) -> Path:
    """The default file for the difficulty of a data file, beside it."""
    path = Path(data)
    return path.with_name(f"{path.name}.difficulty.json")


def difficulty_from_file(path: Path, rows: Rows) -> Difficulty:
    """Read the difficulty of `rows` from a file of `Difficulty.write`.

    Raises:
        UsageError: The file is missing, damaged, or belongs to other rows.
    """
    raw = read_json(path)
    again = "run `cascadebert difficulty` on them"
    if raw is None or raw.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(f"{path} is missing or has no difficulty: {again}")
    if raw.get("data_sha256") != rows.sha256() or len(raw["wrong"]) != len(rows.texts):
        raise UsageError(f"{path} belongs to other rows than {rows.source}: {again}")
    return Difficulty(
        raw["data_sha256"], raw["protocol"], np.array(raw["wrong"]), int(raw["predictions"])
    )


def label_difficulty(
    rows: Rows,
    base: str,
    parts: Path,
    config: TrainConfig,
    *,
    folds: int = 5,
    seeds: Sequence[int] = (1, 2, 3),
    labels: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
) -> Difficulty:
    """Cross-fit `rows` with folds x seeds trainings; only out-of-fold predictions count.

    Args:
        rows: The training rows, with labels.
        base: Folder or hub id of the checkpoint to train from.
        parts: Folder for the predictions of each training. Predictions that are there already, for
            the same rows and settings, are used again.
        config: Hyperparameters of each training; its seed is replaced.
        folds: 2 or more.
        seeds: Of weights, order and folds.
        labels: Names, in the order of integer labels.
        layers: Layers of the base that the models keep, from 0; None: all.

    Raises:
        UsageError: There are too few rows, or a fold lacks a label.
    """
    names = label_names(rows, base, labels)
    targets = rows.label_indices(names)
    protocol = {
        "method": "cross-fitting, out-of-fold predictions; hard: most of them wrong",
        "base": base,
        "base_sha256": sha256_of_checkpoint(base),
        "layers": None if layers is None else list(layers),
        "folds": folds,
        "seeds": list(seeds),
        "training": {**asdict(config), "seed": "each of the seeds"},
        "labels": list(names),
    }
    wrong = np.zeros(len(targets), dtype=np.int64)
    for seed in seeds:
        fold_of = folds_of_rows(rows, targets, folds, seed)
        for fold in range(folds):
            held_out = np.flatnonzero(fold_of == fold)
            path = parts / f"seed-{seed}-fold-{fold}.npz"
            # A training depends on its own seed alone.
            key = sha256_of(rows.sha256(), {**protocol, "seeds": [seed]}, seed, fold)
            step = f"{seed}, {fold + 1}/{folds}"
            logits = load_logits(path, key)
            if logits is None:
                with timed("seed", step) as note:
                    logits = _out_of_fold(
                        rows, held_out, base, replace(config, seed=seed), names,
                        layers=layers, folder=path.with_name(f"{path.stem}-{key[:12]}"),
                    )  # fmt: skip
                    if processes.is_first():
                        save_logits(path, key, logits)
                    correct = float((logits.argmax(axis=1) == targets[held_out]).mean())
                    note(f"{len(held_out)} rows, {correct:.2%} correct")
            else:
                say("seed", step, "kept")
            wrong[held_out] += logits.argmax(axis=1) != targets[held_out]
    return Difficulty(rows.sha256(), protocol, wrong, len(seeds))


def folds_of_rows(
    rows: Rows, targets: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.int64]:
    """The fold of each row, shape (n,): equal texts share one, and every label is in every fold.

    Raises:
        UsageError: A label has fewer distinct texts than there are folds.
    """
    if folds < 2:
        raise UsageError(f"{folds} folds: give 2 or more")
    groups: dict[Any, list[int]] = {}
    for i, text in enumerate(rows.texts):
        groups.setdefault(text, []).append(i)
    rng = np.random.default_rng(seed)
    fold_of = np.empty(len(targets), dtype=np.int64)
    # Texts of one label are dealt to the folds in random order; a text with two labels counts once.
    of_label: dict[int, list[list[int]]] = {}
    for indices in groups.values():
        of_label.setdefault(int(targets[indices[0]]), []).append(indices)
    for _, members in sorted(of_label.items()):
        if len(members) < folds:
            raise UsageError(
                f"{rows.where(members[0][0])}: its label {_label(rows, members[0][0])} has "
                f"{_texts(len(members))}, too few for {folds} folds: give fewer folds, or more "
                "rows of the label"
            )
        start = int(rng.integers(folds))
        for place, which in enumerate(rng.permutation(len(members))):
            fold_of[members[which]] = (start + place) % folds
    return fold_of


def _label(rows: Rows, row: int) -> str:
    return repr(rows.labels[row]) if rows.labels is not None else "?"


def _texts(n: int) -> str:
    return "1 distinct text" if n == 1 else f"{n} distinct texts"


def _out_of_fold(
    rows: Rows,
    held_out: NDArray[np.intp],
    base: str,
    config: TrainConfig,
    names: tuple[str, ...],
    *,
    layers: Sequence[int] | None,
    folder: Path,
) -> NDArray[np.float32]:
    """Logits of the held-out rows from a model that was trained on the other rows.

    The model stays in `folder` until its predictions are done, so an interrupted run continues. The
    folder's name has all that the model depends on.
    """
    if not (folder / "training.json").is_file():
        if processes.is_first():
            shutil.rmtree(folder, ignore_errors=True)
        train = rows.subset(np.setdiff1d(np.arange(len(rows.texts)), held_out).tolist())
        train_member(train, base, folder, config, labels=names, layers=layers)
    texts = [rows.texts[i] for i in held_out]
    logits = logits_of_checkpoint(str(folder), texts, names, config.max_length, "predict")
    processes.wait_for_all()
    if processes.is_first():
        shutil.rmtree(folder, ignore_errors=True)
    return logits
