"""A whole cascade over stages that are plain functions."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cascadebert_core.batching import StageBatch
from cascadebert_core.cascade import Cascade
from cascadebert_core.job import Job
from cascadebert_core.policy import Policy
from cascadebert_core.route import Router
from cascadebert_core.stage import RunStage

# Ids of tests.support.policies: 4 good, 5 bad, 8 not.
GOOD, BAD, NOT = 4, 5, 8


def by_words(stage: int, batch: StageBatch) -> np.ndarray:
    """Count good and bad. At a "not" the first stage is unsure, and later stages negate."""
    ids = batch.tensors["input_ids"]
    score = (ids == GOOD).sum(axis=1) - (ids == BAD).sum(axis=1)
    negated = (ids == NOT).any(axis=1)
    score = np.where(negated, 0.1 if stage == 0 else -score, score).astype(np.float32) * 4
    return np.stack([-score, score], axis=1)


class Recorder:
    """An observer that counts."""

    def __init__(self) -> None:
        self.exits: dict[int, int] = {}
        self.n_truncated = 0
        self.switches: list[str] = []  # operating points
        self.n_began = 0
        self.n_ended = 0
        self.degraded_by: Counter[str] = Counter()
        self.confidence: dict[int, list[float]] = {}
        self.guarantees: dict[str, bool] = {}
        self.audits: Counter[tuple[str, str]] = Counter()  # operating point, result

    def began(self, job: Job) -> None:
        self.n_began += 1

    def ended(self, job: Job) -> None:
        self.n_ended += 1

    def decided(self, stage: int, confidence: np.ndarray, exits: np.ndarray) -> None:
        assert confidence.shape == exits.shape
        self.confidence.setdefault(stage, []).extend(confidence.tolist())

    def answered(self, stage: int, seconds: Sequence[float], rows: Sequence[int]) -> None:
        assert len(seconds) == len(rows)
        assert all(0 <= value < 60 for value in seconds)
        self.exits[stage] = self.exits.get(stage, 0) + sum(rows)

    def degraded(self, reason: str, rows: int) -> None:
        self.degraded_by[reason] += rows

    def truncated(self, rows: int) -> None:
        self.n_truncated += rows

    def switched(self, operating_point: str) -> None:
        self.switches.append(operating_point)

    def audited(self, operating_point: str, agreed: int, disagreed: int) -> None:
        self.audits[operating_point, "agreed"] += agreed
        self.audits[operating_point, "disagreed"] += disagreed

    def audit_dropped(self, operating_point: str, rows: int) -> None:
        self.audits[operating_point, "dropped"] += rows

    def guarantee(self, operating_point: str, broken: bool) -> None:
        self.guarantees[operating_point] = broken

    def audit_failed(self, operating_point: str, rows: int) -> None:
        self.audits[operating_point, "failed"] += rows


class Bench:
    """A cascade over plain functions that records the calls of its stages."""

    def __init__(
        self,
        folder: Path,
        policy: Policy,
        run: RunStage,
        *,
        first_calls: int = 1,
        instances: int = 1,
    ) -> None:
        self.calls: list[tuple[int, int, int]] = []
        self.recorder = Recorder()
        self.router = Router(policy)
        self._run = run
        self.n_labels = len(policy.labels)
        self.cascade = Cascade(
            policy,
            folder,
            self._recorded,
            observer=self.recorder,
            first_calls=first_calls,
            instances=instances,
        )

    def job(self, *texts: str, deadline_s: float | None = None, **parameters: object) -> Job:
        return Job(
            list(texts), self.router.route_from_parameters(parameters), self.n_labels, deadline_s
        )

    def begin(self, *jobs: Job) -> list[bool]:
        """Wait for all jobs; return whether each one was answered at once."""
        ends: dict[int, threading.Event] = {}

        def on_end(job: Job) -> Callable[[Job], None]:
            event = ends[id(job)] = threading.Event()
            return lambda _: event.set()

        self.cascade.begin(jobs, on_end)
        at_once = [id(job) not in ends for job in jobs]
        assert all(event.wait(10) for event in ends.values()), "a job never ended"
        return at_once

    def _recorded(self, stage: int, batch: StageBatch) -> np.ndarray:
        self.calls.append((stage, *batch.shape))
        return self._run(stage, batch)
