"""The model of `scaling`, asked about machines that are larger than this one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cascadebert_build.config.placement import instances_of_cascade

from .cells import CASCADE, Measured
from .repository import StageTimes
from .scaling import cost_of_measured, instances_needed, predict

CORES = (2, 4, 8, 16)


def predicted_rows(
    measured: Sequence[Measured], times: StageTimes, *, gpu: bool
) -> Iterator[dict[str, object]]:
    """Yield a row for each number of cores: with one instance, as many as needed, and the default.

    The CPU of a request is that of the cascade with one row a request under the most clients, with
    the fewest instances that were measured. Nothing is yielded if that was not measured.

    Args:
        measured: All figures of one kind of stages.
        times: What a call of a stage takes.
        gpu: Whether the stages are like a GPU's.
    """
    found = [m for m in measured if m.contender == CASCADE and m.cell.rows == 1]
    if not found:
        return
    under_load = max(found, key=lambda m: (m.cell.clients, -(m.instances or 1)))
    cost = cost_of_measured(under_load, times)
    for cores in CORES:
        needed = instances_needed(cost, cores)
        default = instances_of_cascade(cores, gpu=gpu)
        for name, instances in (("one", 1), ("needed", needed), ("default", default)):
            prediction = predict(cost, cores, instances)
            yield {
                "cores": cores,
                "instances": instances,
                "which": name,
                "requests/s": prediction.requests_s,
                "limit": prediction.limit,
            }
