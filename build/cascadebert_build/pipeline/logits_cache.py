"""Logits of the members over the held-out rows, kept by the artefact that gave them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.batching import bucket_of
from cascadebert_core.tokenization import Encoder
from cascadebert_engine.files import sha256_of

from ..errors import UsageError
from ..graphs.logits import Run, load_logits, logits_of_rows, save_logits
from ..graphs.session import OnnxSession
from ..progress import timed
from .artefact import Artefact, ArtefactMaker
from .context import BuildContext
from .exported import Exported, task_of_member

# A maximum length that no row has.
_UNLIMITED = 1 << 30
_COUNTED_AT_ONCE = 1024

Open = Callable[[], AbstractContextManager[Run]]


class LogitsCache:
    """Logits of shape (n, n_labels) in the checkpoint's order, row i for held-out row i."""

    def __init__(self, context: BuildContext, maker: ArtefactMaker) -> None:
        """Describe what is kept; nothing is read yet.

        Args:
            context: The build.
            maker: Opens the artefacts that serve.
        """
        self._context = context
        self._maker = maker
        self._made: set[str] = set()  # the keys of what was made here, and is new even if forced

    def served(self, artefact: Artefact, *, regrouped: bool = False) -> NDArray[np.float32]:
        """Logits of the artefact that serves; it is loaded only if they are not kept.

        Args:
            artefact: The artefact.
            regrouped: Whether rows of all lengths share batches, of another size.
        """
        return self._logits(
            artefact.exported,
            artefact.key,
            lambda: self._maker.opened(artefact.exported),
            regrouped=regrouped,
        )

    def kept(self, artefact: Artefact) -> NDArray[np.float32]:
        """Logits of the artefact that serves, as they were kept; it is not run.

        Raises:
            UsageError: No logits of this artefact and these rows are kept.
        """

        def refuse() -> AbstractContextManager[Run]:
            name = artefact.exported.name
            raise UsageError(f"no logits of {name!r} are kept: run `cascadebert tune`")

        return self._logits(artefact.exported, artefact.key, refuse)

    def reference(self, exported: Exported) -> NDArray[np.float32]:
        """Logits of the exported FP32 graph."""
        return self._logits(
            exported,
            exported.manifest.onnx_sha256,
            lambda: contextlib.nullcontext(OnnxSession(exported.onnx).logits),
        )

    def lengths(self, exported: Exported) -> list[int]:
        """Padded tokens of every row; those of all windows, if it is read in several."""
        counts, size = self.token_counts(exported), exported.window_size
        most, windows = exported.member.max_length, exported.member.windows

        def padded(tokens: int) -> int:
            if tokens <= most:
                return bucket_of(tokens, exported.buckets)
            return most if windows is None else most * windows.count(tokens - (most - size), size)

        of_count = {int(tokens): padded(int(tokens)) for tokens in np.unique(counts)}
        return [of_count[int(tokens)] for tokens in counts]

    def token_counts(self, exported: Exported) -> NDArray[np.int64]:
        """Tokens of every row before it is cut to the member's maximum length, shape (n,).

        They are counted once for a tokenizer and rows.
        """
        context, member = self._context, exported.member
        key = sha256_of("token counts", exported.manifest.tokenizer_sha256, context.rows.sha256())
        path = context.workspace.logits(member, key)
        counts = load_logits(path, key)
        if counts is None:
            encoder = Encoder(exported.tokenizer, _UNLIMITED)
            texts = context.rows.texts
            counts = np.array(
                [
                    len(row)
                    for start in range(0, len(texts), _COUNTED_AT_ONCE)
                    for row in encoder.encode(texts[start : start + _COUNTED_AT_ONCE])
                ],
                dtype=np.float32,  # exact to 16 million
            )
            save_logits(path, key, counts)
        return counts.astype(np.int64)

    def _logits(
        self, exported: Exported, artefact_key: str, opened: Open, *, regrouped: bool = False
    ) -> NDArray[np.float32]:
        context, member = self._context, exported.member
        task = task_of_member(context.config, exported.manifest)
        read_in = () if member.windows is None else (asdict(member.windows), task)
        key = sha256_of(
            artefact_key, exported.manifest.tokenizer_sha256, context.rows.sha256(),
            member.max_length, exported.buckets, *(["regrouped"] if regrouped else []), *read_in,
        )  # fmt: skip
        path = context.workspace.logits(member, key)
        kept = load_logits(path, key) if not context.force or key in self._made else None
        if kept is not None:
            return kept
        with timed("logits", member.name) as note, opened() as run:
            logits = logits_of_rows(
                run,
                exported.stage_input,
                context.rows.texts,
                "",
                member.max_batch_size,
                regrouped=regrouped,
                task=task,
            )
            save_logits(path, key, logits)
            self._made.add(key)
            note(f"{len(logits)} rows" + (" in other batches" if regrouped else ""))
        return logits
