"""Runs an ONNX file offline with ONNX Runtime, as a stage does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.batching import StageBatch
from cascadebert_core.contract import LOGITS

from ..errors import CheckFailed
from ..extras import needs_extra


class OnnxSession:
    """One ONNX file, loaded for the CPU.

    The settings are those of the stage models (stages/onnxruntime_session.py), so offline logits
    equal the served ones up to the last digits.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Load `path`.

        Raises:
            CheckFailed: The file is missing or damaged.
        """
        with needs_extra("build"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:
            raise CheckFailed(
                f"{path} cannot be loaded by ONNX Runtime; delete it and export again: {exc}"
            ) from exc
        self.inputs: tuple[str, ...] = tuple(value.name for value in self._session.get_inputs())

    def logits(self, batch: StageBatch) -> NDArray[np.float32]:
        """Logits of shape (rows, n_labels) in the checkpoint's own order."""
        feeds = {name: batch.tensors[name] for name in self.inputs}
        return np.asarray(self._session.run([LOGITS], feeds)[0], dtype=np.float32)
