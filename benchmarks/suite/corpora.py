"""Real text of several lengths from GLUE, or the demo's made-up reviews."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import cascadebert_build as cascadebert
from cascadebert_build.config.label_sets import LabelOrSet
from cascadebert_build.config.rows import rows_from_source
from cascadebert_build.config.schema import DataConfig
from cascadebert_build.demo.corpus import LABELS, corpus_from_seed
from cascadebert_build.errors import UsageError
from cascadebert_core.tokenization import Text

SHORT, LONG, MIXED = "short", "long", "mixed"
HELD_OUT = "held-out"
# The rows of each text, as many as in SST-2's dev set: one round of perf_analyzer's data.
_ROWS = 872

_GLUE = {
    "SST-2": ("SST-2/dev.tsv", "sentence", None, "label"),
    "MRPC": ("MRPC/dev.tsv", "#1 String", "#2 String", "Quality"),
    "QNLI": ("QNLI/dev.tsv", "question", "sentence", "label"),
}
_SEED = 0
# Rows are in random order within blocks. A block is large enough that no stride meets the same kind
# of row in each, and small enough that a prefix that ends within a block is like the whole.
_BLOCK = 40


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts of one mix of lengths.

    Attributes:
        name: `SHORT`, `LONG`, `MIXED` or `HELD_OUT`.
        source: Where they come from, for people.
        texts: The texts. The two of a GLUE pair are joined; the user's own data may have pairs.
        labels: The labels as in the file; None if only members with random weights read them.
    """

    name: str
    source: str
    texts: tuple[Text, ...]
    labels: tuple[LabelOrSet, ...] | None = None

    def in_order(self, order: Sequence[int]) -> Corpus:
        """Return the same rows in another order, row `order[0]` first."""
        labels = None if self.labels is None else tuple(self.labels[i] for i in order)
        return replace(self, texts=tuple(self.texts[i] for i in order), labels=labels)


def representative_order(
    buckets: Sequence[int], confidence: NDArray[np.float32], deferred: NDArray[np.bool_]
) -> list[int]:
    """Return an order in which every prefix is like the whole in deferred rows and lengths.

    The faster a contender, the more rows are in its window. In the order of the file, a slow
    contender would get other rows than a fast one. Within blocks the order is random, and the
    number of rows is odd, because each of perf_analyzer's c threads sends every c-th row (c is a
    power of two in our plans). A thread with only deferred rows would be slow and count for less
    than its share.

    Args:
        buckets: The padded length of n rows.
        confidence: The confidence of the first stage, shape (n,).
        deferred: Whether it defers the row at the usual threshold, shape (n,).

    Returns:
        The indices of n rows, or of n - 1 if n is even.
    """
    kinds: list[list[int]] = []
    for kind in (True, False):
        strata: list[list[int]] = []
        for number, bucket in enumerate(sorted(set(buckets))):
            rows = np.flatnonzero((deferred == kind) & (np.array(buckets) == bucket))
            # Strata begin at alternate ends, so that together they are balanced.
            strata.append(_scattered(rows, confidence if number % 2 else -confidence))
        kinds.append(_merged(strata))
    order = _merged(kinds)
    order = order[: len(order) - 1 + len(order) % 2]
    rng = np.random.default_rng(_SEED)
    blocks = [order[start : start + _BLOCK] for start in range(0, len(order), _BLOCK)]
    return [row for block in blocks for row in rng.permutation(block).tolist()]


def _scattered(rows: NDArray[np.intp], values: NDArray[np.float32]) -> list[int]:
    """Order rows so that every prefix is spread over the values: van der Corput's order."""
    ranked = rows[np.argsort(values[rows], kind="stable")].tolist()
    bits = max(1, (len(ranked) - 1).bit_length())
    reversed_bits = sorted(range(len(ranked)), key=lambda rank: f"{rank:0{bits}b}"[::-1])
    return [ranked[rank] for rank in reversed_bits]


def _merged(groups: Sequence[Sequence[int]]) -> list[int]:
    """Merge groups so that each keeps its order and is evenly spread."""
    placed = [
        ((i + 0.5) / len(group), number, row)
        for number, group in enumerate(groups)
        for i, row in enumerate(group)
    ]
    return [row for _, _, row in sorted(placed)]


def corpora(glue: Path | None) -> dict[str, Corpus]:
    """Return the texts by name, from the folder with SST-2, MRPC and QNLI, or the demo's reviews.

    Raises:
        UsageError: A file is missing.
    """
    if glue is None:
        rows = corpus_from_seed(0, train_rows=_ROWS, test_rows=_ROWS).test
        texts = tuple(row.text for row in rows)
        joined = tuple(" ".join(texts[i : i + 4]) for i in range(0, len(texts), 4))
        short = Corpus(SHORT, "made-up reviews", texts, tuple(LABELS[row.label] for row in rows))
        long = Corpus(LONG, "four made-up reviews in one", joined)
        mixed = _mixed("made-up reviews", texts, joined)
    else:
        sst2, mrpc, qnli = (_read(glue, task) for task in ("SST-2", "MRPC", "QNLI"))
        short = Corpus(SHORT, "SST-2 dev", *sst2)
        long = Corpus(LONG, "QNLI dev, question and sentence", qnli[0])
        mixed = _mixed("SST-2, MRPC, QNLI dev", sst2[0], mrpc[0], qnli[0])
    return {corpus.name: corpus for corpus in (short, long, mixed)}


def corpora_of_config(path: Path) -> dict[str, Corpus]:
    """Return the held-out rows of a cascade.toml as the only text.

    Raises:
        UsageError: It has none, or they cannot be read.
    """
    rows = rows_from_source(cascadebert.load_config(path).data_source())
    return {HELD_OUT: Corpus(HELD_OUT, rows.source, rows.texts, rows.labels)}


def _mixed(source: str, *parts: Sequence[str]) -> Corpus:
    """Take texts of every part in turn, equally many of each."""
    n = min(len(part) for part in parts)
    turns = zip(*(part[:n] for part in parts), strict=True)
    return Corpus(MIXED, source, tuple(text for turn in turns for text in turn))


def _read(glue: Path, task: str) -> tuple[tuple[str, ...], tuple[LabelOrSet, ...] | None]:
    name, text, pair, label = _GLUE[task]
    path = glue / name
    if not path.is_file():
        raise UsageError(f"{path} is not there: --glue names the folder that has SST-2, MRPC, QNLI")
    rows = rows_from_source(DataConfig(path=str(path), text=text, text_pair=pair, label=label))
    texts = tuple(t if isinstance(t, str) else " ".join(t) for t in rows.texts)
    return texts[:_ROWS], None if rows.labels is None else rows.labels[:_ROWS]
