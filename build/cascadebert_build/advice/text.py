"""Advice as text for a terminal, with a small plot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tabulate import tabulate

from ..evaluation.verdicts import speed_in_words
from .advice import Advice, goal_in_words

_WIDTH, _HEIGHT = 60, 12
_LABEL_COLUMNS = 8  # from the beginning of one label of an axis to that of the next


def advice_as_text(advice: Advice) -> str:
    """The verdict first, then what it is from."""
    last = advice.members[-1].name
    lines = [advice.verdict.text, "", _members(advice), ""]
    if advice.equal is not None:
        equal = advice.equal
        gain = equal.cost.share.value < 1
        lines.append(
            f"at equal accuracy  {speed_in_words(equal.cost, last) if gain else 'no gain'}; "
            f"{equal.exits[0]:.0%} of the rows end at {advice.members[0].name}; accuracy "
            f"{equal.accuracy:.2%}, the 95% interval of the loss is {100 * equal.behind.low:.1f} "
            f"to {100 * equal.behind.high:.1f} points"
        )
    lines += [
        f"{each.name:18} {speed_in_words(each.point.cost, last)}; {goal_in_words(each.goal)}"
        + (f"; {advice.members[0].name} alone" if each.point.exits[0] == 1 else "")
        for each in advice.points
    ]
    lines += [
        f"{name:18} left out: it takes {needed} rows to test on"
        for name, needed in advice.left_out.items()
    ]
    lines += [f"WARNING: {warning}" for warning in advice.warnings]
    if advice.months:
        lines += ["", _months(advice)]
    lines += ["", plot_of_advice(advice)]
    return "\n".join(lines)


def _members(advice: Advice) -> str:
    rows = [
        (
            f"{member.name} alone",
            "–" if member.accuracy is None else f"{member.accuracy:.2%}",
            f"{member.cost.ms.value:.3g}",
            f"{member.cost.share.value:.2f}",
            "–" if member.cost.computations is None else f"{member.cost.computations:.2f}",
        )
        for member in advice.members
    ]
    table = tabulate(
        rows,
        headers=("", "accuracy", "ms a row", "share of time", "of computations"),
        colalign=("left", "right", "right", "right", "right"),
        tablefmt="plain",
        disable_numparse=True,
    )
    return f"{advice.rows:,} rows; {advice.cost_of}\n{table}"


def _months(advice: Advice) -> str:
    rows = [
        (way, f"{month.machines:.2f}", "–" if month.price is None else f"{month.price:,.0f}")
        for way, month in advice.months.items()
    ]
    return tabulate(
        rows,
        headers=("", "machines", "a month"),
        colalign=("left", "right", "right"),
        tablefmt="plain",
        disable_numparse=True,
    )


def plot_of_advice(advice: Advice) -> str:
    """Accuracy against the share of the last member's time; members are letters."""
    curve = advice.curve
    points = [(float(x), float(y), "·") for x, y in zip(curve.cost, curve.accuracy, strict=True)]
    if advice.equal is not None:
        points.append((advice.equal.cost.share.value, advice.equal.accuracy, "o"))
    key = ["· cascade over thresholds", *(["o at equal accuracy"] if advice.equal else [])]
    for i, member in enumerate(advice.members):
        if member.accuracy is not None:
            letter = chr(ord("A") + i) if i < 26 else "*"
            points.append((member.cost.share.value, member.accuracy, letter))
            key.append(f"{letter} {member.name} alone")
    last = advice.members[-1].name
    what = "accuracy" if advice.labelled else f"agreement with {last}"
    plot = text_plot(points, f"{what}, %", f"time of a row ({last} alone = 1)")
    return f"{plot}\n{'   '.join(key)}"


def _step_of_axis(right: float) -> float:
    """The least round distance of labels at which they do not touch."""
    step = 0.25
    while step / right * (_WIDTH - 1) < _LABEL_COLUMNS:
        step *= 2
    return step


def text_plot(points: Sequence[tuple[float, float, str]], y_name: str, x_name: str) -> str:
    """Draw points in letters; later ones lie above earlier ones.

    Args:
        points: (x, y, mark) with x from 0 and y as a share.
        y_name: Above the plot.
        x_name: Below it.
    """
    right = max(1.1, *(x for x, _, _ in points)) if points else 1.1
    shares = [y for _, y, _ in points] or [0.0, 1.0]
    low, high = min(shares), max(shares)
    if high - low < 0.01:  # do not magnify hundredths
        low, high = low - 0.005, high + 0.005
    grid = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    for x, y, mark in points:
        column = min(_WIDTH - 1, max(0, round(x / right * (_WIDTH - 1))))
        line = round((high - y) / (high - low) * (_HEIGHT - 1))
        grid[line][column] = mark
    lines = [y_name]
    for i, row in enumerate(grid):
        value = high - (high - low) * i / (_HEIGHT - 1)
        tick = f"{100 * value:6.1f}" if i % 3 == 0 or i == _HEIGHT - 1 else " " * 6
        lines.append(f"{tick} │{''.join(row).rstrip()}")
    lines.append(f"{' ' * 7}└{'─' * _WIDTH}")
    marks = [" "] * (_WIDTH + 12)
    step = _step_of_axis(right)
    for tick in np.arange(0.0, right, step):
        at = round(float(tick) / right * (_WIDTH - 1))
        for i, letter in enumerate(f"{tick:g}"):
            marks[at + i] = letter
    lines += [f"{' ' * 8}{''.join(marks).rstrip()}", f"{' ' * 8}{x_name}"]
    return "\n".join(lines)
