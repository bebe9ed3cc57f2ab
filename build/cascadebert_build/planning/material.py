"""What a built cascade gives to the plan: times, lengths, deferral and accuracy of its points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cascadebert_core.contract import INLINE_FIRST, INLINE_NONE
from cascadebert_core.policy import Policy

from ..config.placement import cores, placement_of_stage
from ..errors import UsageError
from ..evaluation.simulate import simulate
from ..pipeline.build import CascadeBuild
from ..tuning.policy import predictions_of_stages
from ..tuning.stage_cost import stage_times_from_json
from .call_times import MeasuredTimes
from .plan import ALONE, Way
from .workload import Workload


@dataclass(frozen=True, slots=True)
class Material:
    """A built cascade.

    Attributes:
        names: Of its members.
        policy: As it was tuned.
        times: Of each stage's calls, in core-seconds of the machine that `tune` measured on.
        workload: Of its held-out rows.
        ways: Its operating points, and its last member alone.
        cores: Of the machine that `tune` measured on, if it is this one.
        niceness: Of all stages but the first.
        inline: The first stages that run in the cascade's process on a CPU.
    """

    names: tuple[str, ...]
    policy: Policy
    times: tuple[MeasuredTimes, ...]
    workload: Workload
    ways: tuple[Way, ...]
    cores: int
    niceness: int
    inline: int


def material_of_build(build: CascadeBuild, rows_per_request: int) -> Material:
    """Read what a build has measured; nothing is run but what is missing.

    Raises:
        UsageError: Nothing is tuned, the policy has no times, or texts are read in windows.
    """
    policy, members = build.policy(), build.config.members
    of_stages: Mapping[str, Any] | None = (policy.certificate or {}).get("cost")
    if of_stages is None:
        raise UsageError(
            f"{build.config.name} has no measured times of its stages: a plan needs two members or "
            "more, and `cascadebert tune`"
        )
    if any(member.windows is not None for member in members):
        raise UsageError(
            "long texts are read in windows (long_texts), which a plan does not know yet: plan "
            "with long_texts = 'truncate'"
        )
    # The times are those of calls with as many threads as an instance has here.
    threads = build.config.runtime.threads or placement_of_stage(cores(), len(members)).threads
    measured = [stage_times_from_json(of_stages[member.name]) for member in members]
    times = tuple(MeasuredTimes(each.ms, float(threads), each.spread) for each in measured)
    logits = [build.logits(member) for member in members]
    outcomes = {
        name: simulate(policy, logits, thresholds)
        for name, thresholds in policy.operating_points.items()
    }
    last = len(members) - 1
    exits = {
        name: np.where(outcome.exit_stage < 0, last, outcome.exit_stage).astype(np.int64)
        for name, outcome in outcomes.items()
    }
    predictions = predictions_of_stages(policy, logits, build.rows)
    alone = predictions.labels[:, -1]
    truth = predictions.truth
    ways = [
        Way(
            f"cascade, {name}", name,
            None if truth is None else float((outcomes[name].labels == truth).mean()),
            float((outcomes[name].labels == alone).mean()),
            float((exits[name] > 0).mean()),
        )
        for name in policy.operating_points
    ]  # fmt: skip
    accuracy = None if truth is None else float((alone == truth).mean())
    ways.append(Way(f"{members[-1].name} {ALONE}", "", accuracy, 1.0, 0.0))
    runtime = build.config.runtime
    inline = {INLINE_NONE: int(runtime.auto_inline), INLINE_FIRST: 1}.get(
        runtime.inline, len(members)
    )
    return Material(
        tuple(member.name for member in members),
        policy,
        times,
        Workload(build.padded_lengths(), exits, rows_per_request),
        tuple(ways),
        cores(),
        build.config.runtime.niceness,
        inline,
    )
