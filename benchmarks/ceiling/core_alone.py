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
from cascadebert_core.contract import OUTPUTS, TOKENIZER_FILE, TOKENIZERS_FOLDER
from cascadebert_core.inputs import texts_from_tensors
from cascadebert_core.job import Job
from cascadebert_core.metrics import Metrics
from cascadebert_core.route import Router
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
    published = ModelRepository.read(repository).cascade(name)
    policy, folder = published.policy(), published.folder / str(published.newest)
    session = Session()

    def run_stage(_: int, batch: StageBatch) -> NDArray[np.float32]:
        return session.logits(batch.tensors)

    cascade = Cascade(policy, folder, run_stage, observer=Metrics(policy))
    answers, route = AnswerWriter(policy), Router(policy).default
    stage = policy.stages[0]
    tokenizer = folder / TOKENIZERS_FOLDER / stage.tokenizer / TOKENIZER_FILE
    encoder = Encoder(tokenizer, stage.max_length)
    # In C, since a semaphore is Python, and would cost as much as a part of what is measured.
    ended: SimpleQueue[None] = SimpleQueue()

    def later(_: Job) -> Callable[[Job], None]:
        def end(job: Job) -> None:
            answers.outputs_from_job(job, OUTPUTS)
            ended.put(None)

        return end

    def answer(requests: Sequence[NDArray[Any]]) -> None:
        jobs = [Job(texts_from_tensors(r, None, False), route, 2) for r in requests]
        cascade.begin(jobs, later)
        for job in jobs:
            if job.on_end:
                ended.get()
            else:
                answers.outputs_from_job(job, OUTPUTS)

    costs: list[CoreCost] = []
    try:
        for together, rows in shapes:
            size = together * rows
            starts = range(0, len(texts) - size + 1, size)
            batches = [
                [_tensor(texts[i : i + rows]) for i in range(start, start + size, rows)]
                for start in starts
            ]
            parts = [list(texts[start : start + size]) for start in starts]
            total = _least_s(lambda batches=batches: [answer(batch) for batch in batches])
            tokens = _least_s(lambda parts=parts: [encoder.encode(part) for part in parts])
            scale = 1e6 / (len(parts) * size)
            shape = f"{together} x {rows}" if together > 1 else f"{rows}"
            costs.append(CoreCost(shape, total * scale, tokens * scale))
    finally:
        cascade.close()
    return costs


def _tensor(texts: Sequence[str]) -> NDArray[Any]:
    return np.array([[text.encode()] for text in texts], dtype=np.object_)


def _least_s(work: Callable[[], object]) -> float:
    """CPU seconds of this process for some work: the least of several turns, after one more."""
    work()
    seconds: list[float] = []
    for _ in range(_TURNS):
        start_s = time.process_time()
        work()
        seconds.append(time.process_time() - start_s)
    return min(seconds)
