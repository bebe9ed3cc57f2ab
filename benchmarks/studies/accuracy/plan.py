"""What is trained: members and seeds, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SEEDS = (1, 2, 3)
# The layers of the 6-layer base that small members keep: the first, and the last if there are two
# or more.
LAYERS = {1: (0,), 2: (0, 5), 3: (0, 2, 5)}
DEPTH = 6
# Cross-fitting for DAR uses the shallowest member, because its errors are to be predicted.
DIFFICULTY_LAYERS = LAYERS[1]
FOLDS = 5

DIFFICULTY = "difficulty"
LARGE = "large"
DEEBERT = "deebert"
PABEE = "pabee"
# The large member's logits of the training rows.
TEACHER = "teacher"
# The first layers of the large member.
CUT = "cut"
# The end of the names of runs with complete pretrained members, whose depth is `Run.layers`.
COMPLETE = "-complete"
DEPTHS = (3, 6)
CUT_DEPTHS = (1, 2, 3)


def glue_name(task: str) -> str:
    """Return GLUE's name of a run's task."""
    return task.removesuffix(COMPLETE)


@dataclass(frozen=True, slots=True)
class Run:
    """One training or cross-fitting, and what must be done before it.

    Attributes:
        task: A name of `shared.TASKS`, with the end `COMPLETE` if the members are complete.
        seed: The seed of weights, order and validation rows. The cross-fitting, which has three
            seeds, has 0.
        kind: `DIFFICULTY`, `LARGE`, `DEEBERT`, `PABEE`, `TEACHER`, `CUT`, or an objective.
        layers: The layers of a small member.
        distilled: Whether it is distilled from the large member of the same seed.
    """

    task: str
    seed: int
    kind: str
    layers: int = DEPTH
    distilled: bool = False

    @property
    def member(self) -> str:
        """The member without its seed: `large`, `plain-1`, `dar-distilled-2`, ..."""
        if self.kind in {LARGE, DEEBERT, PABEE, DIFFICULTY, TEACHER}:
            return self.kind
        return f"{self.kind}{'-distilled' if self.distilled else ''}-{self.layers}"

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.task}-{self.member}-seed{self.seed}"

    @property
    def needs(self) -> tuple[Run, ...]:
        """The runs that must be done before."""
        needed: list[Run] = []
        if self.distilled and self.task.endswith(COMPLETE):
            needed.append(Run(self.task, self.seed, TEACHER))
        elif self.distilled or self.kind in {DEEBERT, TEACHER}:
            needed.append(Run(self.task, self.seed, LARGE))
        if self.kind == TEACHER:
            needed.append(Run(self.task, self.seed, DEEBERT))  # it has run the training rows
        if self.kind == "dar":
            needed.append(cross_fitting(self.task))
        return tuple(needed)


def cross_fitting(task: str) -> Run:
    """Return the cross-fitting of a task, with its shallowest member."""
    shallowest = DEPTHS[0] if task.endswith(COMPLETE) else len(DIFFICULTY_LAYERS)
    return Run(task, 0, DIFFICULTY, shallowest)


def runs_of_task(task: str, seeds: Sequence[int]) -> Iterator[Run]:
    """Yield all runs of a task, each after those that it needs."""
    yield cross_fitting(task)
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
