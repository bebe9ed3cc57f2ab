"""Triton's hooks of the cascade: gather, stage, gate, answer or defer.

Everything that decides lies in cascadebert_core; this file only speaks Triton.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The server runs as many instances as it needs; threads inside a tokenizer would compete with
# the stages for the same cores. Whoever sets the variable knows better.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports] - Triton's own

from .cascadebert_core import contract
from .cascadebert_core.answer import AnswerWriter
from .cascadebert_core.cascade import Cascade
from .cascadebert_core.errors import DeadlineExceeded, InvalidArgument, PolicyError, Unavailable
from .cascadebert_core.inputs import texts_from_tensors
from .cascadebert_core.job import Job
from .cascadebert_core.policy import policy_from_file
from .cascadebert_core.route import Router

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .cascadebert_core.batching import StageBatch
    from .cascadebert_core.policy import Policy

_MICROSECONDS = 1e-6


class TritonPythonModel:
    """The cascade as Triton sees it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the policy, the tokenizers and the threads; a clear sentence if that cannot be."""
        version_folder = Path(__file__).resolve().parent
        policy = policy_from_file(version_folder / contract.POLICY_FILE)
        _require_stages(version_folder.parent, args["model_name"], [s.model for s in policy.stages])
        parameters = json.loads(args["model_config"]).get("parameters", {})
        self._n_labels = len(policy.labels)
        self._takes_pairs = policy.pair
        self._router = Router(policy)
        self._answers = AnswerWriter(policy)
        self._counters = _Counters(args["model_name"], policy)
        self._cascade = Cascade(
            policy,
            version_folder,
            self._run_stage,
            observer=self._counters,
            calls_in_flight=int(parameters.get("calls_in_flight", {}).get("string_value", "1")),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests whose rows are all sure; the others are answered later."""
        jobs = [self._job(request) for request in requests]
        request_of = {id(job): request for job, request in zip(jobs, requests, strict=True)}
        self._cascade.begin(jobs, lambda job: self._later(request_of[id(job)]))
        return [
            # A job with a callback answers through its sender, and Triton must not hear of it here.
            None if job.on_end else self._response(job, request.requested_output_names())
            for job, request in zip(jobs, requests, strict=True)
        ]

    def finalize(self) -> None:
        """Answer what is in flight and stop the threads."""
        self._cascade.close()
        self._counters.end_audits()

    def _job(self, request: Any) -> Job:
        """The request as a job of its own memory; a request in error as a job that has ended."""
        try:
            texts = texts_from_tensors(
                _array(request, contract.TEXT),
                _array(request, contract.TEXT_PAIR),
                self._takes_pairs,
            )
            parameters = request.parameters()
            route = self._router.route_from_parameters(json.loads(parameters) if parameters else {})
        except Exception as exc:  # noqa: BLE001 - one request must not fail the others of its batch
            refused = Job([""], self._router.default, self._n_labels)
            refused.fail(exc)
            return refused
        timeout_us = request.timeout()
        deadline_s = time.monotonic() + timeout_us * _MICROSECONDS if timeout_us else None
        return Job(texts, route, self._n_labels, deadline_s)

    def _later(self, request: Any) -> Callable[[Job], None]:
        """A callback that answers the request once `execute` is over."""
        sender = request.get_response_sender()
        requested = request.requested_output_names()

        def send(job: Job) -> None:
            sender.send(
                self._response(job, requested),
                flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
            )

        return send

    def _response(self, job: Job, requested: list[str]) -> Any:
        """The answer, or the error; whatever goes wrong in making the one becomes the other."""
        error = job.error
        if error is None:
            try:
                outputs = self._answers.outputs_from_job(job, requested)
                return pb_utils.InferenceResponse(
                    output_tensors=[pb_utils.Tensor(name, array) for name, array in outputs.items()]
                )
            except Exception as exc:  # noqa: BLE001 - shared memory may be used up
                error = exc
        return pb_utils.InferenceResponse(output_tensors=[], error=_triton_error(error))

    def _run_stage(self, stage: int, batch: StageBatch) -> NDArray[np.float32]:
        settings = self._cascade.policy.stages[stage]
        request = pb_utils.InferenceRequest(
            model_name=settings.model,
            model_version=settings.version,
            requested_output_names=[contract.LOGITS],
            inputs=[pb_utils.Tensor(name, batch.tensors[name]) for name in settings.inputs],
            # A GPU stage would leave them where numpy cannot read them.
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        )
        try:
            response = request.exec()
        except pb_utils.TritonModelException as exc:  # the model is not loaded
            raise Unavailable(str(exc)) from exc
        if response.has_error():
            # A server that is stopping, or a stage that is, answers a BLS call with its reason and
            # the code INTERNAL; nothing here tells it from a failure that would come back.
            raise Unavailable(response.error().message())
        return pb_utils.get_output_tensor_by_name(response, contract.LOGITS).as_numpy()


class _Counters:
    """The cascade's counters on Triton's own metrics endpoint.

    One thread at a time calls a metric: two at once corrupt the memory that the python backend
    shares with its server, which then crashes (seen with 2.51, seconds into a load).
    """

    def __init__(self, model: str, policy: Policy) -> None:
        exited = _counter(
            "cascadebert_exited_rows_total", "Rows answered, by the stage that answered them"
        )
        truncated = _counter(
            "cascadebert_truncated_rows_total",
            "Rows longer than the maximum length of their first stage",
        )
        self._exited = [
            exited.Metric(labels={"model": model, "stage": str(stage)})
            for stage in range(len(policy.stages))
        ]
        self._truncated = truncated.Metric(labels={"model": model})
        # The metrics live only as long as their family.
        self._families = (exited, truncated)
        self._audit_families: list[Any] = []
        self._audits: dict[tuple[str, str], Any] = {}
        if policy.audit_rate > 0:
            self._add_audits(model, policy)
        self._lock = threading.Lock()

    def _add_audits(self, model: str, policy: Policy) -> None:
        audited = _counter(
            "cascadebert_audited_rows_total",
            "Rows drawn at random whose answer was, or was not, the last stage's",
        )
        dropped = _counter(
            "cascadebert_audit_dropped_rows_total",
            "Rows drawn at random while too many others waited for their audit",
        )
        failed = _counter(
            "cascadebert_audit_errors_total",
            "Rows drawn at random that the last stage could not be asked about",
        )
        self._audit_families += [audited, dropped, failed]
        # In a reload the old counters are taken away when the new ones are there already. Were
        # their labels the same, the new ones would go with them.
        load = os.urandom(4).hex()
        for point in policy.operating_points:
            labels = {"model": model, "policy": policy.id, "operating_point": point, "load": load}
            for result in ("agreed", "disagreed"):
                self._audits[point, result] = audited.Metric(labels={**labels, "result": result})
            self._audits[point, "dropped"] = dropped.Metric(labels=labels)
            self._audits[point, "failed"] = failed.Metric(labels=labels)

    def exited(self, stage: int, rows: int) -> None:
        with self._lock:
            self._exited[stage].increment(rows)

    def truncated(self, rows: int) -> None:
        with self._lock:
            self._truncated.increment(rows)

    def end_audits(self) -> None:
        """Take the audits' counters off the endpoint, or an old policy's would stay for ever."""
        with self._lock:
            self._audits.clear()
            self._audit_families.clear()

    def audited(self, operating_point: str, agreed: int, disagreed: int) -> None:
        with self._lock:
            self._audits[operating_point, "agreed"].increment(agreed)
            self._audits[operating_point, "disagreed"].increment(disagreed)

    def audit_dropped(self, operating_point: str, rows: int) -> None:
        with self._lock:
            self._audits[operating_point, "dropped"].increment(rows)

    def audit_failed(self, operating_point: str, rows: int) -> None:
        with self._lock:
            self._audits[operating_point, "failed"].increment(rows)


def _counter(name: str, description: str) -> Any:
    return pb_utils.MetricFamily(
        name=name, description=description, kind=pb_utils.MetricFamily.COUNTER
    )


def _array(request: Any, name: str) -> NDArray[Any] | None:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def _triton_error(error: Exception) -> Any:
    codes = pb_utils.TritonError
    if isinstance(error, InvalidArgument):
        return codes(str(error), codes.INVALID_ARG)
    # Triton has no code for a deadline; it answers its own queue timeouts with UNAVAILABLE.
    if isinstance(error, (Unavailable, DeadlineExceeded)):
        return codes(str(error), codes.UNAVAILABLE)
    return codes(str(error), codes.INTERNAL)


def _require_stages(model_folder: Path, model_name: str, stages: list[str]) -> None:
    """Refuse to load beside stages that are not there, rather than fail every request later."""
    # A repository in a bucket is copied model by model, to folders of other names.
    if model_folder.name != model_name:
        return
    missing = [stage for stage in stages if not (model_folder.parent / stage).is_dir()]
    if missing:
        raise PolicyError(
            f"{contract.POLICY_FILE} names the stage {missing[0]!r}, which is not in "
            f"{model_folder.parent}: publish the cascade again"
        )
