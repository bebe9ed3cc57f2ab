"""What a cascade would gain on some rows: curve, guarantees, gain at equal accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_client.verdicts import Verdict
from cascadebert_core.guarantee import ACCURACY_DROP, DISAGREEMENT
from cascadebert_core.policy import Policy

from ..config.goals import Goal
from ..config.rows import Rows
from ..config.schema import CascadeConfig
from ..errors import UsageError
from ..evaluation.costs import Cost, RowCosts
from ..evaluation.intervals import difference_interval
from ..evaluation.metrics import Interval
from ..evaluation.verdicts import MemberFacts, verdicts_of
from ..report.curves import CascadeCurve, cascade_curve
from ..tuning.assessment import facts_of_members
from ..tuning.feasible_goals import feasible_goals
from ..tuning.guarantee import Predictions
from ..tuning.operating_point import OperatingPoint
from ..tuning.policy import predictions_of_stages, tune_policy, with_fitted_temperatures
from ..tuning.row_split import RowSplit
from .money import Demand, Month, month_of
from .verdict import WORTH, AdviceVerdict, Gains, advice_of

_CURVE_POINTS = 24  # in JSON and in the terminal


@dataclass(frozen=True, slots=True)
class EqualAccuracy:
    """The fastest thresholds at which the cascade is no less accurate than the last member.

    Attributes:
        threshold: Of every stage that may defer.
        accuracy: Of the cascade on the rows.
        behind: The last member's accuracy minus the cascade's, with its 95% interval. The threshold
            was chosen on the same rows, so the true difference is rather above its middle.
        exits: The share of the rows that each stage answers.
        cost: Of a row.
    """

    threshold: float
    accuracy: float
    behind: Interval
    exits: tuple[float, ...]
    cost: Cost


@dataclass(frozen=True, slots=True)
class PromisedPoint:
    """An operating point that the rows could carry.

    Attributes:
        name: Of the operating point.
        goal: What it is for.
        point: Thresholds, certificate, exits and cost.
    """

    name: str
    goal: Goal
    point: OperatingPoint


@dataclass(frozen=True, slots=True)
class Advice:
    """Whether a cascade pays, and what that is from.

    Attributes:
        rows: Number of rows.
        cost_of: What the times are of.
        members: Each member alone.
        curve: The cascade over thresholds. Its accuracy is agreement with the last member if the
            rows have no labels.
        labelled: Whether the rows have labels.
        equal: None without labels.
        points: The operating points that the rows could carry.
        left_out: Built-in goals that so few rows cannot show, with the rows that each needs.
        months: What a month takes, by way of answering; empty without a demand.
        verdict: Whether it pays.
        warnings: What is wrong with members besides, or does not pay.
    """

    rows: int
    cost_of: str
    members: tuple[MemberFacts, ...]
    curve: CascadeCurve
    labelled: bool
    equal: EqualAccuracy | None
    points: tuple[PromisedPoint, ...]
    left_out: dict[str, int]
    months: dict[str, Month]
    verdict: AdviceVerdict
    warnings: tuple[Verdict, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        some = _evenly(len(self.curve.threshold), _CURVE_POINTS)
        curve = self.curve
        return {
            "verdict": asdict(self.verdict),
            "warnings": [warning.to_json() for warning in self.warnings],
            "rows": self.rows,
            "labelled": self.labelled,
            "cost_of": self.cost_of,
            "members": [asdict(member) for member in self.members],
            "equal_accuracy": None
            if self.equal is None
            else {**asdict(self.equal), "speedup": asdict(self.equal.cost.speedup)},
            "operating_points": {
                each.name: {
                    "goal": str(each.goal),
                    "thresholds": each.point.thresholds,
                    "exits": each.point.exits,
                    "cost": asdict(each.point.cost),
                    "speedup": asdict(each.point.cost.speedup),
                    "certificate": each.point.certificate,
                }
                for each in self.points
            },
            "left_out": self.left_out,
            "months": {way: asdict(month) for way, month in self.months.items()},
            "curve": [
                {
                    "threshold": float(curve.threshold[i]),
                    "deferral": float(curve.deferral[i]),
                    "share_of_time": float(curve.cost[i]),
                    "accuracy" if self.labelled else "agreement": float(curve.accuracy[i]),
                }
                for i in some
            ],
        }


def advise(
    config: CascadeConfig,
    policy: Policy,
    rows: Rows,
    logits: Sequence[NDArray[np.float32]],
    costs: RowCosts,
    *,
    split: RowSplit,
    cost_of: str,
    demand: Demand | None = None,
    not_run: int = 0,
) -> Advice:
    """Find out whether a cascade pays.

    Args:
        config: The cascade's settings, with its goals, and two members or more.
        policy: Of the members, without thresholds.
        rows: The n rows.
        logits: Of every member, each of shape (n, n_labels) in the checkpoint's order.
        costs: Of the same rows.
        split: The purpose of each row, as a build would split them.
        cost_of: What the times are of.
        demand: For what a month takes.
        not_run: Number of other rows that the time was not enough for.
    """
    fitted = with_fitted_temperatures(policy, rows, logits, split.temperature)
    predictions = predictions_of_stages(fitted, logits, rows)
    names = [member.name for member in config.members]
    members = facts_of_members(names, fitted, predictions, costs)
    curve = _curve(predictions, costs)
    equal = None if predictions.truth is None else _equal(predictions, costs, curve)
    points: tuple[PromisedPoint, ...] = ()
    left_out: dict[str, int] = {}
    why_none = ""
    try:
        feasible = feasible_goals(config, rows, split, len(policy.labels))
        left_out = dict(feasible.left_out)
        tuned = tune_policy(
            policy, logits, rows, split=split, costs=costs, goals=feasible.goals,
            default=feasible.default, per_label=config.tune.per_label,
        )  # fmt: skip
        points = tuple(
            PromisedPoint(name, feasible.goals[name], point) for name, point in tuned.points.items()
        )
    except UsageError as exc:
        why_none = str(exc)
        if not_run:
            why_none = (
                f"The time was enough for {len(predictions)} of {len(predictions) + not_run} rows: "
                "give more --seconds"
            )
    verdict = advice_of(members, _gains(equal, points, why_none))
    return Advice(
        rows=len(predictions),
        cost_of=cost_of,
        members=members,
        curve=curve,
        labelled=predictions.truth is not None,
        equal=equal,
        points=points,
        left_out=left_out,
        months={} if demand is None else _months(demand, members, equal, points),
        verdict=verdict,
        warnings=tuple(w for w in verdicts_of(members, ()) if str(w) not in verdict.text),
    )


def _curve(predictions: Predictions, costs: RowCosts) -> CascadeCurve:
    """Accuracy, or agreement with the last member, over thresholds."""
    truth = predictions.labels[:, -1] if predictions.truth is None else predictions.truth
    # The last member always answers, unless its logits are not finite.
    answers = predictions.labels[:, -1:] != -1
    last = np.where(answers, np.float32(1), np.float32(np.nan))
    confidences = np.concatenate([predictions.confidence, last], axis=1)
    return cascade_curve(
        confidences, predictions.labels == truth[:, None], costs.ms / costs.ms[:, -1].mean()
    )


def _equal(predictions: Predictions, costs: RowCosts, curve: CascadeCurve) -> EqualAccuracy:
    assert predictions.truth is not None
    n = len(predictions)
    wanted = float((predictions.labels[:, -1] == predictions.truth).mean())
    kept = np.flatnonzero(curve.accuracy >= wanted - 1e-12)
    # All rows deferred is always as accurate: the last threshold of the curve.
    best = int(kept[np.argmin(curve.cost[kept])]) if len(kept) else len(curve.threshold) - 1
    threshold = float(curve.threshold[best])
    n_gates = predictions.confidence.shape[1]
    exits = predictions.exits(np.full(n_gates, threshold, dtype=np.float32))
    lost = predictions.losses(ACCURACY_DROP)[np.arange(n), exits]
    right = predictions.labels[np.arange(n), exits] == predictions.truth
    return EqualAccuracy(
        threshold=max(0.0, threshold),
        accuracy=float(right.mean()),
        behind=difference_interval(int((lost > 0).sum()), int((lost < 0).sum()), n),
        exits=tuple(float((exits == stage).mean()) for stage in range(n_gates + 1)),
        cost=costs.of_exits(exits),
    )


def _gains(equal: EqualAccuracy | None, points: Sequence[PromisedPoint], why_none: str) -> Gains:
    speed = None if equal is None else equal.cost.speedup.value
    if not points:
        return Gains(speed, None, why_none=why_none)
    # The strictest goal is the slowest; a user wants the strictest that is worth it.
    by_speed = sorted(points, key=lambda each: each.point.cost.speedup.value)
    worth = [each for each in by_speed if each.point.cost.speedup.value >= WORTH]
    chosen = worth[0] if worth else by_speed[-1]
    return Gains(speed, chosen.point.cost.speedup.value, goal_in_words(chosen.goal))


def goal_in_words(goal: Goal) -> str:
    """What a goal promises, as the end of a sentence with "that"."""
    guarantee = goal.guarantee
    if guarantee is None:
        return f"{goal} (a budget, which guarantees nothing about the answers)"
    sure = f"with {100 * guarantee.confidence:.4g}% confidence"
    if guarantee.kind == DISAGREEMENT:
        return f"at most {100 * guarantee.limit:.3g}% of the answers differ, {sure}"
    return f"accuracy falls by at most {100 * guarantee.limit:.3g} points, {sure}"


def _months(
    demand: Demand,
    members: Sequence[MemberFacts],
    equal: EqualAccuracy | None,
    points: Sequence[PromisedPoint],
) -> dict[str, Month]:
    ways = {f"{member.name} alone": member.cost.ms.value for member in members}
    if equal is not None:
        ways["cascade at equal accuracy"] = equal.cost.ms.value
    ways |= {f"cascade, {each.name}": each.point.cost.ms.value for each in points}
    return {way: month_of(demand, ms) for way, ms in ways.items()}


def _evenly(n: int, most: int) -> list[int]:
    return sorted({int(i) for i in np.linspace(0, n - 1, min(n, most))})
