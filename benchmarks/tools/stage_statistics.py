"""What stages did during a load, by Triton's own statistics: how busy, and how many rows a call.

On a GPU this says how much of its time is lost between batches: an engine that is at work for 0.8
of the time of its one instance leaves the device idle for the rest, unless another stage has it.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from cascadebert_build.errors import CheckFailed

_ASK_TIMEOUT_S = 30.0
_NS_PER_S = 1e9


@dataclass(frozen=True, slots=True)
class Work:
    """What a stage has done since it was loaded, all its versions and instances together.

    Attributes:
        calls: of the model that its backend was asked for.
        rows: in them.
        seconds: within these calls, inputs and outputs included, those of all instances added up.
        instances: of the newest version.
    """

    calls: int
    rows: int
    seconds: float
    instances: int

    def since(self, before: Work) -> Work:
        """What was done after `before`."""
        return Work(
            self.calls - before.calls,
            self.rows - before.rows,
            self.seconds - before.seconds,
            self.instances,
        )

    def busy(self, wall_s: float) -> float:
        """Share of the time of all instances that they were at work, over `wall_s` seconds."""
        return self.seconds / (wall_s * self.instances)


@contextmanager
def work_meter(url: str, stages: Collection[str]) -> Generator[dict[str, Work], None, None]:
    """Meter a block: at its end the dictionary has an entry for each stage that did anything.

    Args:
        url: host:port of the server's gRPC endpoint.
        stages: models.

    Raises:
        CheckFailed: the server does not say.
    """
    found: dict[str, Work] = {}
    before = work_of_stages(url, stages)
    yield found
    for stage, work in work_of_stages(url, stages).items():
        done = work.since(before[stage])
        if done.calls:
            found[stage] = done


def work_of_stages(url: str, stages: Collection[str]) -> dict[str, Work]:
    """What loaded stages have done so far.

    Raises:
        CheckFailed: the server does not say.
    """
    try:
        with triton.InferenceServerClient(url) as client:
            return {
                stage: _work(
                    cast(
                        Any, client.get_inference_statistics(stage, client_timeout=_ASK_TIMEOUT_S)
                    ),
                    cast(Any, client.get_model_config(stage, client_timeout=_ASK_TIMEOUT_S)),
                )
                for stage in stages
            }
    except InferenceServerException as exc:
        raise CheckFailed(f"the server at {url} does not tell its statistics: {exc}") from exc


def work_as_row(work: Mapping[str, Work], wall_s: float) -> dict[str, dict[str, float]]:
    """By stage: calls, rows a call, and the share of the time that its instances were at work.

    Args:
        work: during a load.
        wall_s: from its first request to its last answer. What perf_analyzer does not export, being
            answered after its last window, is in the work and not in the time: of a window of 5 s
            up to one part in a hundred.
    """
    return {
        stage: {
            "calls": done.calls,
            "rows_per_call": done.rows / done.calls,
            "busy": done.busy(wall_s),
            "instances": done.instances,
        }
        for stage, done in work.items()
    }


def _work(statistics: Any, config: Any) -> Work:
    calls = rows = ns = 0
    for version in statistics.model_stats:
        calls += int(version.execution_count)
        rows += int(version.inference_count)
        # A request's own times count a call once for each request that shared it; these do not.
        for batch in version.batch_stats:
            ns += sum(
                int(part.ns)
                for part in (batch.compute_input, batch.compute_infer, batch.compute_output)
            )
    instances = sum(int(group.count) for group in config.config.instance_group)
    return Work(calls, rows, ns / _NS_PER_S, max(1, instances))
