"""One stage of a cascade: its tokens, its calls, and the gate's decisions on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batching import (
    CallLimits,
    StageBatch,
    next_call,
    pad_rows,
    plan_calls,
    split_across_instances,
    split_by_windows,
)
from .contract import TOKENIZER_FILE, TOKENIZERS_FOLDER
from .errors import InternalError
from .gate import ALWAYS_EXIT, Decision, decide
from .job import Row
from .latency import LatencyEstimator
from .parallel import Instances
from .policy import Policy, StagePolicy
from .task import answer_keys
from .tokenization import EncodedRow, Encoder, Text, WindowedRow, windows_of_row
from .windows import Windows, pooled_logits

# Takes a stage's index and a padded batch, and returns the logits, float32 (rows, n_labels) in the
# checkpoint's own order. Several threads call it at the same time.
RunStage = Callable[[int, StageBatch], NDArray[np.float32]]


class Stage:
    """A stage of the policy, with its tokenizer and the function that calls it.

    Attributes:
        index: The stage's position, 0-based.
        settings: The stage in the policy.
        latency: An estimate of how long its calls take.
    """

    def __init__(
        self,
        index: int,
        settings: StagePolicy,
        encoder: Encoder,
        run_stage: RunStage,
        calls_in_flight: int,
        *,
        task: str,
    ) -> None:
        self.index = index
        self.settings = settings
        self._task = task
        self._limits = CallLimits.of_stage(settings)
        self.latency = LatencyEstimator(self._limits.rows(settings.buckets[0]), calls_in_flight)
        # Calls wait for an instance here, not in Triton: if two calls of different lengths wait
        # there, the second makes the batcher of 2.51 spin until the first one begins.
        self._instances = Instances(max(1, calls_in_flight))
        self._encoder = encoder
        self._run_stage = run_stage
        self._label_indices = np.array(settings.label_indices)
        self._n_labels = len(settings.label_indices)
        # Whether the logits come in another order than the policy's labels.
        self._reorders = settings.label_indices != tuple(range(len(settings.label_indices)))

    def __str__(self) -> str:
        return f"stage {self.index} ({self.settings.model})"

    def encode(self, rows: Sequence[Row]) -> int:
        """Tokenise rows for this stage; tokens of an earlier stage are kept if they are the same.

        Returns:
            How many rows their first stage has truncated.
        """
        stale = [row for row in rows if not self._has_tokens_of(row)]
        if not stale:
            return 0
        n_truncated = 0
        encoder = self._encoder
        encoded = encoder.encode([row.text for row in stale])
        for row, tokens in zip(stale, encoded, strict=True):
            if tokens.truncated and row.encoded is None:
                n_truncated += 1
            row.encoded = tokens
            row.encoder = encoder
        return n_truncated

    def plan_calls_of_rows(self, rows: Sequence[Row], parallel: int) -> list[list[int]]:
        """Split rows that are encoded for this stage into calls; see `plan_calls`.

        A text's windows are in one call, and count as the rows of it.
        """
        if len(rows) == 1:
            return [[0]]
        lengths = [0 if row.encoded is None else len(row.encoded.ids) for row in rows]
        calls = self.plan_calls(lengths, parallel)
        if self.settings.windows is None:
            return calls
        counts = [len(windows_of_row(row.encoded)) if row.encoded else 1 for row in rows]
        return split_by_windows(calls, counts, self._limits.rows(self.settings.max_length))

    def plan_calls(self, lengths: Sequence[int], parallel: int = 1) -> list[list[int]]:
        """Split rows into calls, as `batching.plan_calls` and `split_across_instances` do.

        Args:
            lengths: Tokens of each row.
            parallel: Calls that may run at the same time.

        Returns:
            Lists of indices into `lengths`, one for each call.
        """
        calls = plan_calls(lengths, self._limits)
        if parallel == 1:
            return calls
        return split_across_instances(calls, lengths, self._limits, parallel)

    def next_call(self, lengths: Sequence[int]) -> list[int]:
        """Choose the rows of the next call by their lengths; see `batching.next_call`."""
        return next_call(lengths, self._limits)

    def oldest(self, lengths: Sequence[int]) -> Sequence[int]:
        """Choose the oldest rows, to be split into calls that run at the same time."""
        return range(min(len(lengths), self.settings.max_batch_size))

    def decide(
        self,
        encoded: Sequence[EncodedRow],
        thresholds: NDArray[np.float32] | np.float32,
        trace: object | None = None,
    ) -> Decision:
        """Call the stage and gate its logits.

        Args:
            encoded: 1 to max_batch_size rows.
            thresholds: The thresholds for `gate.decide`.
            trace: The trace that the call joins.

        Raises:
            InternalError: The logits have another shape than the policy's labels.
        """
        if self._has_windows(encoded):
            # Of rows, so that the estimate is in what a queue holds.
            with self.latency.call(len(encoded), self._instances):
                logits = self._logits_of_windows(encoded, trace)
        else:
            batch = self._batch(encoded, trace)
            with self.latency.call(len(encoded), self._instances):
                logits = self._run_stage(self.index, batch)
        return self._gated(logits, len(encoded), thresholds)

    def _has_windows(self, encoded: Sequence[EncodedRow]) -> bool:
        return self.settings.windows is not None and any(
            isinstance(row, WindowedRow) for row in encoded
        )

    def _logits_of_windows(
        self, encoded: Sequence[EncodedRow], trace: object | None = None
    ) -> NDArray[np.float32]:
        """Run every window as a row of a call within the stage's limits, and pool them by text."""
        windows = self.settings.windows
        assert windows is not None
        of_texts = [windows_of_row(row) for row in encoded]
        rows = [window for of_text in of_texts for window in of_text]
        logits = np.empty((len(rows), len(self._label_indices)), dtype=np.float32)
        for indices in self.plan_calls([len(row) for row in rows]):
            found = self._run_stage(self.index, self._batch([rows[i] for i in indices], trace))
            self._check_shape(found, len(indices))
            logits[indices] = found
        counts = [len(of_text) for of_text in of_texts]
        return pooled_logits(logits, counts, windows.pool, self._task)

    def _batch(self, encoded: Sequence[EncodedRow], trace: object | None = None) -> StageBatch:
        of = self.settings
        return pad_rows(encoded, of.inputs, of.buckets, self._encoder.pad_id, trace)

    def _gated(
        self,
        logits: NDArray[np.float32],
        rows: int,
        thresholds: NDArray[np.float32] | np.float32,
    ) -> Decision:
        settings = self.settings
        self._check_shape(logits, rows)
        if self._reorders:
            # In C order, as jobs keep the arrays; an index would leave the order to numpy.
            logits = logits.take(self._label_indices, axis=1)
        return decide(logits, settings.temperature, thresholds, settings.signal, self._task)

    def _check_shape(self, logits: NDArray[np.float32], rows: int) -> None:
        expected = (rows, self._n_labels)
        if logits.shape != expected:
            raise InternalError(
                f"logits have shape {logits.shape} and must have {expected}: "
                "the stage is not the one that the policy was made for"
            )

    def answers(self, texts: Sequence[Text]) -> NDArray[Any]:
        """Return the stage's own answers to texts, for audits; see `audit.LastAnswers`."""
        encoded = self._encoder.encode(texts)
        answers = np.full(len(texts), -1, dtype=np.object_)
        for indices in self.plan_calls([len(row) for row in encoded]):
            # Not measured: an audit's few rows say little about the calls that requests wait for.
            rows = [encoded[i] for i in indices]
            if self._has_windows(rows):
                logits = self._logits_of_windows(rows)
            else:
                logits = self._run_stage(self.index, self._batch(rows))
            decision = self._gated(logits, len(rows), ALWAYS_EXIT)
            keys = answer_keys(decision.probabilities, self._task)
            answers[indices] = np.where(decision.exits, keys, -1)
        return answers

    def _has_tokens_of(self, row: Row) -> bool:
        """Return whether the stage's own encoder would make the row's tokens."""
        if row.encoder is self._encoder:
            return True
        if row.encoder is None or row.encoded is None:
            return False
        if row.encoder.path != self._encoder.path:
            return False
        return row.encoded.is_whole and len(row.encoded) <= self.settings.max_length


def stages_of_policy(
    policy: Policy,
    version_folder: Path,
    run_stage: RunStage,
    calls_in_flight: int,
    first_calls: int = 1,
) -> list[Stage]:
    """Make the stages of a policy; those that read texts in the same way share an encoder.

    Args:
        policy: A validated policy.
        version_folder: The folder that holds `tokenizers/`.
        run_stage: Calls a stage; see `RunStage`.
        calls_in_flight: Concurrent calls of each stage but the first.
        first_calls: Concurrent calls of the first stage.

    Raises:
        PolicyError: A tokenizer of the policy is missing or damaged.
    """
    encoders = {
        (name, max_length, windows): Encoder(
            version_folder / TOKENIZERS_FOLDER / name / TOKENIZER_FILE, max_length, windows
        )
        for name, max_length, windows in {_reading(stage) for stage in policy.stages}
    }
    return [
        Stage(
            index,
            settings,
            encoders[_reading(settings)],
            run_stage,
            calls_in_flight if index else first_calls,
            task=policy.task,
        )
        for index, settings in enumerate(policy.stages)
    ]


def _reading(stage: StagePolicy) -> tuple[str, int, Windows | None]:
    return stage.tokenizer, stage.max_length, stage.windows
