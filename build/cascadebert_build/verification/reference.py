"""Rows with their FP32 logits, stored for a machine with a GPU and without ONNX Runtime."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.tokenization import EncodedRow, Text

from ..errors import UsageError
from ..graphs.logits import Run, StageInput, save_arrays

# Number of rows to compare: enough for all lengths in the data, and a few seconds of work.
_SAMPLE_SIZE = 192


@dataclass(frozen=True, slots=True)
class Reference:
    """What an artefact is compared with.

    Attributes:
        rows: Real text, tokenised and truncated.
        logits: Float32 of shape (n, n_labels), of the FP32 graph, row i for rows[i].
    """

    rows: tuple[EncodedRow, ...]
    logits: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write the concatenated rows, with their lengths, and the logits."""
        save_arrays(
            path,
            lengths=np.array([len(row) for row in self.rows]),
            truncated=np.array([row.truncated for row in self.rows]),
            ids=np.concatenate([row.ids for row in self.rows]),
            type_ids=np.concatenate([row.type_ids for row in self.rows]),
            logits=self.logits,
        )


def reference_of_texts(run: Run, stage: StageInput, texts: Sequence[Text]) -> Reference:
    """The sample of the ONNX check, and one row that is short enough for every bucket.

    Args:
        run: The FP32 graph.
        stage: How texts become batches.
        texts: The held-out rows.
    """
    sample = sample_of_texts(texts, stage)
    shortest = min(sample, key=lambda text: len("".join(text)))
    words = (shortest,) if isinstance(shortest, str) else shortest
    first = tuple((word.split() or [""])[0] for word in words)
    short = first[0] if isinstance(shortest, str) else (first[0], first[1])
    rows = stage.encoder.encode([*sample, short])
    return Reference(tuple(rows), np.concatenate([run(stage.batch([row])) for row in rows]))


def sample_of_texts(texts: Sequence[Text], stage: StageInput) -> list[Text]:
    """A seeded sample in random order that contains the shortest and the longest row."""
    chosen = random.Random(0).sample(range(len(texts)), min(len(texts), _SAMPLE_SIZE))
    by_length = sorted(range(len(texts)), key=lambda i: len("".join(texts[i])))
    chosen = list(dict.fromkeys([by_length[0], by_length[-1], *chosen]))
    random.Random(1).shuffle(chosen)
    longest = texts[by_length[-1]]
    # Real rows seldom reach the maximum length; this row is always truncated.
    repeats = stage.encoder.max_length // 2 + 1
    truncated: Text = (
        " ".join([longest] * repeats)
        if isinstance(longest, str)
        else (" ".join([longest[0]] * repeats), longest[1])
    )
    return [texts[i] for i in chosen] + [truncated]


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
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
        raise UsageError(
            f"{path} is missing or damaged ({exc}): run `cascadebert compile --step graph` again"
        ) from exc
