"""What is said if a cascade, or a part of it, does not pay, or a member cannot be right.

Most verdicts are warnings: something simpler would serve as well or better. With exchanged labels
the answers are wrong, so nothing is published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cascadebert_client.verdicts import Verdict

from .costs import Cost
from .exchanged_labels import ExchangedLabels
from .metrics import Interval

# Kinds of verdicts.
COSTS_MORE = "costs_more"  # than the last member alone
NOT_SHOWN_FASTER = "not_shown_faster"  # the gain is within the spread of the measurement
SMALLER_AS_ACCURATE = "smaller_as_accurate"
IDLE_STAGE = "idle_stage"  # a stage between the first and the last that answers next to nothing
LABELS_EXCHANGED = "labels_exchanged"  # a member is worse than chance by its labels' names
LABELS_LOOK_EXCHANGED = "labels_look_exchanged"  # the same of some labels; better than chance
OUT_OF_ORDER = "out_of_order"  # a member costs more than a later one
TEMPERATURE_AT_LIMIT = "temperature_at_limit"  # probabilities say nothing about being right

# A smaller member is as accurate if the last one is shown to be at most this much better.
AS_ACCURATE = 0.01
# A stage that answers a smaller share of the rows that reach it answers next to nothing.
IDLE = 0.05
# If the first member takes more than this share of the last one's time, no threshold saves much.
_AS_SLOW = 0.95
# A member that takes at most this share of the time of one before it is in the wrong place.
_CHEAPER = 0.8


@dataclass(frozen=True, slots=True)
class MemberFacts:
    """A member alone.

    Attributes:
        name: The member.
        cost: Of a row that it answers alone.
        accuracy: On `rows` rows; None without labels.
        behind: The last member's accuracy minus its own, on the same rows; None without labels.
        rows: Number of labelled rows.
        exchanged: Its labels that seem to have each other's names; None: none of them.
        temperature_limit: The temperature, if it is the highest that may be fitted; else None.
    """

    name: str
    cost: Cost
    accuracy: float | None = None
    behind: Interval | None = None
    rows: int = 0
    exchanged: ExchangedLabels | None = None
    temperature_limit: float | None = None


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
    """Say what is wrong and what does not pay. What follows from another verdict is left out.

    Args:
        members: Small to large.
        points: Operating points of the cascade of these members.
    """
    wrong = _of_each(members)
    order = _out_of_order(members)
    if order is not None:
        return (*wrong, order)
    if len(members) < 2 or any(verdict.kind == LABELS_EXCHANGED for verdict in wrong):
        return wrong
    found: list[Verdict | None] = [*wrong]
    found += [_slow_point(members, point) for point in points]
    found.append(_smaller_as_accurate(members))
    found += [_idle_stage(members, stage, points) for stage in range(1, len(members) - 1)]
    return tuple(verdict for verdict in found if verdict is not None)


def _of_each(members: Sequence[MemberFacts]) -> tuple[Verdict, ...]:
    """Say which members have exchanged labels, or probabilities that say nothing."""
    found: list[Verdict] = []
    for member in members:
        if member.exchanged is not None:
            found.append(_exchanged(member, member.exchanged))
        elif member.temperature_limit is not None:
            found.append(
                Verdict(
                    TEMPERATURE_AT_LIMIT,
                    member.name,
                    f"The temperature of {member.name} is at its limit, "
                    f"{member.temperature_limit:g}: its probabilities say next to nothing about "
                    "being right on these rows.",
                    f"Check that {member.name} was trained for these labels and such texts, or "
                    "take another member.",
                )
            )
    return tuple(found)


def _exchanged(member: MemberFacts, labels: ExchangedLabels) -> Verdict:
    names = f"{', '.join(labels.names[:-1])} and {labels.names[-1]}"
    return Verdict(
        LABELS_EXCHANGED if labels.worse_than_chance else LABELS_LOOK_EXCHANGED,
        member.name,
        f"{member.name} is right on {labels.right:.1%} of {member.rows:,} rows; with its labels "
        f"{names} exchanged it is right on {labels.renamed:.1%}.",
        f"Correct id2label in the config.json of {member.name}'s checkpoint; if it has only "
        "LABEL_0 and so on, give `labels` in cascade.toml in the order that it was trained with; "
        "if all members are so, look at the labels of the rows.",
    )


def _out_of_order(members: Sequence[MemberFacts]) -> Verdict | None:
    """Of the first member that takes much less time than one before it."""
    for i, member in enumerate(members):
        slowest = max(members[:i], key=lambda each: each.cost.ms.value, default=None)
        if slowest is None or member.cost.ms.value > _CHEAPER * slowest.cost.ms.value:
            continue
        return Verdict(
            OUT_OF_ORDER,
            member.name,
            f"The members are not in the order of their cost: {member.name} takes "
            f"{member.cost.ms.value / slowest.cost.ms.value:.0%} of {slowest.name}'s time.",
            "Exchange them in cascade.toml, or in the order of --member: small to large.",
        )
    return None


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
