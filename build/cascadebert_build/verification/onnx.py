"""The saved ONNX file, reloaded, against its checkpoint, on real padded text."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
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
from ..graphs.logits import StageInput

if TYPE_CHECKING:
    import torch

# Float32 kernels that sum in another order differ by 1e-6 to 1e-5 in a logit; a wrong mask, a
# lost token or a half-precision weight shows from 1e-2 on. Between them lies this.
TOLERANCE = 1e-3

# Rows that are compared: enough for every length that the data has, and seconds of work.
SAMPLE_SIZE = 192


@dataclass(frozen=True, slots=True)
class VerifyCase:
    """One way of calling the artefact.

    Attributes:
        name: "one row" or "full batches".
        rows: how many rows were compared.
        shapes: the distinct (rows, padded length) of the calls.
        max_difference: largest absolute difference of a logit.
        mean_difference: mean absolute difference.
        label_agreement: share of rows with the checkpoint's label.
        non_finite: NaN and infinite logits of the artefact.
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
    """How far an artefact is from its checkpoint; true when it is within tolerance."""

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
        """The largest absolute difference of a logit in any case."""
        return max(case.max_difference for case in self.cases)

    def __str__(self) -> str:
        cases = "; ".join(
            f"{case.name}: {case.rows} rows, largest logit difference {case.max_difference:.1e}, "
            f"label agreement {case.label_agreement:.2%}"
            for case in self.cases
        )
        return f"{self.member}: {cases} (tolerance {self.tolerance:.0e})"


def verify_onnx(
    run: Callable[[StageBatch], NDArray[np.float32]],
    checkpoint: Checkpoint,
    stage: StageInput,
    texts: Sequence[Text],
    *,
    member: str,
    max_batch_size: int,
    tolerance: float = TOLERANCE,
) -> VerifyReport:
    """Compare logits on a sample of `texts`: rows alone, and full batches of mixed lengths.

    The reference is the checkpoint in PyTorch with the checkpoint's own tokenizer, each row
    alone and unpadded, so that errors of tokenising, truncating and padding show as well.

    Raises:
        CheckFailed: the served tokenizer makes other tokens than the checkpoint's.
    """
    sample = sample_of_texts(texts, stage)
    rows = stage.encoder.encode(sample)
    reference = _reference_logits(checkpoint, sample, rows, stage.encoder.max_length, member)
    alone = [[i] for i in range(0, len(sample), max(1, len(sample) // 64))]
    # Mixed lengths in one batch: the order of the sample is random.
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
                [(stage.batch([rows[i] for i in call]), call) for call in calls],
                run,
                reference,
            )
            for name, calls in (("one row", alone), ("full batches", full))
        ),
    )


def sample_of_texts(texts: Sequence[Text], stage: StageInput) -> list[Text]:
    """A seeded sample in random order, with the shortest and the longest rows in it."""
    chosen = random.Random(0).sample(range(len(texts)), min(len(texts), SAMPLE_SIZE))
    by_length = sorted(range(len(texts)), key=lambda i: len("".join(texts[i])))
    chosen = list(dict.fromkeys([by_length[0], by_length[-1], *chosen]))
    random.Random(1).shuffle(chosen)
    longest = texts[by_length[-1]]
    # Real rows seldom reach the maximum length; this one is truncated for certain.
    repeats = stage.encoder.max_length // 2 + 1
    truncated: Text = (
        " ".join([longest] * repeats)
        if isinstance(longest, str)
        else (" ".join([longest[0]] * repeats), longest[1])
    )
    return [texts[i] for i in chosen] + [truncated]


def _compare(
    name: str,
    calls: Sequence[tuple[StageBatch, list[int]]],
    run: Callable[[StageBatch], NDArray[np.float32]],
    reference: NDArray[np.float32],
) -> VerifyCase:
    differences: list[NDArray[np.float32]] = []
    agreed = non_finite = 0
    for batch, indices in calls:
        logits = run(batch)
        non_finite += int((~np.isfinite(logits)).sum())
        differences.append(np.abs(logits - reference[indices]))
        agreed += int((logits.argmax(axis=1) == reference[indices].argmax(axis=1)).sum())
    all_differences = np.concatenate(differences)
    return VerifyCase(
        name=name,
        rows=len(all_differences),
        shapes=tuple(sorted({batch.shape for batch, _ in calls})),
        max_difference=float(all_differences.max()),
        mean_difference=float(all_differences.mean()),
        label_agreement=agreed / len(all_differences),
        non_finite=non_finite,
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
    # One row has little to share out, and threads that spin on a busy machine cost tenfold.
    torch.set_num_threads(max(1, cores() // 2))
    with torch.inference_mode():
        progress = tqdm(texts, desc=f"verify {member}", unit="row", leave=False, disable=None)
        for i, text in enumerate(progress):
            parts = (text,) if isinstance(text, str) else text
            tokens = cast("Any", checkpoint.tokenizer)(
                *parts, truncation=True, max_length=max_length, return_tensors="pt"
            )
            if tokens["input_ids"][0].tolist() != rows[i].ids.tolist():
                raise CheckFailed(
                    f"{member}: the served tokenizer and that of {checkpoint.source} disagree on "
                    f"row {i} of the sample: save the checkpoint's tokenizer again with a "
                    "current transformers"
                )
            logits.append(checkpoint.model(**{k: tokens[k] for k in checkpoint.inputs}).logits[0])
    return torch.stack(logits).float().numpy()
