"""The least that a Python model of this server can do for a text: tokenise, answer a constant.

`benchmarks.ceiling.repository` installs it beside a cascade, with its config.pbtxt and tokenizer.
"""

# The core lies beside this file only once both are installed in a model repository.
# pyright: reportMissingImports=false

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # as the real cascade does

import numpy as np
import triton_python_backend_utils as pb_utils

from .cascadebert_core import contract
from .cascadebert_core.policy import policy_from_file


class TritonPythonModel:
    """One call of the tokenizer for all requests of a batch, and the same outputs for each."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer of the first stage."""
        from tokenizers import Tokenizer

        folder = Path(__file__).resolve().parent
        policy = policy_from_file(folder / contract.POLICY_FILE)
        name = policy.stages[0].tokenizer
        path = folder / contract.TOKENIZERS_FOLDER / name / contract.TOKENIZER_FILE
        self._tokenizer = Tokenizer.from_file(str(path))
        self._label = policy.labels[0].encode()
        self._policy = policy.id.encode()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request."""
        columns = [
            pb_utils.get_input_tensor_by_name(request, contract.TEXT).as_numpy()[:, 0]
            for request in requests
        ]
        self._tokenizer.encode_batch_fast([text.decode() for column in columns for text in column])
        return [
            self._response(len(column), request.requested_output_names())
            for column, request in zip(columns, requests, strict=True)
        ]

    def _response(self, n: int, requested: list[str]) -> Any:
        made = {
            contract.LABEL: lambda: np.full((n, 1), self._label, dtype=np.object_),
            contract.PROBABILITIES: lambda: np.zeros((n, 2), dtype=np.float32),
            contract.CONFIDENCE: lambda: np.zeros((n, 1), dtype=np.float32),
            contract.EXIT_STAGE: lambda: np.zeros((n, 1), dtype=np.int32),
            contract.DEGRADED: lambda: np.zeros((n, 1), dtype=np.bool_),
            contract.POLICY: lambda: np.full((n, 1), self._policy, dtype=np.object_),
        }
        return pb_utils.InferenceResponse(
            # perf_analyzer asks for all outputs, also for those that the cascade makes only if a
            # request says so.
            output_tensors=[
                pb_utils.Tensor(name, made[name]()) for name in requested if name in made
            ]
        )
