"""The cascade itself: rows in, gated answers out, stages run by whoever is asked to.

The BLS model hands in a function that calls other Triton models, a test one that computes logits;
what lies between is pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .audit import AuditObserver, Auditor
from .batching import StageBatch, chunks_by_length, pad_rows
from .contract import TOKENIZER_FILE, TOKENIZERS_FOLDER
from .deferral import DeferralQueue, DeferralWorker
from .errors import CascadeError, DeadlineExceeded, InternalError
from .gate import ALWAYS_EXIT, Decision, decide, stack_thresholds
from .job import Job, Row
from .policy import Policy, StagePolicy
from .tokenization import EncodedRow, Encoder, Text

# Runs stage number `stage` on a padded batch and returns its logits, float32 (rows, n_labels) in
# the checkpoint's own order. Threads call it at the same time.
RunStage = Callable[[int, StageBatch], NDArray[np.float32]]

# Batches of the largest size that may wait for a stage before further rows are held up.
_QUEUED_BATCHES = 16


class Observer(AuditObserver, Protocol):
    """Told what happened to rows, from any thread."""

    def exited(self, stage: int, rows: int) -> None:
        """`rows` rows were answered by `stage`."""
        ...

    def truncated(self, rows: int) -> None:
        """`rows` rows were longer than the first stage's maximum length."""
        ...


class Cascade:
    """A policy with everything that it takes to answer by it."""

    def __init__(
        self,
        policy: Policy,
        version_folder: Path,
        run_stage: RunStage,
        *,
        observer: Observer | None = None,
        calls_in_flight: int = 1,
    ) -> None:
        """Load the tokenizers and start the threads of the later stages.

        Args:
            policy: validated.
            version_folder: holds `tokenizers/`.
            run_stage: see `RunStage`.
            observer: for metrics; without one, nothing is audited.
            calls_in_flight: calls of one deferred stage at a time; as many as it has instances.

        Raises:
            PolicyError: a tokenizer of the policy is missing or damaged.
        """
        self.policy = policy
        self._run_stage = run_stage
        self._observer = observer
        self._encoders = _encoders(policy, version_folder)
        self._label_indices = [np.array(stage.label_indices) for stage in policy.stages]
        self._queues: list[DeferralQueue] = []
        self._workers: list[DeferralWorker] = []
        for index, stage in enumerate(policy.stages):
            queue = DeferralQueue(_QUEUED_BATCHES * stage.max_batch_size)
            worker = DeferralWorker(
                queue,
                lambda rows, index=index: self._advance(index, rows),
                max_batch_size=stage.max_batch_size,
                buckets=stage.buckets,
                # Stage 0 is run by the caller of `begin`; only requests that ask for a later
                # stage pass it by, so its own thread would have nothing to do.
                calls_in_flight=0 if index == 0 else calls_in_flight,
                name=f"stage-{index}",
            )
            self._queues.append(queue)
            self._workers.append(worker)
        self._auditor: Auditor | None = None
        if policy.audit_rate > 0 and observer is not None:
            self._auditor = Auditor(
                policy.audit_rate,
                self._last_labels,
                observer=observer,
                may_run=lambda: all(queue.empty for queue in self._queues),
            )

    def begin(self, jobs: Sequence[Job], on_end: Callable[[Job], Callable[[Job], None]]) -> None:
        """Run the first stage of all jobs in one call and hand on the rows that are not sure.

        On return a job has either ended, and its result is the caller's to collect, or
        `on_end(job)` has been called and what it returned will be called, once, when the job
        ends; the threads of the later stages do so, perhaps before this returns.

        Args:
            jobs: of any routes; those that have ended already are left alone.
            on_end: makes the callback of a job that is not over yet.
        """
        for queue in self._queues[1:]:
            queue.wait_for_room()
        deferred: dict[int, list[Row]] = defaultdict(list)
        at_first: list[Row] = []
        for job in jobs:
            if job.ended:
                continue
            if self._auditor is not None:
                self._auditor.draw(job)
            if job.route.first == 0:
                at_first += job.rows()
            else:
                self._encode_or_fail(job.route.first, job.rows(), deferred)
        if at_first:
            self._run_rows(0, at_first, deferred)
        # Callbacks before rows: once a row is queued, its job may end at any moment.
        handed_on = {id(row.job): row.job for rows in deferred.values() for row in rows}
        for job in handed_on.values():
            if not job.ended:
                job.on_end = on_end(job)
        self._hand_on(deferred)

    def close(self) -> None:
        """Decide what is in flight, then stop. Stages close in order, as rows move forward."""
        if self._auditor is not None:
            self._auditor.stop()
        for queue, worker in zip(self._queues, self._workers, strict=True):
            queue.close()
            worker.join()
        if self._auditor is not None:
            self._auditor.join()

    def _advance(self, stage: int, rows: list[Row]) -> None:
        """One call of a later stage; whatever happens, every row is decided, queued or failed."""
        for queue in self._queues[stage + 1 :]:
            queue.wait_for_room()
        deferred: dict[int, list[Row]] = defaultdict(list)
        self._run_rows(stage, rows, deferred)
        self._hand_on(deferred)

    def _hand_on(self, deferred: dict[int, list[Row]]) -> None:
        for stage, rows in deferred.items():
            try:
                self._queues[stage].put(rows)
            except CascadeError as exc:
                _fail(rows, exc)

    def _encode_or_fail(self, stage: int, rows: list[Row], deferred: dict[int, list[Row]]) -> None:
        try:
            self._encode(stage, rows)
        except Exception as exc:  # noqa: BLE001 - a thread's rows must never be lost
            _fail(rows, _as_cascade_error(exc, f"tokenising for stage {stage}"))
        else:
            deferred[stage] += rows

    def _run_rows(self, stage: int, rows: list[Row], deferred: dict[int, list[Row]]) -> None:
        """Run, gate and settle rows at `stage`; rows that do not exit join `deferred`."""
        settings = self.policy.stages[stage]
        live = [row for row in rows if not _over(row.job)]
        encoded: dict[int, list[Row]] = defaultdict(list)
        self._encode_or_fail(stage, live, encoded)
        live = encoded[stage]
        lengths = [len(row.encoded or ()) for row in live]
        for indices in chunks_by_length(lengths, settings.max_batch_size):
            chunk = [live[i] for i in indices]
            try:
                self._run_chunk(stage, chunk, deferred)
            except Exception as exc:  # noqa: BLE001 - a thread's rows must never be lost
                # A job that has ended keeps its answer.
                _fail(chunk, _as_cascade_error(exc, f"stage {stage} ({settings.model})"))

    def _run_chunk(self, stage: int, rows: list[Row], deferred: dict[int, list[Row]]) -> None:
        settings = self.policy.stages[stage]
        encoded = [row.encoded for row in rows if row.encoded is not None]
        thresholds = stack_thresholds(
            [row.job.route.thresholds[stage] for row in rows], len(self.policy.labels)
        )
        decision = self._decide(stage, encoded, thresholds)
        self._settle(stage, rows, decision.probabilities, decision.confidence, decision.exits)
        onward: list[Row] = []
        for row in (rows[i] for i in np.flatnonzero(~decision.exits)):
            if row.job.route.last == stage:
                row.job.fail(
                    InternalError(
                        f"stage {stage} ({settings.model}) returned NaN or infinite logits "
                        f"for row {row.index}, and no further stage may answer it"
                    )
                )
            elif not row.job.ended:
                onward.append(row)
        if onward:
            self._encode_or_fail(stage + 1, onward, deferred)

    def _decide(
        self,
        stage: int,
        encoded: list[EncodedRow],
        thresholds: NDArray[np.float32] | np.float32,
    ) -> Decision:
        """One call of a stage, and what the gate makes of it."""
        settings = self.policy.stages[stage]
        pad_id = self._encoder(settings).pad_id
        batch = pad_rows(encoded, settings.inputs, settings.buckets, pad_id)
        logits = self._run_stage(stage, batch)
        expected = (len(encoded), len(self.policy.labels))
        if logits.shape != expected:
            raise InternalError(
                f"logits of shape {logits.shape} where {expected} belongs: "
                "the stage is not the one that the policy was made for"
            )
        # (rows, labels) in the policy's order
        logits = logits[:, self._label_indices[stage]]
        return decide(logits, settings.temperature, thresholds, settings.signal)

    def _last_labels(self, texts: list[Text]) -> NDArray[np.intp]:
        """What the last stage answers by itself, for audits; see `audit.LastLabels`."""
        last = len(self.policy.stages) - 1
        encoder = self._encoder(self.policy.stages[last])
        most = self.policy.stages[last].max_batch_size
        labels: list[NDArray[np.intp]] = []
        for start in range(0, len(texts), most):
            encoded = encoder.encode(texts[start : start + most])
            decision = self._decide(last, encoded, ALWAYS_EXIT)
            labels.append(np.where(decision.exits, decision.probabilities.argmax(axis=1), -1))
        return np.concatenate(labels)

    def _settle(
        self,
        stage: int,
        rows: list[Row],
        probabilities: NDArray[np.float32],
        confidence: NDArray[np.float32],
        exits: NDArray[np.bool_],
    ) -> None:
        """Scatter exited rows back to their jobs."""
        of_job: dict[int, list[int]] = defaultdict(list)
        for i in np.flatnonzero(exits):
            of_job[id(rows[i].job)].append(int(i))
        if self._observer is not None and of_job:
            # Counted first: who reads the metrics after an answer finds it in them.
            self._observer.exited(stage, int(exits.sum()))
        for positions in of_job.values():
            indices = np.array([rows[i].index for i in positions], dtype=np.intp)
            rows[positions[0]].job.settle(
                indices, probabilities[positions], confidence[positions], stage
            )

    def _encode(self, stage: int, rows: list[Row]) -> None:
        """Give rows the tokens of `stage`, keeping those of an earlier one where they serve."""
        settings = self.policy.stages[stage]
        stale = [row for row in rows if not _serves(row, settings)]
        if not stale:
            return
        encoder = self._encoder(settings)
        encoded = encoder.encode([row.text for row in stale])
        n_truncated = 0
        for row, tokens in zip(stale, encoded, strict=True):
            n_truncated += tokens.truncated and row.encoded is None
            row.encoded = tokens
            row.tokenizer = settings.tokenizer
            row.max_length = settings.max_length
        if n_truncated and self._observer is not None:
            self._observer.truncated(n_truncated)

    def _encoder(self, settings: StagePolicy) -> Encoder:
        return self._encoders[settings.tokenizer, settings.max_length]


def _encoders(policy: Policy, version_folder: Path) -> dict[tuple[str, int], Encoder]:
    """One encoder for every distinct pair of tokenizer and length."""
    wanted = {(stage.tokenizer, stage.max_length) for stage in policy.stages}
    return {
        (name, max_length): Encoder(
            version_folder / TOKENIZERS_FOLDER / name / TOKENIZER_FILE, max_length
        )
        for name, max_length in sorted(wanted)
    }


def _serves(row: Row, settings: StagePolicy) -> bool:
    """Whether the row's tokens are those that the stage's own encoder would make."""
    if row.encoded is None or row.tokenizer != settings.tokenizer:
        return False
    if row.max_length == settings.max_length:
        return True
    return not row.encoded.truncated and len(row.encoded) <= settings.max_length


def _over(job: Job) -> bool:
    """Whether nobody waits for the job any more; an expired one is ended here."""
    if not job.ended and job.expired():
        job.fail(DeadlineExceeded("request timeout expired before all of its rows were decided"))
    return job.ended


def _fail(rows: Sequence[Row], error: CascadeError) -> None:
    for job in {id(row.job): row.job for row in rows}.values():
        job.fail(error)


def _as_cascade_error(exc: Exception, where: str) -> CascadeError:
    if isinstance(exc, CascadeError):
        return type(exc)(f"{where}: {exc}")
    return InternalError(f"{where}: {type(exc).__name__}: {exc}")
