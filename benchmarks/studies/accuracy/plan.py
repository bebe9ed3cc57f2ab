"""What is trained: tasks, members and seeds, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SEEDS = (1, 2, 3)
# The small members, by the layers of the 6-layer base that they keep: the first, and the last where
# there are two or more.
LAYERS = {1: (0,), 2: (0, 5), 3: (0, 2, 5)}
DEPTH = 6
# Cross-fitting for DAR: the shallowest member, since it is its errors that are to be known.
DIFFICULTY_LAYERS = LAYERS[1]
FOLDS = 5

DIFFICULTY = "difficulty"
LARGE = "large"
DEEBERT = "deebert"
PABEE = "pabee"
# The pair of another architecture, trained from scratch on SST-2's sample.
ROBERTA = "sst2-roberta"


@dataclass(frozen=True, slots=True)
class GlueTask:
    """One data set.

    Attributes:
        name: of `cascadebert_build.training.glue.TASKS`.
        train, dev: files below the GLUE folder.
        sample: so many of the training rows, drawn once with `SAMPLE_SEED`; None: all.
        large_epochs, small_epochs: at most.
    """

    name: str
    train: str
    dev: str
    sample: int | None
    large_epochs: int
    small_epochs: int


SAMPLE_SEED = 0
TASKS = {
    task.name: task
    for task in (
        GlueTask("sst2", "SST-2/train.tsv", "SST-2/dev.tsv", 10_000, 3, 4),
        GlueTask("mrpc", "MRPC/train.tsv", "MRPC/dev.tsv", None, 5, 6),
        GlueTask("rte", "RTE/train.tsv", "RTE/dev.tsv", None, 5, 6),
        GlueTask("qnli", "QNLI/train_sample_10475.tsv", "QNLI/dev.tsv", None, 2, 2),
    )
}


@dataclass(frozen=True, slots=True)
class Run:
    """One training, or one cross-fitting, and what it has to wait for.

    Attributes:
        task: a name of `TASKS`.
        seed: of weights, order and validation rows; 0 for the cross-fitting, which has three.
        kind: `DIFFICULTY`, `LARGE`, `DEEBERT`, `PABEE`, or an objective.
        layers: that it has, 1 to `DEPTH`.
        distilled: from the large member of the same seed.
    """

    task: str
    seed: int
    kind: str
    layers: int = DEPTH
    distilled: bool = False

    @property
    def member(self) -> str:
        """What it is, whatever the seed: `large`, `plain-1`, `dar-distilled-2`, ..."""
        if self.kind in {LARGE, DEEBERT, PABEE, DIFFICULTY}:
            return self.kind
        return f"{self.kind}{'-distilled' if self.distilled else ''}-{self.layers}"

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.task}-{self.member}-seed{self.seed}"

    @property
    def needs(self) -> tuple[Run, ...]:
        """Runs that must be done before."""
        needed: list[Run] = []
        if self.distilled or self.kind == DEEBERT:
            needed.append(Run(self.task, self.seed, LARGE))
        if self.kind == "dar":
            needed.append(Run(self.task, 0, DIFFICULTY, len(DIFFICULTY_LAYERS)))
        return tuple(needed)


def runs_of_task(task: str, seeds: Sequence[int]) -> Iterator[Run]:
    """All runs of a task, those that others wait for first."""
    yield Run(task, 0, DIFFICULTY, len(DIFFICULTY_LAYERS))
    for seed in seeds:
        yield Run(task, seed, LARGE)
        for layers in (1, 2):
            yield Run(task, seed, "plain", layers)
            yield Run(task, seed, "gatekeeper", layers)
            yield Run(task, seed, "plain", layers, distilled=True)
            yield Run(task, seed, "dar", layers)
            yield Run(task, seed, "dar", layers, distilled=True)
        # The best single member at half of the cost.
        yield Run(task, seed, "plain", 3, distilled=True)
        yield Run(task, seed, DEEBERT)
        yield Run(task, seed, PABEE)
