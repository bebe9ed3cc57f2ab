"""The blocking cascade, a baseline: small stage, large stage, then one answer to the whole batch.

`benchmarks.tools.compared_models` installs it beside the real cascade with the same core, policy,
tokenizers and stages. The only difference is when requests are answered.
"""

# The core lies beside this file only once both are installed in a model repository.
# pyright: reportMissingImports=false

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # as the real cascade does

import triton_python_backend_utils as pb_utils

from .cascadebert_core import contract
from .cascadebert_core.answer import AnswerWriter
from .cascadebert_core.inputs import texts_from_tensors
from .cascadebert_core.job import Job
from .cascadebert_core.policy import policy_from_file
from .cascadebert_core.route import Router
from .cascadebert_core.stage import stages_of_policy
from .together import take_through


class TritonPythonModel:
    """Every request of a batch waits for the last row of the batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the policy and the tokenizers."""
        folder = Path(__file__).resolve().parent
        self._policy = policy_from_file(folder / contract.POLICY_FILE)
        self._route = Router(self._policy).default
        self._answers = AnswerWriter(self._policy)
        self._stages = stages_of_policy(self._policy, folder, self._logits, calls_in_flight=1)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Take the rows of all requests through the stages, then answer all requests."""
        jobs = [self._job(request) for request in requests]
        rows = [row for job in jobs for row in job.rows()]
        take_through(self._stages, self._route.thresholds, rows)
        return [
            self._response(job, request.requested_output_names())
            for job, request in zip(jobs, requests, strict=True)
        ]

    def _job(self, request: Any) -> Job:
        text = pb_utils.get_input_tensor_by_name(request, contract.TEXT)
        pair = pb_utils.get_input_tensor_by_name(request, contract.TEXT_PAIR)
        texts = texts_from_tensors(
            text.as_numpy(), None if pair is None else pair.as_numpy(), self._policy.pair
        )
        return Job(texts, self._route, len(self._policy.labels))

    def _logits(self, stage: int, batch: Any) -> Any:
        settings = self._policy.stages[stage]
        response = pb_utils.InferenceRequest(
            model_name=settings.model,
            model_version=settings.version,
            requested_output_names=[contract.LOGITS],
            inputs=[pb_utils.Tensor(name, batch.tensors[name]) for name in settings.inputs],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        ).exec()
        if response.has_error():
            raise RuntimeError(response.error().message())
        return pb_utils.get_output_tensor_by_name(response, contract.LOGITS).as_numpy()

    def _response(self, job: Job, requested: list[str]) -> Any:
        outputs = self._answers.outputs_from_job(job, requested)
        return pb_utils.InferenceResponse(
            output_tensors=[pb_utils.Tensor(name, array) for name, array in outputs.items()]
        )
