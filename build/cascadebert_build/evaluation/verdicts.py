"""What is said if a cascade, or a part of it, does not pay.

A verdict is a warning: the cascade is right, but something simpler would serve as well or better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cascadebert_client.verdicts import Verdict

from .costs import Cost
from .metrics import Interval

# Kinds of verdicts.
COSTS_MORE = "costs_more"  # than the last member alone
NOT_SHOWN_FASTER = "not_shown_faster"  # the gain is within the spread of the measurement
SMALLER_AS_ACCURATE = "smaller_as_accurate"
IDLE_STAGE = "idle_stage"  # a stage between the first and the last that answers next to nothing

# A smaller member is as accurate if the last one is shown to be at most this much better.
AS_ACCURATE = 0.01
# A stage that answers a smaller share of the rows that reach it answers next to nothing.
IDLE = 0.05
# If the first member takes more than this share of the last one's time, no threshold saves much.
_AS_SLOW = 0.95


@dataclass(frozen=True, slots=True)
class MemberFacts:
    """A member alone.

    Attributes:
        name: The member.
        cost: Of a row that it answers alone.
        accuracy: On `rows` rows; None without labels.
        behind: The last member's accuracy minus its own, on the same rows; None without labels.
        rows: Number of labelled rows.
    """

    name: str
    cost: Cost
    accuracy: float | None = None
    behind: Interval | None = None
    rows: int = 0


@dataclass(frozen=True, slots=True)
class PointFacts:
    """An operating point.

    Attributes:
        name: The operating point.
        exits: The share of the rows that each stage answers.
        cost: Of a row.
    """

    name: str
    exits: tuple[float, ...]
    cost: Cost


def verdicts_of(
    members: Sequence[MemberFacts], points: Sequence[PointFacts]
) -> tuple[Verdict, ...]:
    """Say what does not pay; nothing of a single member.

    Args:
        members: Small to large.
        points: Operating points of the cascade of these members.
    """
    if len(members) < 2:
        return ()
    found = [_slow_point(members, point) for point in points]
    found.append(_smaller_as_accurate(members))
    found += [_idle_stage(members, stage, points) for stage in range(1, len(members) - 1)]
    return tuple(verdict for verdict in found if verdict is not None)


def speed_in_words(cost: Cost, last: str = "the last member") -> str:
    """How fast an operating point is, with the spread: `1.94 times faster than … alone (…)`."""
    speedup, share = cost.speedup, cost.share
    if speedup.value >= 1:
        return f"{speedup.value:.2f} times faster than {last} alone{_spread(speedup)}"
    return f"SLOWER than {last} alone: {share.value:.2f} times its time{_spread(share)}"


def _spread(interval: Interval) -> str:
    """` (1.90 to 1.98)`, or nothing if the time was measured once."""
    low, high = f"{interval.low:.2f}", f"{interval.high:.2f}"
    return "" if low == high else f" ({low} to {high})"


def _slow_point(members: Sequence[MemberFacts], point: PointFacts) -> Verdict | None:
    last, share = members[-1].name, point.cost.share
    if share.value > 1:
        return Verdict(
            COSTS_MORE,
            point.name,
            f"The operating point {point.name} costs more than {last} alone: a row takes "
            f"{share.value:.2f} times the time{_spread(share)}.",
            _help_with_speed(members, point),
        )
    if share.high >= 1:
        return Verdict(
            NOT_SHOWN_FASTER,
            point.name,
            f"The operating point {point.name} is not shown to be faster than {last} alone: a row "
            f"takes {share.value:.2f} times the time, and repeats of the measurement gave "
            f"{share.low:.2f} to {share.high:.2f}.",
            "Run `cascadebert tune --force` on an idle machine to measure again. "
            + _help_with_speed(members, point),
        )
    return None


def _help_with_speed(members: Sequence[MemberFacts], point: PointFacts) -> str:
    first, last = members[0], members[-1]
    alone = f"serve {last.name} alone"
    share = first.cost.share.value
    if share > _AS_SLOW:
        return (
            f"{first.name} alone takes {share:.0%} of {last.name}'s time, so no threshold can save "
            f"much: take a first member with fewer layers, or {alone}."
        )
    deferred = 1 - point.exits[0]
    if len(members) == 2:
        return (
            f"{first.name} takes {share:.0%} of {last.name}'s time, so it has to answer more than "
            f"that share of the rows, and it answers {1 - deferred:.0%}: set a looser goal, take a "
            f"more accurate or a faster first member, or {alone}."
        )
    return (
        f"{first.name} answers {1 - deferred:.0%} of the rows: set a looser goal, take a more "
        f"accurate or a faster first member or fewer members, or {alone}."
    )


def _smaller_as_accurate(members: Sequence[MemberFacts]) -> Verdict | None:
    """Of the smallest member that is as accurate as the last."""
    last = members[-1]
    for member in members[:-1]:
        behind = member.behind
        if behind is None or member.accuracy is None or last.accuracy is None:
            continue
        if behind.value > 0 and behind.high > AS_ACCURATE:
            continue
        return Verdict(
            SMALLER_AS_ACCURATE,
            member.name,
            f"{member.name} alone is as accurate as {last.name}: {member.accuracy:.2%} and "
            f"{last.accuracy:.2%} on {member.rows} rows (the gain of {last.name} is "
            f"{100 * behind.value:.2f} points, 95% interval {100 * behind.low:.2f} to "
            f"{100 * behind.high:.2f}).",
            f"Serve {member.name} alone, or take a more accurate last member.",
        )
    return None


def _idle_stage(
    members: Sequence[MemberFacts], stage: int, points: Sequence[PointFacts]
) -> Verdict | None:
    name = members[stage].name
    idle: list[str] = []
    for point in points:
        reaching = sum(point.exits[stage:])
        answered = point.exits[stage]
        if answered < IDLE * reaching or reaching <= 0:
            idle.append(f"{answered:.1%} of the rows at {point.name} ({reaching:.1%} reach it)")
    if not idle:
        return None
    return Verdict(
        IDLE_STAGE,
        name,
        f"{name} answers next to nothing: {', '.join(idle)}.",
        f"Leave {name} out"
        + ("" if len(idle) == len(points) else ", if you use only these operating points")
        + f", or take one whose accuracy is between those of {members[stage - 1].name} and "
        f"{members[stage + 1].name}.",
    )
