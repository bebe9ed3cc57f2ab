"""Which goals a number of rows can show, before anything is run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cascadebert_core.guarantee import ACCURACY_DROP, DISAGREEMENT, Guarantee

from ..config.goals import Goal
from ..config.rows import Rows
from ..config.schema import CascadeConfig
from ..errors import UsageError
from .guarantee import needs_labels, rows_needed
from .operating_point import check_axes, is_scanned
from .row_split import RowSplit


@dataclass(frozen=True, slots=True)
class FeasibleGoals:
    """The goals that are tuned for.

    Attributes:
        goals: By the name of the operating point.
        default: The operating point of requests that name none.
        left_out: Built-in goals that the rows cannot show, with the rows that each needs.
        n: Number of rows that are left to test thresholds on.
    """

    goals: Mapping[str, Goal]
    default: str
    left_out: Mapping[str, int]
    n: int


def feasible_goals(
    config: CascadeConfig, rows: Rows, split: RowSplit, n_labels: int
) -> FeasibleGoals:
    """The user's goals, or those of the default ones that the rows can show.

    Args:
        config: The cascade's settings, with two members or more.
        rows: The held-out rows.
        split: The purpose of each of them.
        n_labels: Number of labels of the cascade.

    Raises:
        UsageError: The rows cannot show a goal of the user's, or none of the default ones; a goal
            needs labels; or there are too many thresholds.
    """
    n_thresholds = len(config.members) - 1
    per_label = config.tune.per_label
    wanted = config.goals()
    left_out: dict[str, int] = {}
    n = len(split.thresholds)
    for name, goal in wanted.items():
        guarantee = goal.guarantee
        if guarantee is None:
            continue
        if guarantee.kind == ACCURACY_DROP and rows.labels is None:
            raise UsageError(needs_labels())
        n = rows_to_test(guarantee, split, n_thresholds, per_label=per_label)
        if not is_scanned(guarantee, n_thresholds, per_label=per_label):
            check_axes(n_thresholds, n_labels if per_label else 1)
        needed = rows_needed(guarantee)
        if n >= needed:
            continue
        if config.has_goals():
            loss = "loss" if guarantee.kind == DISAGREEMENT else "answer won or lost"
            where = f"operating point {name}: " if len(wanted) > 1 else ""
            raise UsageError(
                f"{where}{n} of the {len(rows.texts)} held-out rows are left to test thresholds "
                f"on, too few to guarantee {goal}: that needs at least {needed}, without a single "
                f"{loss} among them; give about {_in_all(needed, n, len(rows.texts))} held-out "
                "rows or more, a higher limit or a lower confidence"
            )
        left_out[name] = needed
    goals = {name: goal for name, goal in wanted.items() if name not in left_out}
    if not goals:
        least = min(left_out.values())
        raise UsageError(
            f"{n} of the {len(rows.texts)} held-out rows are left to test thresholds on, and the "
            f"loosest guarantee takes {least}: give about {_in_all(least, n, len(rows.texts))} "
            "rows or more, or a goal under [tune] that guarantees nothing, such as "
            "max_deferral_rate = 0.25"
        )
    default = config.default_point()
    if default in left_out:
        if config.tune.default is not None:
            raise UsageError(
                f"tune.default is {default!r}, which so few rows cannot show: it takes "
                f"{left_out[default]} rows to test thresholds on, and {n} are left; give more "
                f"rows, or one of {', '.join(goals)}"
            )
        default = list(goals)[-1]  # the strictest that is left
    return FeasibleGoals(goals, default, left_out, n)


def rows_to_test(
    guarantee: Guarantee, split: RowSplit, n_thresholds: int, *, per_label: bool
) -> int:
    """The number of rows that test the thresholds of a guarantee."""
    if is_scanned(guarantee, n_thresholds, per_label=per_label):
        return len(split.thresholds)
    return len(split.test) if len(split.design) else 0


def _in_all(needed: int, n: int, n_rows: int) -> int:
    """Held-out rows of which `needed` are left to test on, if the parts keep their shares."""
    return math.ceil(needed * n_rows / n) if n else 2 * needed
