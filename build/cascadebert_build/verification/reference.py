"""Rows with their FP32 logits, stored for a machine with a GPU and without ONNX Runtime."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.task import SINGLE_LABEL
from cascadebert_core.tokenization import EncodedRow, Text

from ..errors import UsageError
from ..graphs.logits import Run, StageInput, save_arrays
from ..progress import counted
from .allowance import Allowance
from .sample import FEWEST_ROWS, sample_of_texts


@dataclass(frozen=True, slots=True)
class Reference:
    """What an artefact is compared with.

    Attributes:
        rows: Real text, tokenised and truncated.
        logits: Float32 of shape (n, n_labels), of the FP32 graph, row i for rows[i], which is alone
            in its call.
        names: Of the rows, for messages.
        special: Number of rows with special tokens in their text; they are the last.
        task: One of `cascadebert_core.task.TASKS`, which says when two rows have the same answer.
        left_out: Number of rows that a check that is short of time has not taken.
    """

    rows: tuple[EncodedRow, ...]
    logits: NDArray[np.float32]
    names: tuple[str, ...]
    special: int
    task: str = SINGLE_LABEL
    left_out: int = 0

    @property
    def plain(self) -> int:
        """Number of rows without special tokens in their text; they are the first."""
        return len(self.rows) - self.special

    def save(self, path: Path) -> None:
        """Write the concatenated rows, with their lengths, names and logits."""
        save_arrays(
            path,
            lengths=np.array([len(row) for row in self.rows]),
            truncated=np.array([row.truncated for row in self.rows]),
            ids=np.concatenate([row.ids for row in self.rows]),
            type_ids=np.concatenate([row.type_ids for row in self.rows]),
            logits=self.logits,
            names=np.array(self.names),
            special=np.array(self.special),
            task=np.array(self.task),
        )


def reference_of_texts(
    run: Run,
    stage: StageInput,
    texts: Sequence[Text],
    task: str = SINGLE_LABEL,
    seconds: float | None = None,
) -> Reference:
    """The sample of the ONNX check with the FP32 graph's logits.

    Args:
        run: The FP32 graph.
        stage: How texts become batches.
        texts: The held-out rows.
        task: What the member's answers are, one of `cascadebert_core.task.TASKS`.
        seconds: About how long it may take, by leaving out rows; None: as long as it takes.
    """
    sample = sample_of_texts(texts, stage)
    rows = stage.encoder.encode(sample.texts)
    allowed = Allowance(seconds)
    logits: dict[int, NDArray[np.float32]] = {}
    with counted("row", len(rows), what="reference", work=sum(map(len, rows))) as advance:
        for i in sample.most_telling_first():
            if len(logits) >= FEWEST_ROWS and not allowed.fits(len(rows[i])):
                continue
            logits[i] = run(stage.batch([rows[i]]))
            allowed.done(len(rows[i]))
            advance(1, work=len(rows[i]))
    kept = sorted(logits)
    sample = sample.take(kept)
    return Reference(
        tuple(rows[i] for i in kept),
        np.concatenate([logits[i] for i in kept]),
        sample.names,
        sample.special,
        task,
        len(rows) - len(kept),
    )


def reference_from_file(path: Path) -> Reference:
    """Read a file of `Reference.save`.

    Raises:
        UsageError: It is missing or damaged.
    """
    try:
        with np.load(path) as stored:
            ends = np.cumsum(stored["lengths"])[:-1]
            rows = zip(
                np.split(stored["ids"], ends),
                np.split(stored["type_ids"], ends),
                stored["truncated"],
                strict=True,
            )
            return Reference(
                tuple(EncodedRow(ids, type_ids, bool(cut)) for ids, type_ids, cut in rows),
                stored["logits"],
                tuple(str(name) for name in stored["names"]),
                int(stored["special"]),
                str(stored["task"]),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
        raise UsageError(
            f"{path} is missing or damaged ({exc}): run `cascadebert compile --step graph` again"
        ) from exc
