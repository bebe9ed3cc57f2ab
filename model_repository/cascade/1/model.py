"""The BLS model: Triton's hooks around the cascade.

cascadebert_core makes all decisions; this file translates between it and Triton.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Threads inside the tokenizer would compete with the stages for the same cores. If the user has set
# the variable, its value is kept.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports] - Triton's own

from .cascadebert_core import contract
from .cascadebert_core.answer import AnswerWriter
from .cascadebert_core.caller import Caller
from .cascadebert_core.cascade import Cascade
from .cascadebert_core.drift_state import DriftState, state_folder
from .cascadebert_core.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    PolicyError,
    Unavailable,
)
from .cascadebert_core.inline import InlineStages
from .cascadebert_core.inputs import texts_from_tensors
from .cascadebert_core.job import Job
from .cascadebert_core.metrics import Metrics
from .cascadebert_core.metrics_exporter import MetricsExporter
from .cascadebert_core.policy import policy_from_file
from .cascadebert_core.request_log import ERRORS, RequestLog, write_line
from .cascadebert_core.route import Router
from .cascadebert_core.timeline import Timeline, wants_timeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .cascadebert_core.batching import StageBatch
    from .cascadebert_core.policy import Policy

_MICROSECONDS = 1e-6
# gRPC sends an error message as a header. If it is too long, the call breaks without a message.
_LONGEST_MESSAGE = 2000


class TritonPythonModel:
    """The cascade as Triton sees it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the policy and the tokenizers, and start the threads.

        Raises:
            PolicyError: The policy, a tokenizer or a stage is missing or damaged.
        """
        version_folder = Path(__file__).resolve().parent
        model, version = args["model_name"], args["model_version"]
        policy = policy_from_file(version_folder / contract.POLICY_FILE)
        _require_stages(version_folder.parent, model, policy)
        config = json.loads(args["model_config"])
        parameters = {k: v["string_value"] for k, v in config.get("parameters", {}).items()}
        # Each instance is a process with a share of the limits.
        instances = sum(group["count"] for group in config["instance_group"])
        self._n_labels = len(policy.labels)
        self._takes_pairs = policy.pair
        self._router = Router(policy)
        self._answers = AnswerWriter(policy)
        self._log = RequestLog(
            model,
            version,
            level=parameters.get(contract.LOG_REQUESTS, ERRORS),
            with_text=parameters.get(contract.LOG_TEXT) == "true",
            write=write_line,
            instances=instances,
        )
        self._inline = InlineStages(
            policy,
            version_folder.parent.parent,
            parameters.get(contract.INLINE, contract.INLINE_NONE),
            parameters,
        )
        metrics = Metrics(policy)
        self._cascade = Cascade(
            policy,
            version_folder,
            self._run_stage,
            observer=metrics,
            calls_in_flight=int(parameters.get(contract.CALLS_IN_FLIGHT, "1")),
            first_calls=int(parameters.get(contract.FIRST_CALLS, "1")),
            max_batch_size=config["max_batch_size"],
            instances=instances,
            drift_state=DriftState(state_folder(version_folder.parent, policy.id)),
            log=self._log.event,
        )
        self._metrics_exporter = MetricsExporter(
            pb_utils.MetricFamily,
            model=model,
            version=version,
            policy=policy,
            metrics=metrics,
            queued_rows=self._cascade.queued_rows,
            check_load=self._cascade.look_around,
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests whose rows all exit at once; threads answer the others later."""
        jobs = [self._job(request) for request in requests]
        request_of = {id(job): request for job, request in zip(jobs, requests, strict=True)}
        self._cascade.begin(jobs, lambda job: self._later(job, request_of[id(job)]))
        return [
            # A job with a callback answers through its response sender, so Triton gets None here.
            None if job.on_end else self._response(job)
            for job in jobs
        ]

    def finalize(self) -> None:
        """Answer the requests in flight and stop the threads."""
        try:
            self._cascade.close()
        finally:
            self._metrics_exporter.close()

    def _job(self, request: Any) -> Job:
        """Return the request as a job that owns its texts, or a failed job if it is invalid."""
        requested = request.requested_output_names()
        try:
            texts = texts_from_tensors(
                _array(request, contract.TEXT),
                _array(request, contract.TEXT_PAIR),
                self._takes_pairs,
            )
            parameters = _parameters(request)
            route = self._router.route_from_parameters(parameters)
            explain = wants_timeline(requested, parameters)
        except Exception as exc:  # noqa: BLE001 - one request must not fail its batch
            refused = Job([""], self._router.default, self._n_labels)
            refused.request_id = _request_id(request)
            refused.listeners.append(self._log.ended)
            refused.fail(exc)
            return refused
        job = Job(texts, route, self._n_labels, request_id=_request_id(request), outputs=requested)
        job.listeners.append(self._log.ended)
        if timeout_us := request.timeout():
            job.deadline_s = job.began_s + timeout_us * _MICROSECONDS
        if contract.TRACEPARENT in parameters:
            job.traceparent = str(parameters[contract.TRACEPARENT])
        if explain:
            job.timeline = Timeline(len(texts))
        job.trace = request.trace()
        return job

    def _later(self, job: Job, request: Any) -> Callable[[Job], None]:
        """Return a callback that answers the request after `execute`."""
        caller = Caller(request.get_response_sender())
        job.cancelled = caller.has_cancelled
        # The trace ends with `execute`: 2.51 crashes if a later call joins it.
        job.trace = None

        def send(job: Job) -> None:
            caller.answer(self._response(job), pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

        return send

    def _response(self, job: Job) -> Any:
        """Return the answer or the error of a job; if the answer cannot be made, that error."""
        error = job.error
        if error is None:
            try:
                outputs = self._answers.outputs_from_job(job, job.outputs)
                return pb_utils.InferenceResponse(
                    output_tensors=[pb_utils.Tensor(name, array) for name, array in outputs.items()]
                )
            except Exception as exc:  # noqa: BLE001 - shared memory may be used up
                error = exc
        return pb_utils.InferenceResponse(output_tensors=[], error=_triton_error(error))

    def _run_stage(self, stage: int, batch: StageBatch) -> NDArray[np.float32]:
        if stage in self._inline:
            return self._inline.logits(stage, batch)
        settings = self._cascade.policy.stages[stage]
        traced = {} if batch.trace is None else {"trace": batch.trace}
        request = pb_utils.InferenceRequest(
            **traced,
            model_name=settings.model,
            model_version=settings.version,
            requested_output_names=[contract.LOGITS],
            inputs=[pb_utils.Tensor(name, batch.tensors[name]) for name in settings.inputs],
            # A GPU stage would otherwise leave the logits in memory that numpy cannot read.
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        )
        try:
            response = request.exec()
        except pb_utils.TritonModelException as exc:  # the model is not loaded
            raise Unavailable(str(exc)) from exc
        if response.has_error():
            # If the server or the stage is stopping, the error has the code INTERNAL, as a real
            # failure has. Nothing here can distinguish them, so the caller may retry.
            raise Unavailable(response.error().message())
        return pb_utils.get_output_tensor_by_name(response, contract.LOGITS).as_numpy()


def _parameters(request: Any) -> dict[str, Any]:
    try:
        text = request.parameters()
        return json.loads(text) if text else {}
    except ValueError as exc:  # the HTTP endpoint passes bytes on that are not UTF-8
        raise InvalidArgument("the request parameters are not UTF-8: encode them as UTF-8") from exc


def _request_id(request: Any) -> str:
    try:
        return request.request_id()
    except UnicodeDecodeError:  # likewise, but the request can be answered
        return ""


def _array(request: Any, name: str) -> NDArray[Any] | None:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def _triton_error(error: Exception) -> Any:
    codes = pb_utils.TritonError
    message = str(error)[:_LONGEST_MESSAGE]
    if isinstance(error, InvalidArgument):
        return codes(message, codes.INVALID_ARG)
    if isinstance(error, Cancelled):
        return codes(message, codes.CANCELLED)
    # Triton has no code for a missed deadline. It ends its own queue's timeouts with UNAVAILABLE.
    if isinstance(error, (Unavailable, DeadlineExceeded)):
        return codes(message, codes.UNAVAILABLE)
    return codes(message, codes.INTERNAL)


def _require_stages(model_folder: Path, model_name: str, policy: Policy) -> None:
    """Fail the load if a stage is missing, since every request would fail later."""
    # Triton copies models from a bucket one by one, into folders with other names.
    if model_folder.name != model_name:
        return
    for stage in policy.stages:
        folder = model_folder.parent / stage.model
        if not folder.is_dir():
            raise PolicyError(
                f"{contract.POLICY_FILE} names the stage {stage.model!r}, which is not in "
                f"{model_folder.parent}: publish the cascade again"
            )
        if not (folder / str(stage.version)).is_dir():
            raise PolicyError(
                f"{contract.POLICY_FILE} names version {stage.version} of the stage "
                f"{stage.model!r}, which is not in {folder}: publish the cascade again"
            )
