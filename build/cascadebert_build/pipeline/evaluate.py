"""The cascade offline: the tuned policy over held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.policy import Policy, Threshold, check_threshold

from ..config.rows import Rows, rows_from_source
from ..config.truncation import Truncation
from ..errors import UsageError
from ..evaluation.costs import RowCosts
from ..evaluation.evaluate import Evaluation, evaluate
from ..evaluation.simulate import Outcome
from ..progress import say, showing
from ..tuning.assessment import Assessment, assess, verdicts_of_one
from ..tuning.policy import predictions_of_stages
from .build import CascadeBuild
from .preflight import check_labels
from .quick import quick_verdicts_of
from .tuned import is_tuned_on


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An offline evaluation with everything that it is made from.

    Attributes:
        evaluation: The figures.
        outcome: The answer for every row.
        policy: The policy that answered.
        rows: The n rows.
        logits: Logits of every stage, each of shape (n, n_labels), in the checkpoint's order.
        truncations: How many of the rows each member cuts, small to large.
        costs: What each row costs in each stage; None for a cascade of one member.
        assessment: What each operating point costs and keeps, and what does not pay; None for a
            cascade of one member.
    """

    evaluation: Evaluation
    outcome: Outcome
    policy: Policy
    rows: Rows
    logits: Sequence[NDArray[np.float32]]
    truncations: tuple[Truncation, ...]
    costs: RowCosts | None
    assessment: Assessment | None


def evaluate_build(
    build: CascadeBuild,
    *,
    data: str | None = None,
    data_format: str | None = None,
    all_rows: bool = False,
    operating_point: str | None = None,
    threshold: float | Sequence[float] | None = None,
) -> Evaluated:
    """Run the tuned policy over rows.

    Args:
        build: A build that is tuned.
        data: Rows in the place of the held-out rows, with the same columns.
        data_format: Of the file `data`; None: what its ending tells, else that of [data].
        all_rows: Whether held-out rows count that chose temperatures or thresholds.
        operating_point: An operating point in the place of the default one.
        threshold: A threshold for every stage that may defer, or one for each.

    Raises:
        UsageError: Nothing is tuned, or an argument is wrong.
    """
    policy = build.policy()
    thresholds = _thresholds(policy, operating_point, threshold)
    if data is not None:
        rows = rows_from_source(build.config.data_source(data, data_format))
        build = CascadeBuild(build.config, build.workspace, force=build.context.force, rows=rows)
    rows, chosen = build.rows, None
    check_labels(rows, policy)
    costs = build.row_costs(policy)
    logits = [build.logits(member) for member in build.config.members]
    tuned_here = is_tuned_on(build.context, policy)
    if data is None and not tuned_here:
        say(
            "WARNING", "report",
            "the held-out rows, or how they are divided, have changed since the thresholds were "
            "chosen, so some of them may have chosen them: run `cascadebert tune` again, or give "
            "other rows with --data",
        )  # fmt: skip
    elif data is None and not all_rows:
        report = build.report_rows(policy)
        say(
            "rows", "report",
            f"{len(report)} of {len(rows.texts)} held-out rows, which chose nothing; "
            "--all-rows takes all, --data others",
        )  # fmt: skip
        if not len(report):
            raise UsageError(
                f"none of the {len(rows.texts)} held-out rows is left to report on: give "
                "--all-rows, or other rows with --data"
            )
        logits = [values[report] for values in logits]
        rows, chosen = rows.subset(report.tolist()), report
        costs = None if costs is None else costs.take(report)
    assessment = None
    if costs is not None:
        assessment = assess(
            policy,
            predictions_of_stages(policy, logits, rows),
            costs,
            names=[member.name for member in build.config.members],
            cost_of=str((policy.certificate or {}).get("cost_of")),
            given=thresholds if threshold is not None else None,
            of_tuning_rows=chosen is None and (data is None or tuned_here),
        )
    quick = quick_verdicts_of(policy.certificate)
    if assessment is not None:
        assessment = replace(assessment, verdicts=(*quick, *assessment.verdicts))
    else:
        predictions = predictions_of_stages(policy, logits, rows)
        found = verdicts_of_one(build.config.members[0].name, policy, predictions)
        for verdict in (*quick, *found):
            say("WARNING", verdict.subject, str(verdict))
    truncations = tuple(
        build.truncation(build.exported(member), chosen) for member in build.config.members
    )
    with showing("evaluate", build.config.name):
        figures, outcome = evaluate(policy, rows, logits, thresholds)
    return Evaluated(figures, outcome, policy, rows, logits, truncations, costs, assessment)


def _thresholds(
    policy: Policy, operating_point: str | None, threshold: float | Sequence[float] | None
) -> tuple[Threshold, ...] | None:
    if threshold is not None:
        n = len(policy.thresholds)
        given = tuple(threshold) if isinstance(threshold, Sequence) else (threshold,) * n
        for value in given:
            check_threshold(value, "--threshold")
        if len(given) != n:
            raise UsageError(
                f"--threshold has {len(given)} numbers: give one, or one for each of the {n} "
                "stages that may defer"
            )
        return given
    if operating_point is None:
        return None
    if operating_point not in policy.operating_points:
        raise UsageError(
            f"--operating-point {operating_point!r}: the policy has "
            f"{', '.join(policy.operating_points)}"
        )
    return policy.operating_points[operating_point]
