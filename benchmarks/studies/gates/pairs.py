"""A small member under a large one: their logits for the same rows, and what a gate may know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.config.rows import Rows

from ..accuracy.complete_costs import DEPTH as COMPLETE_DEPTH
from ..accuracy.complete_costs import MULTIPLY_ADDS
from ..accuracy.packed_logits import Packed, load_packed
from ..accuracy.plan import COMPLETE, CUT, DEPTH, LARGE
from ..shared import TASKS, dev_rows

# The small members that are compared, if they are packed.
_CUT_OUT = ("plain-distilled-1", "plain-distilled-2", "plain-distilled-3")
_COMPLETE = (
    "plain-distilled-3", "plain-distilled-6",
    *(f"{CUT}-distilled-{layers}" for layers in (1, 2, 3)),
)  # fmt: skip
# Two small members that share a stage: the second costs more, or is the first with another seed.
_TWINS = (
    ("plain-distilled-1", "plain-distilled-1"),
    ("plain-distilled-1", "plain-distilled-2"),
)
_COMPLETE_TWINS = (
    ("plain-distilled-3", "plain-distilled-3"),
    (f"{CUT}-distilled-1", "plain-distilled-3"),
    ("plain-distilled-3", "plain-distilled-6"),
)


@dataclass(frozen=True)
class Pair:
    """A small member, the large one above it, and n rows.

    Attributes:
        small: The small member's logits, shape (n, n_labels).
        large: The large member's logits, shape (n, n_labels).
        truth: The labels, shape (n,).
        words: The length of each text, shape (n,).
    """

    small: NDArray[np.float64]
    large: NDArray[np.float64]
    truth: NDArray[np.int64]
    words: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.truth)

    @cached_property
    def log_probabilities(self) -> NDArray[np.float64]:
        """The small member's, shape (n, n_labels)."""
        return log_softmax(self.small)

    @cached_property
    def differs(self) -> NDArray[np.bool_]:
        """Whether the two answer differently, shape (n,)."""
        return self.small.argmax(axis=1) != self.large.argmax(axis=1)


@dataclass(frozen=True, slots=True)
class Group:
    """One small member on one task, with all its seeds.

    Attributes:
        task: The name of the task's packed file: `sst2`, `sst2-complete`, ...
        small: The small member, or two that share a stage.
        costs: The cost of each small member as a share of the large member's.
        pairs: By seed, all over the same rows. Of two small members, one pair for each of them.
    """

    task: str
    small: str
    costs: tuple[float, ...]
    pairs: tuple[tuple[Pair, ...], ...]

    @property
    def n_labels(self) -> int:
        """The number of labels."""
        return self.pairs[0][0].small.shape[1]

    @property
    def differing(self) -> float:
        """The share of the rows to which the last small member gives another answer, %."""
        return 100 * float(np.mean([pairs[-1].differs.mean() for pairs in self.pairs]))


def groups_of(glue: Path) -> list[Group]:
    """Return every small member that is packed with its large one, by task."""
    return [
        Group(task, member, (_cost(task, member),), tuple((reader.pair(member, s),) for s in seeds))
        for task, reader in _readers(glue)
        for member in (_COMPLETE if task.endswith(COMPLETE) else _CUT_OUT)
        if (seeds := reader.packed.seeds(member, LARGE))
    ]


def twins_of(glue: Path) -> list[Group]:
    """Return two small members at one stage, if both are packed with their large one."""
    found: list[Group] = []
    for task, reader in _readers(glue):
        for first, second in _COMPLETE_TWINS if task.endswith(COMPLETE) else _TWINS:
            seeds = reader.packed.seeds(first, second, LARGE)
            others = seeds[1:] + seeds[:1] if first == second else seeds
            if first == second and len(seeds) < 2:
                continue
            pairs = tuple(
                (reader.pair(first, other, seed), reader.pair(second, seed))
                for seed, other in zip(seeds, others, strict=True)
            )
            if pairs:
                name = f"{first} twice" if first == second else f"{first} and {second}"
                costs = _cost(task, first), _cost(task, second)
                found.append(Group(task, name, costs, pairs))
    return found


@dataclass(frozen=True, slots=True)
class _Reader:
    packed: Packed
    truth: NDArray[np.int64]
    words: NDArray[np.float64]

    def pair(self, member: str, seed: int, large_seed: int | None = None) -> Pair:
        small = self.packed.of(member, seed)
        large = self.packed.of(LARGE, seed if large_seed is None else large_seed)
        return Pair(small.astype(np.float64), large.astype(np.float64), self.truth, self.words)


def _readers(glue: Path) -> list[tuple[str, _Reader]]:
    found: list[tuple[str, _Reader]] = []
    for name in TASKS:
        for packed in (load_packed(name), load_packed(f"{name}{COMPLETE}")):
            if packed.seeds(LARGE):
                rows = dev_rows(glue, TASKS[name])
                truth = rows.label_indices(TASKS[name].labels)
                found.append((packed.task, _Reader(packed, truth, words_of(rows))))
    return found


def _cost(task: str, member: str) -> float:
    layers = int(member[-1])
    if not task.endswith(COMPLETE):
        return layers / DEPTH
    return (
        float(layers) if member.startswith(CUT) else MULTIPLY_ADDS.members[layers]
    ) / COMPLETE_DEPTH


def words_of(rows: Rows) -> NDArray[np.float64]:
    """Return the number of words of each text or pair, shape (n,)."""
    texts: Sequence[Any] = rows.texts
    whole = [text if isinstance(text, str) else " ".join(text) for text in texts]
    return np.array([len(text.split()) for text in whole], dtype=np.float64)


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-probabilities, of the same shape."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
