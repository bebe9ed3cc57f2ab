"""One stage of a cascade in this process, over many rows at once, with the code that serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cascadebert_core.batching import StageBatch
from cascadebert_core.errors import PolicyError
from cascadebert_core.inline import open_session
from cascadebert_core.job import Job, Row
from cascadebert_core.policy import Policy, StagePolicy
from cascadebert_core.route import Router
from cascadebert_core.stage import stages_of_policy

from ..errors import CheckFailed, UsageError
from ..repository.model_repository import ModelRepository
from .answers import Places, deferred_file, places_of, write_answers, write_deferred
from .cut import FAIL
from .store import Store
from .tables import read_table, texts_of
from .tasks import Result, Task, block_file

# The most padded tokens of a call, if the policy knows of no limit.
_MOST_TOKENS = 8192
_MOST_ROWS = 512


@dataclass(frozen=True, slots=True)
class Place:
    """A published version of a cascade.

    Attributes:
        repository: The model repository.
        cascade: The cascade's name.
        version: Its version.
    """

    repository: str
    cascade: str
    version: int

    @property
    def folder(self) -> Path:
        """The folder of the version."""
        return Path(self.repository) / self.cascade / str(self.version)

    def policy(self) -> Policy:
        """Its policy.

        Raises:
            UsageError: It is not published, or cannot be read.
        """
        repository = ModelRepository.read(Path(self.repository))
        return repository.cascade(self.cascade).policy(self.version)


@dataclass(frozen=True, slots=True)
class RunStage:
    """Runs one stage in ONNX Runtime, on one core. See `tasks.Work`.

    The answers are the served ones: tokens, windows, temperature and gate are those of
    `cascadebert_core`. Only the calls are larger and padded less, which changes the last digits.

    Attributes:
        output: The output folder.
        place: The cascade.
        stage: The stage's index.
        parameters: The request parameter that chooses the route, as `contract` has it, or none.
        on_invalid: Whether a row that no stage can answer ends the run.
    """

    has_state: ClassVar[bool] = True
    output: str
    place: Place
    stage: int
    parameters: tuple[tuple[str, Any], ...]
    on_invalid: str

    def start(self) -> Callable[[Task], Result]:
        """See `tasks.Work`."""
        policy = self.place.policy()
        classify = Classifier(self.place, policy, self.parameters, self.stage)
        return lambda task: self._run(task, classify)

    def _run(self, task: Task, classify: Classifier) -> Result:
        store = Store(self.output)
        places, texts = _rows(store, task)
        probabilities, confidence, exits = classify(texts)
        answered, left = np.flatnonzero(exits), np.flatnonzero(~exits)
        if classify.is_last and len(left) and self.on_invalid == FAIL:
            first = places.take(left[:1])
            raise CheckFailed(
                f"{classify.model} has no finite logits for {len(left)} rows, the first of them "
                f"row {int(first.positions[0])} of block {first.blocks[0]}: --on-invalid skip "
                "leaves them out"
            )
        if len(left) and not classify.is_last:
            write_deferred(store, task.name, places.take(left), [texts[i] for i in left])
        return write_answers(
            store,
            task.name,
            places.take(answered),
            probabilities=probabilities[answered],
            confidence=confidence[answered],
            exit_stage=np.full(len(answered), self.stage, np.int32),
            degraded=np.zeros(len(answered), np.bool_),
            deferred=0 if classify.is_last else len(left),
        )


class Classifier:
    """A stage with its tokenizer and its session.

    Attributes:
        model: The stage's model.
        is_last: Whether rows may go no further.
    """

    def __init__(
        self,
        place: Place,
        policy: Policy,
        parameters: Iterable[tuple[str, Any]],
        index: int,
    ) -> None:
        """Load them.

        Args:
            place: The cascade.
            policy: Its policy.
            parameters: The request parameter that chooses the route, or none.
            index: The stage.

        Raises:
            UsageError: The stage cannot run here.
        """
        route = Router(policy).route_from_parameters(dict(parameters))
        self.model = policy.stages[index].model
        self.is_last = index == route.last
        self._route = route
        self._n_labels = len(policy.labels)
        self._limits = route.thresholds[index]
        try:
            self._session = open_session(
                Path(place.repository), policy.stages[index], {"threads": "1"}
            )
            stages = stages_of_policy(
                replace(policy, stages=tuple(map(in_large_calls, policy.stages))),
                place.folder,
                self._logits,
                calls_in_flight=1,
            )
        except PolicyError as exc:
            raise UsageError(str(exc)) from exc
        self._stage = stages[index]
        self._inputs = policy.stages[index].inputs

    def _logits(self, _stage: int, batch: StageBatch) -> Any:
        return self._session.logits({name: batch.tensors[name] for name in self._inputs})

    def __call__(self, texts: Sequence[Any]) -> tuple[Any, Any, Any]:
        """Probabilities of shape (n, n_labels), confidences and exits of shape (n,)."""
        job = Job(texts, self._route, self._n_labels)
        rows = [Row(job, i, text) for i, text in enumerate(texts)]
        self._stage.encode(rows)
        n = len(rows)
        probabilities = np.zeros((n, self._n_labels), np.float32)
        confidence, exits = np.zeros(n, np.float32), np.zeros(n, np.bool_)
        limits: Any = self._limits
        if isinstance(limits, np.ndarray):
            limits = limits[None, :]
        for call in self._stage.plan_calls_of_rows(rows, 1):
            encoded = [row.encoded for row in (rows[i] for i in call) if row.encoded is not None]
            decision = self._stage.decide(encoded, limits)
            probabilities[call] = decision.probabilities
            confidence[call] = decision.confidence
            exits[call] = decision.exits
        return probabilities, confidence, exits


def in_large_calls(stage: StagePolicy) -> StagePolicy:
    """A stage whose calls are as large as pays on a CPU, and padded to their longest text.

    With thousands of rows there are enough of each length, and of others a few share a call.
    """
    longest = stage.max_length
    tokens = min(stage.max_call_tokens, max(_MOST_TOKENS, longest))
    return replace(
        stage,
        buckets=tuple(range(1, longest + 1)),
        max_batch_size=max(stage.max_batch_size, _MOST_ROWS),
        max_call_tokens=tokens,
        # A call's price: what it takes besides its tokens is little beside calls of this size.
        call_tokens=min(stage.call_tokens, tokens // 8),
    )


def _rows(store: Store, task: Task) -> tuple[Places, list[Any]]:
    """The rows of a task: a block, or what several tasks of the stage before have deferred."""
    if "block" in task.what:
        texts = texts_of(read_table(store, block_file(task.what["block"])))
        return Places([task.what["block"]] * len(texts), np.arange(len(texts))), texts
    blocks: list[str] = []
    positions: list[Any] = []
    texts = []
    for name in task.what["after"]:
        table = read_table(store, deferred_file(name))
        found = places_of(table)
        blocks += found.blocks
        positions.append(found.positions)
        texts += texts_of(table)
    return Places(blocks, np.concatenate(positions)), texts
