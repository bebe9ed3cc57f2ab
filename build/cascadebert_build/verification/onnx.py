"""Compares a reloaded ONNX file with its checkpoint on real, padded text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.batching import bucket_of
from cascadebert_core.contract import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS
from cascadebert_core.task import SINGLE_LABEL
from cascadebert_core.tokenization import EncodedRow, Text

from ..checkpoints.checkpoint import Checkpoint
from ..config.placement import cores
from ..errors import CheckFailed
from ..graphs.logits import Run, StageInput
from ..progress import counted
from .allowance import Allowance
from .comparison import (
    FEW_ROWS,
    ComparedCalls,
    batch_failures,
    calls_of_rows,
    compare_calls,
    difference_of_logits,
    logits_of_calls,
    padded_tokens,
)
from .reference import Reference
from .sample import FEWEST_ROWS, Sample, sample_of_texts

if TYPE_CHECKING:
    import torch

# Float32 kernels with another order of summation differ by 1e-6 to 1e-5 in a logit. A wrong mask, a
# lost token or a half-precision weight gives differences of 1e-2 or more.
TOLERANCE = 1e-3

# The share of the time that PyTorch gets in a check that is short of it.
_REFERENCE_SHARE = 0.4

# Increase it when the comparison changes: graphs are then checked again.
CHECK_VERSION = 2


# A padded length, and the rows of each call of it.
Shape = tuple[int, list[list[int]]]


@dataclass(frozen=True, slots=True)
class VerifyCase:
    """The result for one kind of calls.

    Attributes:
        name: "one row" or "full batches".
        rows: Number of rows.
        shapes: The distinct (rows, padded length) of the calls.
        max_difference: The largest absolute difference of a logit.
        mean_difference: The mean absolute difference.
        label_agreement: Share of rows with the checkpoint's label, or its set of labels.
        non_finite: Number of NaN and infinite logits.
    """

    name: str
    rows: int
    shapes: tuple[tuple[int, int], ...]
    max_difference: float
    mean_difference: float
    label_agreement: float
    non_finite: int


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """How an artefact differs from its checkpoint; true if it is within tolerance.

    Attributes:
        member: The name of the member.
        tolerance: Of the difference of every logit.
        cases: Single rows, and full batches.
        calls: A few rows of every padded length, compared with the graph's own logits of each row
            alone.
        left_out: What a check that is short of time has not compared.
    """

    member: str
    tolerance: float
    cases: tuple[VerifyCase, ...]
    calls: tuple[ComparedCalls, ...]
    left_out: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.failures()

    def failures(self) -> list[str]:
        """A sentence for everything that is out of tolerance."""
        found = batch_failures(self.calls, self.tolerance)  # the cause of what follows
        for case in self.cases:
            if case.non_finite:
                found.append(f"{case.name}: {case.non_finite} logits are NaN or infinite")
            if not case.max_difference <= self.tolerance:  # NaN too
                found.append(
                    f"{case.name}: a logit differs by {case.max_difference:.1e} "
                    f"(tolerance {self.tolerance:.0e})"
                )
        return found

    @property
    def max_difference(self) -> float:
        """The largest absolute difference of a logit in all cases."""
        return max(case.max_difference for case in self.cases)

    def __str__(self) -> str:
        cases = "; ".join(
            f"{case.name}: {case.rows} rows, largest logit difference {case.max_difference:.1e}, "
            f"label agreement {case.label_agreement:.2%}"
            for case in self.cases
        )
        alone = max((case.batch_difference for case in self.calls), default=0.0)
        return (
            f"{self.member}: {cases}; of a row alone and in a batch {alone:.1e} "
            f"(tolerance {self.tolerance:.0e})"
            f"{'; left out: ' if self.left_out else ''}{', '.join(self.left_out)}"
        )


def verify_onnx(
    run: Run,
    checkpoint: Checkpoint,
    stage: StageInput,
    texts: Sequence[Text],
    *,
    member: str,
    max_batch_size: int,
    tolerance: float = TOLERANCE,
    text_only: bool = False,
    task: str = SINGLE_LABEL,
    seconds: float | None = None,
) -> VerifyReport:
    """Compare logits on a sample of `texts`: single rows, and batches of mixed lengths.

    The reference is the checkpoint in PyTorch with its own tokenizer, each row alone and unpadded.
    So the check also finds errors of tokenisation, truncation and padding.

    Args:
        run: The reloaded graph.
        checkpoint: What it was exported from.
        stage: How texts become batches.
        texts: The held-out rows.
        member: The name of the member.
        max_batch_size: Rows of a full batch.
        tolerance: Of the difference of every logit.
        text_only: Whether the served tokenizer reads special tokens in a text as plain text. The
            checkpoint's own tokenizer may read such rows otherwise.
        task: What the member's answers are, one of `cascadebert_core.task.TASKS`.
        seconds: About how long the comparison may take; None: as long as it takes.

    Raises:
        CheckFailed: The served tokenizer gives other tokens than the checkpoint's, or the graph
            cannot run a call.
    """
    sample = sample_of_texts(texts, stage)
    rows = tuple(stage.encoder.encode(sample.texts))
    kept, logits = _reference_logits(
        checkpoint,
        sample,
        rows,
        stage.encoder.max_length,
        member,
        text_only=text_only,
        allowed=Allowance(None if seconds is None else _REFERENCE_SHARE * seconds),
    )
    left_out = [f"{len(rows) - len(kept)} of {len(rows)} rows"] if len(kept) < len(rows) else []
    sample, rows = sample.take(kept), tuple(rows[i] for i in kept)
    reference = Reference(rows, logits, sample.names, sample.special, task)
    allowed = Allowance(None if seconds is None else (1 - _REFERENCE_SHARE) * seconds)
    calls = _calls_of_buckets(reference, stage, max_batch_size)
    single = sorted(
        {*range(0, len(rows), max(1, len(rows) // 64))}.union(
            *(call for _, of_length in calls for call in of_length)
        )
    )
    # Plain rows are in random order, so each batch has rows of mixed lengths.
    full = [
        [j % len(rows) for j in range(i, i + max_batch_size)]
        for i in range(0, len(rows), max_batch_size)
    ]
    work = partial(padded_tokens, reference, buckets=stage.buckets)
    each = [[i] for i in single]
    all_calls = [*((length, of_length) for length, of_length in calls), (None, each), (None, full)]
    n_rows = sum(len(call) for _, of_length in all_calls for call in of_length)
    tokens = sum(work(of_length, length=length) for length, of_length in all_calls)

    with counted("row", n_rows, what="graph", work=tokens) as advance:

        def logits_of(
            calls: Sequence[Sequence[int]], length: int | None = None
        ) -> NDArray[np.float32]:
            padded = partial(stage.batch, length=length)
            found = logits_of_calls(run, reference, calls, padded, member, advance=advance)
            allowed.done(work(calls, length=length))
            return found

        alone = np.full_like(logits, np.nan)
        alone[single] = logits_of(each)
        # Before the full batches: what fails here, fails beside a known kind of rows.
        compared: list[ComparedCalls] = []
        for length, of_length in allowed.in_order(calls):
            # One shape in any case: padding is what graphs are most often wrong about.
            if not compared or allowed.fits(work(of_length, length=length)):
                compared.append(
                    compare_calls(logits_of(of_length, length), reference, alone, of_length, length)
                )
        cases = [_case("one row", stage, reference, each, alone[single])]
        batches: list[NDArray[np.float32]] = []
        for call in full:
            if not allowed.fits(work([call])):
                break
            batches.append(logits_of([call]))
        if batches:
            logits_of_full = np.concatenate(batches)
            cases.append(
                _case("full batches", stage, reference, full[: len(batches)], logits_of_full)
            )
    if len(compared) < len(calls):
        left_out.append(f"{len(calls) - len(compared)} of {len(calls)} shapes of calls")
    if len(batches) < len(full):
        left_out.append(f"{len(full) - len(batches)} of {len(full)} full batches")
    compared.sort(key=lambda case: (case.length or 0, -case.batch))
    return VerifyReport(member, tolerance, tuple(cases), tuple(compared), tuple(left_out))


def _calls_of_buckets(reference: Reference, stage: StageInput, max_batch_size: int) -> list[Shape]:
    """Calls of a few rows of every sampled length, and of one row of the longest."""
    shortest = min(len(row) for row in reference.rows[: reference.plain])
    few = min(FEW_ROWS, max_batch_size)
    shapes = [(length, few) for length in stage.sampled_buckets if length >= shortest]
    if few > 1:
        shapes.append((stage.buckets[-1], 1))
    return [(length, calls_of_rows(reference, length, batch)) for length, batch in shapes]


def _case(
    name: str,
    stage: StageInput,
    reference: Reference,
    calls: Sequence[Sequence[int]],
    logits: NDArray[np.float32],
) -> VerifyCase:
    indices = [i for call in calls for i in call]
    difference = difference_of_logits(logits, reference.logits[indices], reference.task)
    longest = (max(len(reference.rows[i]) for i in call) for call in calls)
    return VerifyCase(
        name=name,
        rows=len(indices),
        shapes=tuple(
            sorted({(len(calls[0]), bucket_of(length, stage.buckets)) for length in longest})
        ),
        max_difference=difference["max_difference"],
        mean_difference=difference["mean_difference"],
        label_agreement=difference["label_agreement"],
        non_finite=difference["non_finite"],
    )


def _reference_logits(
    checkpoint: Checkpoint,
    sample: Sample,
    rows: Sequence[EncodedRow],
    max_length: int,
    member: str,
    *,
    text_only: bool,
    allowed: Allowance,
) -> tuple[list[int], NDArray[np.float32]]:
    """The checkpoint's logits, row by row and unpadded.

    Returns:
        The rows that the time was enough for, ascending, and their logits of shape (n, n_labels).
    """
    import torch

    order = sample.most_telling_first() if allowed.is_limited else range(len(sample.texts))
    logits: dict[int, torch.Tensor] = {}
    special = [
        str(token) for token in checkpoint.tokenizer.added_tokens_decoder.values() if token.special
    ]
    # One row has little to share, and threads that spin on a busy machine make it ten times slower.
    torch.set_num_threads(max(1, cores() // 2))
    tokens_of_all = sum(len(row) for row in rows)
    with (
        torch.inference_mode(),
        counted("row", len(rows), what="checkpoint", work=tokens_of_all) as advance,
    ):
        for i in order:
            if len(logits) >= FEWEST_ROWS and not allowed.fits(len(rows[i])):
                continue
            text = sample.texts[i]
            parts = (text,) if isinstance(text, str) else text
            tokens = cast("Any", checkpoint.tokenizer)(
                *parts,
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
                return_attention_mask=True,  # whatever the tokenizer's own default is
            )
            if text_only and any(name in part for name in special for part in parts):
                tokens = _tensors(rows[i])
            elif tokens["input_ids"][0].tolist() != rows[i].ids.tolist():
                raise CheckFailed(
                    f"{member}: the served tokenizer and that of {checkpoint.source} differ on "
                    f"{sample.names[i]}: save the checkpoint's tokenizer again with a "
                    "current transformers"
                )
            logits[i] = checkpoint.model(**{k: tokens[k] for k in checkpoint.inputs}).logits[0]
            allowed.done(len(rows[i]))
            advance(1, work=len(rows[i]))
    kept = sorted(logits)
    return kept, torch.stack([logits[i] for i in kept]).float().numpy()


def _tensors(row: EncodedRow) -> dict[str, torch.Tensor]:
    """A row as the checkpoint's inputs, each of shape (1, length)."""
    import torch

    ids = torch.from_numpy(row.ids.astype(np.int64))[None]
    types = torch.from_numpy(row.type_ids.astype(np.int64))[None]
    return {INPUT_IDS: ids, ATTENTION_MASK: torch.ones_like(ids), TOKEN_TYPE_IDS: types}
