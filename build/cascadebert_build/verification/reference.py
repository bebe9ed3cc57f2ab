"""Rows and their FP32 logits, kept for a machine that has a GPU and no ONNX Runtime."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.tokenization import EncodedRow, Text

from ..errors import UsageError
from ..graphs.logits import Run, StageInput
from .onnx import sample_of_texts


@dataclass(frozen=True, slots=True)
class Reference:
    """What an engine is compared with.

    Attributes:
        rows: real text, tokenised and truncated.
        logits: float32 of shape (n, n_labels), of the FP32 graph, row i for rows[i].
    """

    rows: tuple[EncodedRow, ...]
    logits: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write the rows end to end, with their lengths."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            np.savez(
                file,
                lengths=np.array([len(row) for row in self.rows]),
                truncated=np.array([row.truncated for row in self.rows]),
                ids=np.concatenate([row.ids for row in self.rows]),
                type_ids=np.concatenate([row.type_ids for row in self.rows]),
                logits=self.logits,
            )
        temporary.replace(path)


def reference_of_texts(run: Run, stage: StageInput, texts: Sequence[Text]) -> Reference:
    """The sample of the ONNX check and a row so short that every bucket holds it, with logits.

    Args:
        run: the FP32 graph.
        stage: how texts become batches.
        texts: the held-out rows.
    """
    sample = sample_of_texts(texts, stage)
    shortest = min(sample, key=lambda text: len("".join(text)))
    words = (shortest,) if isinstance(shortest, str) else shortest
    first = tuple((word.split() or [""])[0] for word in words)
    short = first[0] if isinstance(shortest, str) else (first[0], first[1])
    rows = stage.encoder.encode([*sample, short])
    return Reference(tuple(rows), np.concatenate([run(stage.batch([row])) for row in rows]))


def reference_from_file(path: Path) -> Reference:
    """Read what `Reference.save` wrote.

    Raises:
        UsageError: it is missing or damaged.
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
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
        raise UsageError(
            f"{path} is missing or damaged ({exc}): run `cascadebert compile --step graph` again"
        ) from exc
