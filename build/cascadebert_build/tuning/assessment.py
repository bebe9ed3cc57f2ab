"""A cascade on some rows: what its operating points cost and keep, and what does not pay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from cascadebert_client.verdicts import Verdict
from cascadebert_core.guarantee import ACCURACY_DROP, DISAGREEMENT, Guarantee
from cascadebert_core.policy import Policy, Threshold
from cascadebert_core.published_points import GUARANTEE
from cascadebert_core.task import SINGLE_LABEL

from ..evaluation.costs import Cost, RowCosts
from ..evaluation.exchanged_labels import find_exchanged_labels
from ..evaluation.intervals import difference_interval, share_interval
from ..evaluation.metrics import Interval
from ..evaluation.promises import Promise, promise_on_rows
from ..evaluation.verdicts import MemberFacts, PointFacts, verdicts_of
from .guarantee import Predictions
from .temperature import HIGHEST


@dataclass(frozen=True, slots=True)
class AssessedPoint:
    """An operating point on some rows.

    Attributes:
        name: The operating point.
        exits: The share of the rows that each stage answers.
        cost: Of a row.
        disagreement: Share of rows with another answer than the last member's; exact 95% interval.
        promise: Its guarantee on these rows; None if it guarantees nothing, or needs labels.
    """

    name: str
    exits: tuple[float, ...]
    cost: Cost
    disagreement: Interval
    promise: Promise | None


@dataclass(frozen=True, slots=True)
class Assessment:
    """A cascade of two or more members on some rows.

    Attributes:
        cost_of: What the times are of, and where they are from.
        members: Each member alone.
        points: The operating points.
        verdicts: What does not pay.
        of_tuning_rows: Whether some of the rows chose the thresholds. Then guarantees look better
            kept than they are.
    """

    cost_of: str
    members: tuple[MemberFacts, ...]
    points: tuple[AssessedPoint, ...]
    verdicts: tuple[Verdict, ...]
    of_tuning_rows: bool = False

    def to_json(self) -> dict[str, Any]:
        """For programs: costs by member, operating points by name, verdicts."""
        return {
            "cost_of": self.cost_of,
            "cost": {member.name: asdict(member.cost) for member in self.members},
            "operating_points": {
                point.name: {
                    "exits": point.exits,
                    "cost": asdict(point.cost),
                    "speedup": asdict(point.cost.speedup),
                    "disagreement": asdict(point.disagreement),
                    "promise": None if point.promise is None else asdict(point.promise),
                }
                for point in self.points
            },
            "of_tuning_rows": self.of_tuning_rows,
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
        }

    def __str__(self) -> str:
        lines = [f"cost of a row by measured time ({self.cost_of})", self._costs()]
        promised = [point for point in self.points if point.promise is not None]
        if promised:
            chose = ", some of which chose the thresholds" if self.of_tuning_rows else ""
            lines += ["", f"guarantees on these rows{chose}"]
            width = max(len(point.name) for point in promised) + 2
            lines += [f"{point.name:{width}}{point.promise}" for point in promised]
        if self.verdicts:
            lines += ["", *(f"WARNING: {verdict}" for verdict in self.verdicts)]
        return "\n".join(lines)

    def _costs(self) -> str:
        rows = [(f"{member.name} alone", "", *_cells(member.cost)) for member in self.members]
        rows += [
            (point.name, f"{1 - point.exits[0]:.1%}", *_cells(point.cost)) for point in self.points
        ]
        return tabulate(
            rows,
            headers=("", "deferred", "ms", "share of time", "of computations"),
            colalign=("left", "right", "right", "right", "right"),
            tablefmt="plain",
            disable_numparse=True,
        )


def assess(
    policy: Policy,
    predictions: Predictions,
    costs: RowCosts,
    *,
    names: Sequence[str],
    cost_of: str,
    given: tuple[Threshold, ...] | None = None,
    of_tuning_rows: bool = False,
) -> Assessment:
    """Assess every operating point of a policy.

    Args:
        policy: The cascade, with the certificate of its operating points.
        predictions: Of all stages for n rows.
        costs: Of the same rows.
        names: The members.
        cost_of: What the times are of.
        given: Thresholds that are not an operating point, assessed last.
        of_tuning_rows: Whether some of the rows chose the thresholds.
    """
    thresholds: dict[str, tuple[Threshold, ...]] = dict(policy.operating_points)
    if given is not None:
        thresholds["given thresholds"] = given
    points = tuple(
        _point(name, limits, policy.certificate_of(name), predictions, costs)
        for name, limits in thresholds.items()
    )
    members = facts_of_members(names, policy, predictions, costs)
    facts = [PointFacts(point.name, point.exits, point.cost) for point in points]
    return Assessment(cost_of, members, points, verdicts_of(members, facts), of_tuning_rows)


def facts_of_members(
    names: Sequence[str], policy: Policy, predictions: Predictions, costs: RowCosts
) -> tuple[MemberFacts, ...]:
    """Cost and accuracy of each member alone on n rows.

    Args:
        names: The members, small to large.
        policy: With the labels, and the temperatures that were fitted.
        predictions: Of all stages for n rows.
        costs: Of the same rows.
    """
    truth = predictions.truth
    limits = [s.temperature if s.temperature >= HIGHEST else None for s in policy.stages]
    if truth is None:
        return tuple(
            MemberFacts(name, costs.alone(i), temperature_limit=limits[i])
            for i, name in enumerate(names)
        )
    n = len(predictions)
    # Exchanged labels of sets are not looked for.
    labels = policy.labels if policy.task == SINGLE_LABEL else ()
    right = predictions.labels == truth[:, None]
    behind = predictions.losses(ACCURACY_DROP)
    return tuple(
        MemberFacts(
            name,
            costs.alone(i),
            float(right[:, i].mean()),
            difference_interval(int((behind[:, i] > 0).sum()), int((behind[:, i] < 0).sum()), n),
            n,
            find_exchanged_labels(predictions.labels[:, i], truth, labels) if labels else None,
            limits[i],
        )
        for i, name in enumerate(names)
    )


def verdicts_of_one(name: str, policy: Policy, predictions: Predictions) -> tuple[Verdict, ...]:
    """What is wrong with the member of a cascade of one, which costs what it costs.

    Args:
        name: The member.
        policy: With the labels, and the temperature that was fitted.
        predictions: Of the one stage for n rows.
    """
    costs = RowCosts(np.ones((len(predictions), 1)))
    return verdicts_of(facts_of_members([name], policy, predictions, costs), [])


def _point(
    name: str,
    thresholds: Sequence[Threshold],
    certificate: Mapping[str, Any],
    predictions: Predictions,
    costs: RowCosts,
) -> AssessedPoint:
    limits = [list(t) if isinstance(t, tuple) else t for t in thresholds]
    exits = predictions.exits(np.array(limits, dtype=np.float32))
    rows = np.arange(len(predictions))

    def losses(kind: str) -> NDArray[np.int8]:
        return predictions.losses(kind)[rows, exits]

    promise = None
    if certificate.get(GUARANTEE) is not None:
        guarantee = Guarantee(**certificate[GUARANTEE])
        if guarantee.kind == DISAGREEMENT or predictions.truth is not None:
            promise = promise_on_rows(guarantee, losses(guarantee.kind))
    return AssessedPoint(
        name=name,
        exits=tuple(float((exits == s).mean()) for s in range(predictions.labels.shape[1])),
        cost=costs.of_exits(exits),
        disagreement=share_interval(int(losses(DISAGREEMENT).sum()), len(predictions)),
        promise=promise,
    )


def _cells(cost: Cost) -> tuple[str, str, str]:
    """Milliseconds and share of the time with their spread, and share of the computations."""

    def text(interval: Interval, spec: str) -> str:
        value, low, high = (f"{v:{spec}}" for v in (interval.value, interval.low, interval.high))
        return value if low == high else f"{value} [{low}, {high}]"

    computations = "–" if cost.computations is None else f"{cost.computations:.2f}"
    return text(cost.ms, ".3g"), text(cost.share, ".2f"), computations
