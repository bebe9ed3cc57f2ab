"""Compares a reloaded ONNX file with its checkpoint on real, padded text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cascadebert_core.batching import StageBatch
from cascadebert_core.tokenization import EncodedRow, Text

from ..checkpoints.checkpoint import Checkpoint
from ..config.placement import cores
from ..errors import CheckFailed
from ..graphs.logits import Run, StageInput
from .comparison import difference_of_logits
from .reference import sample_of_texts

if TYPE_CHECKING:
    import torch

# Float32 kernels with another order of summation differ by 1e-6 to 1e-5 in a logit. A wrong mask, a
# lost token or a half-precision weight gives differences of 1e-2 or more.
TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class VerifyCase:
    """The result for one kind of calls.

    Attributes:
        name: "one row" or "full batches".
        rows: Number of rows.
        shapes: The distinct (rows, padded length) of the calls.
        max_difference: The largest absolute difference of a logit.
        mean_difference: The mean absolute difference.
        label_agreement: Share of rows with the checkpoint's label.
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
    """

    member: str
    tolerance: float
    cases: tuple[VerifyCase, ...]

    def __bool__(self) -> bool:
        return not self.failures()

    def failures(self) -> list[str]:
        """A sentence for everything that is out of tolerance."""
        found: list[str] = []
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
        return f"{self.member}: {cases} (tolerance {self.tolerance:.0e})"


def verify_onnx(
    run: Run,
    checkpoint: Checkpoint,
    stage: StageInput,
    texts: Sequence[Text],
    *,
    member: str,
    max_batch_size: int,
    tolerance: float = TOLERANCE,
) -> VerifyReport:
    """Compare logits on a sample of `texts`: single rows, and full batches of mixed lengths.

    The reference is the checkpoint in PyTorch with its own tokenizer, each row alone and unpadded.
    So the check also finds errors of tokenisation, truncation and padding.

    Raises:
        CheckFailed: The served tokenizer gives other tokens than the checkpoint's.
    """
    sample = sample_of_texts(texts, stage)
    rows = stage.encoder.encode(sample)
    reference = _reference_logits(checkpoint, sample, rows, stage.encoder.max_length, member)
    alone = [[i] for i in range(0, len(sample), max(1, len(sample) // 64))]
    # The sample is in random order, so each batch has rows of mixed lengths.
    full = [
        [j % len(sample) for j in range(i, i + max_batch_size)]
        for i in range(0, len(sample), max_batch_size)
    ]
    return VerifyReport(
        member,
        tolerance,
        tuple(
            _compare(
                name,
                [stage.batch([rows[i] for i in call]) for call in calls],
                run,
                reference[[i for call in calls for i in call]],
            )
            for name, calls in (("one row", alone), ("full batches", full))
        ),
    )


def _compare(
    name: str, batches: Sequence[StageBatch], run: Run, reference: NDArray[np.float32]
) -> VerifyCase:
    difference = difference_of_logits(np.concatenate([run(b) for b in batches]), reference)
    return VerifyCase(
        name=name,
        rows=len(reference),
        shapes=tuple(sorted({batch.shape for batch in batches})),
        max_difference=difference["max_difference"],
        mean_difference=difference["mean_difference"],
        label_agreement=difference["label_agreement"],
        non_finite=difference["non_finite"],
    )


def _reference_logits(
    checkpoint: Checkpoint,
    texts: Sequence[Text],
    rows: Sequence[EncodedRow],
    max_length: int,
    member: str,
) -> NDArray[np.float32]:
    """The checkpoint's logits, row by row and unpadded, of shape (n, n_labels)."""
    import torch

    logits: list[torch.Tensor] = []
    # One row has little to share, and threads that spin on a busy machine make it ten times slower.
    torch.set_num_threads(max(1, cores() // 2))
    with torch.inference_mode():
        progress = tqdm(texts, desc=f"verify {member}", unit="row", leave=False, disable=None)
        for i, text in enumerate(progress):
            parts = (text,) if isinstance(text, str) else text
            tokens = cast("Any", checkpoint.tokenizer)(
                *parts,
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
                return_attention_mask=True,  # whatever the tokenizer's own default is
            )
            if tokens["input_ids"][0].tolist() != rows[i].ids.tolist():
                raise CheckFailed(
                    f"{member}: the served tokenizer and that of {checkpoint.source} differ on "
                    f"row {i} of the sample: save the checkpoint's tokenizer again with a "
                    "current transformers"
                )
            logits.append(checkpoint.model(**{k: tokens[k] for k in checkpoint.inputs}).logits[0])
    return torch.stack(logits).float().numpy()
