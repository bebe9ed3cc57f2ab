"""Checkpoints on some rows in PyTorch: logits and time, without an export."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.tokenization import Text

from ..config.placement import cores
from ..extras import needs_extra
from ..progress import counted
from .checkpoint import Checkpoint, checkpoint_from_source

if TYPE_CHECKING:
    import torch

_BATCH_SIZE = 32
# Rows of a round; the first rounds are small, so that one of them ends in time on any machine.
_ROUNDS = (8, 24, 64, 128)
# Every row is timed once, and again if there is time, up to this often.
_MOST_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Probed:
    """A checkpoint that was run on n rows.

    Attributes:
        source: Folder or hub id.
        labels: In the order of the logits.
        task: One of `cascadebert_core.task.TASKS`; None if the checkpoint does not say.
        max_positions: The longest sequence, in tokens; None: no limit.
        logits: Float32 of shape (n, n_labels).
        ms: Milliseconds of each row, its share of the batch's time, shape (repeats, n).
        tokens: Of each row as it was run, shape (n,).
        macs_per_token: Multiply-accumulates of a token in layers with a weight.
    """

    source: str
    labels: tuple[str, ...]
    task: str | None
    max_positions: int | None
    logits: NDArray[np.float32]
    ms: NDArray[np.float64]
    tokens: NDArray[np.int64]
    macs_per_token: int

    @property
    def ms_per_row(self) -> float:
        """The mean milliseconds of a row, each at the median of its repeats."""
        return float(np.median(self.ms, axis=0).mean())


@dataclass(frozen=True, slots=True)
class Member:
    """What is probed.

    Attributes:
        source: Folder or hub id.
        max_length: Tokens, special ones included; longer texts are cut.
        trust_remote_code: Whether the checkpoint's own code may run.
    """

    source: str
    max_length: int
    trust_remote_code: bool = False


def probe_checkpoints(
    members: Sequence[Member], texts: Sequence[Text], seconds: float
) -> tuple[list[int], list[Probed]]:
    """Run all members on the same rows, in turns, for about a given time.

    Rows are taken in a seeded random order, so that those that the time is enough for are like the
    others. All members have the same rows.

    Args:
        members: What is run.
        texts: The rows.
        seconds: After which no new round of rows begins. Loading the checkpoints is not counted.

    Returns:
        The rows that were run, ascending, and what each member said of them.
    """
    with needs_extra("build"):
        import torch
    # Threads that spin while they wait make a busy machine ten times slower.
    torch.set_num_threads(max(1, cores() // 2))
    with counted("checkpoint", len(members), what="load") as advance:
        loaded: list[_Loaded] = []
        for member in members:
            loaded.append(_Loaded(member, texts))
            advance(1)
    order = random.Random(0).sample(range(len(texts)), len(texts))
    began_s = time.monotonic()
    rounds: list[list[int]] = []
    with torch.inference_mode(), counted("row", len(texts), what="run") as advance:
        for each in loaded:
            each.warm_up(order[: _ROUNDS[0]])
        for start, size in _rounds(len(order)):
            now_s = time.monotonic() - began_s
            done = sum(map(len, rounds))
            if done and now_s * (1 + size / done) > seconds:
                break
            rounds.append(sorted(order[start : start + size], key=loaded[0].length))
            for each in loaded:
                each.run(rounds[-1])
            advance(size)
    took_s = time.monotonic() - began_s
    with torch.inference_mode(), counted("row", what="run again") as advance:
        for _ in range(_MOST_REPEATS - 1):
            if time.monotonic() - began_s + took_s > seconds:
                break
            for rows in rounds:
                for each in loaded:
                    each.run(rows)
                advance(len(rows))
    kept = sorted(row for rows in rounds for row in rows)
    return kept, [each.probed(kept) for each in loaded]


def token_counts(source: str, texts: Sequence[Text]) -> NDArray[np.int64]:
    """Tokens of every text before it is cut, special ones included, shape (n,).

    Raises:
        UsageError: The checkpoint's tokenizer cannot be used.
    """
    from .checkpoint import tokenizer_from_source

    return _counts(cast("Any", tokenizer_from_source(source)), texts)


def _rounds(n: int) -> list[tuple[int, int]]:
    """Where each round begins, and its size."""
    found: list[tuple[int, int]] = []
    start = 0
    while start < n:
        size = min(_ROUNDS[min(len(found), len(_ROUNDS) - 1)], n - start)
        found.append((start, size))
        start += size
    return found


class _Loaded:
    """A member in memory, with what it has said."""

    def __init__(self, member: Member, texts: Sequence[Text]) -> None:
        import torch

        self._member = member
        self._texts = texts
        self._checkpoint: Checkpoint = checkpoint_from_source(
            member.source, trust_remote_code=member.trust_remote_code
        )
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = cast("Any", self._checkpoint.model).to(self._device)
        self._tokenizer = cast("Any", self._checkpoint.tokenizer)
        counts = _counts(self._tokenizer, texts)
        self._tokens = np.minimum(counts, member.max_length)
        self._logits: dict[int, NDArray[np.float32]] = {}
        self._ms: dict[int, list[float]] = {}

    def length(self, row: int) -> int:
        return int(self._tokens[row])

    def warm_up(self, rows: Sequence[int]) -> None:
        self._call(rows)

    def run(self, rows: Sequence[int]) -> None:
        """Run rows of ascending length, and note logits and times."""
        for start in range(0, len(rows), _BATCH_SIZE):
            part = rows[start : start + _BATCH_SIZE]
            began_s = time.perf_counter()
            logits = self._call(part)
            ms = (time.perf_counter() - began_s) * 1e3 / len(part)
            for row, values in zip(part, logits, strict=True):
                self._logits[row] = values
                self._ms.setdefault(row, []).append(ms)

    def probed(self, rows: Sequence[int]) -> Probed:
        n_repeats = min(len(self._ms[row]) for row in rows)
        checkpoint = self._checkpoint
        return Probed(
            self._member.source,
            checkpoint.labels,
            checkpoint.task,
            checkpoint.max_positions(),
            np.stack([self._logits[row] for row in rows]),
            np.array([self._ms[row][:n_repeats] for row in rows]).T,
            self._tokens[list(rows)].astype(np.int64),
            self._macs_per_token(rows[0]),
        )

    def _call(self, rows: Sequence[int]) -> NDArray[np.float32]:
        inputs = self._inputs(rows)
        return self._model(**inputs).logits.float().cpu().numpy()  # .cpu() waits for a GPU

    def _inputs(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        texts = [self._texts[row] for row in rows]
        pairs = [(text,) if isinstance(text, str) else text for text in texts]
        tokens = self._tokenizer(
            *(list(column) for column in zip(*pairs, strict=True)),
            truncation=True, max_length=self._member.max_length, padding=True,
            return_tensors="pt", return_attention_mask=True,
        ).to(self._device)  # fmt: skip
        return {name: tokens[name] for name in self._checkpoint.inputs}

    def _macs_per_token(self, row: int) -> int:
        """Count the weights that multiply every token, as `graphs.macs` does in a graph."""
        import torch

        inputs = self._inputs([row])
        n_tokens = next(iter(inputs.values())).shape[1]
        found = 0

        def count(module: Any, given: Any, _output: Any) -> None:
            nonlocal found
            weight = getattr(module, "weight", None)
            values = given[0] if given else None
            if isinstance(module, torch.nn.Embedding) or not isinstance(weight, torch.Tensor):
                return
            is_of_tokens = isinstance(values, torch.Tensor) and values.shape[:-1].numel() > 1
            if weight.dim() == 2 and values is not None and is_of_tokens:
                found += weight.numel() * values.shape[:-1].numel()

        hooks = [module.register_forward_hook(count) for module in self._model.modules()]
        try:
            with torch.inference_mode():
                self._model(**inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return round(found / n_tokens)


def _counts(tokenizer: Any, texts: Sequence[Text]) -> NDArray[np.int64]:
    pairs = [(text,) if isinstance(text, str) else text for text in texts]
    tokens = tokenizer(
        *(list(column) for column in zip(*pairs, strict=True)),
        truncation=False, padding=False, verbose=False,
    )["input_ids"]  # fmt: skip
    return np.array([len(row) for row in tokens], dtype=np.int64)
