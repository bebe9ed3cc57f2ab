"""How busy the stages were during a load, and with how many rows per call, by Triton's statistics.

On a GPU this shows the time that is lost between batches. If an engine with one instance is at work
for 0.8 of the time, the device is idle for the rest, unless another stage uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from cascadebert_build.errors import CheckFailed

_ASK_TIMEOUT_S = 30.0


class StageStatistics:
    """What some stages do within a `with` block."""

    def __init__(self, url: str, stages: Sequence[str]) -> None:
        """Name the stages.

        Args:
            url: host:port of the server's gRPC endpoint.
            stages: The stage models.
        """
        self._url = url
        self._stages = stages

    def __enter__(self) -> StageStatistics:
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self._done = {stage: work - self._before[stage] for stage, work in self._now().items()}

    def as_row(self, wall_s: float) -> dict[str, dict[str, float]]:
        """Return calls, rows per call, instances and the share of time at work, by stage.

        Stages that did nothing are left out.

        Args:
            wall_s: The time from the load's first request to its last answer. Requests that are
                answered after perf_analyzer's last window are in the work but not in this time: in
                a window of 5 s up to one part in a hundred.
        """
        return {
            stage: {
                "calls": int(calls),
                "rows_per_call": rows / calls,
                "busy": seconds / (wall_s * self._instances[stage]),
                "instances": self._instances[stage],
            }
            for stage, (calls, rows, seconds) in self._done.items()
            if calls
        }

    def _now(self) -> dict[str, NDArray[np.float64]]:
        """Return the calls of each stage since it was loaded, their rows, and the seconds in them.

        Raises:
            CheckFailed: The server does not give its statistics.
        """
        found: dict[str, NDArray[np.float64]] = {}
        self._instances: dict[str, int] = {}
        try:
            with triton.InferenceServerClient(self._url) as client:
                for stage in self._stages:
                    of: Any = client.get_inference_statistics(stage, client_timeout=_ASK_TIMEOUT_S)
                    config: Any = client.get_model_config(stage, client_timeout=_ASK_TIMEOUT_S)
                    groups = config.config.instance_group
                    self._instances[stage] = max(1, sum(group.count for group in groups))
                    found[stage] = sum(map(work_of_version, of.model_stats), np.zeros(3))
        except InferenceServerException as exc:
            raise CheckFailed(f"the server at {self._url} has no statistics: {exc}") from exc
        return found


def work_of_version(of: Any) -> NDArray[np.float64]:
    """Return calls, rows, and seconds in the calls of a version's `model_stats`, shape (3,)."""
    # A request's own times count a call once for each request that shared it. These do not.
    ns = sum(
        part.ns
        for batch in of.batch_stats
        for part in (batch.compute_input, batch.compute_infer, batch.compute_output)
    )
    return np.array([of.execution_count, of.inference_count, 1e-9 * ns])
