"""Everything that is measured on a group; a process of its own can do it."""

from __future__ import annotations

from .blends import Blended, blended
from .comparisons import ByLabel, Effort, Figures, figures_of, promised_by_label
from .gates import gates_of, gates_of_twins
from .pairs import Group


def measure_one(group: Group, effort: Effort) -> tuple[str, tuple[list[Figures], ByLabel, Blended]]:
    """Measure the gates of one small member.

    Returns:
        What was measured, for people; the gates, thresholds by label, and the blend.
    """
    gates = gates_of(group)
    by_label = promised_by_label(group, gates[0], effort)
    found = figures_of(group, gates, effort), by_label, blended(group, effort)
    return f"{group.task}, {group.small}", found


def measure_two(group: Group, effort: Effort) -> tuple[str, list[Figures]]:
    """Measure the gates of two small members at one stage."""
    return f"{group.task}, {group.small}", figures_of(group, gates_of_twins(group), effort)
