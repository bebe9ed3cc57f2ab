"""How busy the stages were during a load, and with how many rows per call, by Triton's statistics.

On a GPU this shows the time that is lost between batches. If an engine with one instance is at work
for 0.8 of the time, the device is idle for the rest, unless another stage uses it.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from cascadebert_build.errors import CheckFailed

_ASK_TIMEOUT_S = 30.0
_NS_PER_S = 1e9


@dataclass(frozen=True, slots=True)
class Work:
    """What a stage has done since it was loaded, all its versions and instances together.

    Attributes:
        calls: The calls of its backend.
        rows: The rows in these calls.
        seconds: The time within these calls, with inputs and outputs, summed over all instances.
        instances: The instances of the newest version.
    """

    calls: int
    rows: int
    seconds: float
    instances: int

    def since(self, before: Work) -> Work:
        """Return what was done after `before`."""
        return replace(
            self,
            calls=self.calls - before.calls,
            rows=self.rows - before.rows,
            seconds=self.seconds - before.seconds,
        )


@contextmanager
def work_meter(url: str, stages: Collection[str]) -> Generator[dict[str, Work], None, None]:
    """Meter a block. At its end the dictionary has an entry for each stage that did anything.

    Args:
        url: host:port of the server's gRPC endpoint.
        stages: The stage models.

    Raises:
        CheckFailed: The server does not give its statistics.
    """
    found: dict[str, Work] = {}
    before = work_of_stages(url, stages)
    yield found
    for stage, work in work_of_stages(url, stages).items():
        done = work.since(before[stage])
        if done.calls:
            found[stage] = done


def work_of_stages(url: str, stages: Collection[str]) -> dict[str, Work]:
    """Return what loaded stages have done so far.

    Raises:
        CheckFailed: The server does not give its statistics.
    """
    found: dict[str, Work] = {}
    try:
        with triton.InferenceServerClient(url) as client:
            for stage in stages:
                of: Any = client.get_inference_statistics(stage, client_timeout=_ASK_TIMEOUT_S)
                config: Any = client.get_model_config(stage, client_timeout=_ASK_TIMEOUT_S)
                found[stage] = _work(of, config)
    except InferenceServerException as exc:
        raise CheckFailed(f"the server at {url} does not give its statistics: {exc}") from exc
    return found


def work_as_row(work: Mapping[str, Work], wall_s: float) -> dict[str, dict[str, float]]:
    """Return calls, rows per call, instances and the share of time at work, by stage.

    Args:
        work: The work during a load.
        wall_s: The time from the load's first request to its last answer. Requests that are
            answered after perf_analyzer's last window are in the work but not in this time: in a
            window of 5 s up to one part in a hundred.
    """
    return {
        stage: {
            "calls": done.calls,
            "rows_per_call": done.rows / done.calls,
            "busy": done.seconds / (wall_s * done.instances),
            "instances": done.instances,
        }
        for stage, done in work.items()
    }


def _work(statistics: Any, config: Any) -> Work:
    versions = statistics.model_stats
    # A request's own times count a call once for each request that shared it. These do not.
    ns = sum(
        int(part.ns)
        for version in versions
        for batch in version.batch_stats
        for part in (batch.compute_input, batch.compute_infer, batch.compute_output)
    )
    return Work(
        calls=sum(int(version.execution_count) for version in versions),
        rows=sum(int(version.inference_count) for version in versions),
        seconds=ns / _NS_PER_S,
        instances=max(1, sum(int(group.count) for group in config.config.instance_group)),
    )
