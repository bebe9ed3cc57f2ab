"""The core without a server: CPU seconds of a row over those of its tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_core.answer import AnswerWriter
from cascadebert_core.batching import StageBatch
from cascadebert_core.cascade import Cascade
from cascadebert_core.contract import OUTPUTS, TIMELINE, TOKENIZER_FILE, TOKENIZERS_FOLDER
from cascadebert_core.inputs import texts_from_tensors
from cascadebert_core.job import Job
from cascadebert_core.metrics import Metrics
from cascadebert_core.route import Router
from cascadebert_core.timeline import Timeline
from cascadebert_core.tokenization import Encoder

from .null_session import Session

_TURNS = 5


@dataclass(frozen=True, slots=True)
class CoreCost:
    """What rows cost in the core alone, with stages that cost next to nothing.

    Attributes:
        shape: What was sent: requests together, and rows of each.
        row_us: CPU microseconds of a row, the least of several turns.
        tokens_us: CPU microseconds of tokenising it.
    """

    shape: str
    row_us: float
    tokens_us: float

    @property
    def over_tokenising(self) -> float:
        """The row's cost over that of its tokens."""
        return self.row_us / self.tokens_us


class CoreAlone:
    """The core of a published cascade over null stages, in this process."""

    def __init__(self, repository: Path, name: str) -> None:
        """Start its threads.

        Args:
            repository: The model repository.
            name: The cascade, which takes single texts.
        """
        published = ModelRepository.read(repository).cascade(name)
        policy, folder = published.policy(), published.folder / str(published.newest)
        session = Session()

        def run_stage(_: int, batch: StageBatch) -> NDArray[np.float32]:
            return session.logits(batch.tensors)

        self._cascade = Cascade(policy, folder, run_stage, observer=Metrics(policy))
        self._answers, self._route = AnswerWriter(policy), Router(policy).default
        stage = policy.stages[0]
        tokenizer = folder / TOKENIZERS_FOLDER / stage.tokenizer / TOKENIZER_FILE
        self.encoder = Encoder(tokenizer, stage.max_length)
        # In C, since a semaphore is Python, and would cost as much as a part of what is measured.
        self._ended: SimpleQueue[None] = SimpleQueue()

    def answer(self, requests: Sequence[NDArray[Any]], *, explain: bool = False) -> None:
        """Answer requests that arrive together.

        Args:
            requests: The texts of each, bytes of shape (n, 1).
            explain: Whether each gets a timeline.
        """
        outputs = (*OUTPUTS, TIMELINE) if explain else OUTPUTS
        jobs = [
            Job(texts_from_tensors(r, None, False), self._route, 2, outputs=outputs)
            for r in requests
        ]
        if explain:
            for job in jobs:
                job.timeline = Timeline(len(job.texts))
        self._cascade.begin(jobs, self._later)
        for job in jobs:
            if job.on_end:
                self._ended.get()
            else:
                self._answers.outputs_from_job(job, job.outputs)

    def close(self) -> None:
        """Stop its threads."""
        self._cascade.close()

    def _later(self, _: Job) -> Callable[[Job], None]:
        return self._end

    def _end(self, job: Job) -> None:
        self._answers.outputs_from_job(job, job.outputs)
        self._ended.put(None)


def core_costs(
    repository: Path, name: str, texts: Sequence[str], shapes: Iterable[tuple[int, int]]
) -> list[CoreCost]:
    """Measure the core over the null stages of a published cascade.

    Args:
        repository: The model repository.
        name: The cascade, which takes single texts.
        texts: Sent in turn.
        shapes: How many requests arrive together, and the rows of each.
    """
    costs: list[CoreCost] = []
    core = CoreAlone(repository, name)
    try:
        for together, rows in shapes:
            size = together * rows
            starts = range(0, len(texts) - size + 1, size)
            batches = [
                [text_tensor(texts[i : i + rows]) for i in range(start, start + size, rows)]
                for start in starts
            ]
            parts = [list(texts[start : start + size]) for start in starts]
            total = least_s(lambda batches=batches: [core.answer(batch) for batch in batches])
            tokens = least_s(lambda parts=parts: [core.encoder.encode(part) for part in parts])
            scale = 1e6 / (len(parts) * size)
            shape = f"{together} x {rows}" if together > 1 else f"{rows}"
            costs.append(CoreCost(shape, total * scale, tokens * scale))
    finally:
        core.close()
    return costs


def text_tensor(texts: Sequence[str]) -> NDArray[Any]:
    """Return the input TEXT, bytes of shape (n, 1)."""
    return np.array([[text.encode()] for text in texts], dtype=np.object_)


def least_s(work: Callable[[], object]) -> float:
    """CPU seconds of this process for some work: the least of several turns, after one more."""
    work()
    seconds: list[float] = []
    for _ in range(_TURNS):
        start_s = time.process_time()
        work()
        seconds.append(time.process_time() - start_s)
    return min(seconds)
