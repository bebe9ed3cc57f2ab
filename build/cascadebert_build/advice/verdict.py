"""The verdict in a sentence: a cascade pays, or why it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.verdicts import (
    LABELS_EXCHANGED,
    LABELS_LOOK_EXCHANGED,
    OUT_OF_ORDER,
    SMALLER_AS_ACCURATE,
    MemberFacts,
    verdicts_of,
)

# Kinds of verdicts.
PAYS = "pays"
PAYS_WITH_LOSS = "pays_with_loss"  # no gain at equal accuracy, but one at a guarantee
TOO_FEW_ROWS = "too_few_rows"
SMALL_TOO_WEAK = "small_too_weak"
TOO_CLOSE_IN_COST = "too_close_in_cost"

# Verdicts on the members that are said first: nothing else can be told until they are put right.
_FIRST = (LABELS_EXCHANGED, LABELS_LOOK_EXCHANGED, OUT_OF_ORDER)

# A gain below this is not worth a second model to look after.
WORTH = 1.2


@dataclass(frozen=True, slots=True)
class AdviceVerdict:
    """Whether a cascade pays. The fields are also the keys of its JSON form.

    Attributes:
        kind: One of the kinds above, or one of `evaluation.verdicts` that is a reason against it.
        pays: Whether to build it.
        text: Why, in a sentence or two.
    """

    kind: str
    pays: bool
    text: str


@dataclass(frozen=True, slots=True)
class Gains:
    """How many times faster than the last member alone.

    Attributes:
        equal: At equal accuracy; None without labels.
        promised: At the strictest guarantee that is worth it, or at the fastest; None: the rows
            can carry no guarantee.
        promise: That guarantee in words.
        why_none: Why the rows can carry none.
    """

    equal: float | None
    promised: float | None
    promise: str = ""
    why_none: str = ""


def advice_of(members: Sequence[MemberFacts], gains: Gains) -> AdviceVerdict:
    """Say whether a cascade of these members pays.

    Args:
        members: Small to large, two or more.
        gains: What thresholds on the rows gave.
    """
    first, last = members[0], members[-1]
    share = first.cost.share.value
    found = verdicts_of(members, ())
    reasons = [verdict for verdict in found if verdict.kind in _FIRST]
    if gains.promised is None and not reasons:
        return AdviceVerdict(
            TOO_FEW_ROWS, False, f"No answer yet, from too few rows. {_sentence(gains.why_none)}"
        )
    reasons += [verdict for verdict in found if verdict.kind == SMALLER_AS_ACCURATE]
    if reasons:
        return AdviceVerdict(reasons[0].kind, False, f"No: {reasons[0]}")
    assert gains.promised is not None
    if share * WORTH > 1:
        return AdviceVerdict(
            TOO_CLOSE_IN_COST,
            False,
            f"No: {first.name} takes {share:.0%} of {last.name}'s time, so no thresholds can make "
            f"the cascade more than {max(1.0, 1 / share):.2f} times faster. Take a smaller first "
            f"member (`cascadebert train --layers`), or serve {last.name} alone.",
        )
    equal = gains.equal
    if equal is not None and equal >= WORTH:
        return AdviceVerdict(
            PAYS,
            True,
            f"Yes: at equal accuracy on these rows the cascade is {equal:.2f} times faster than "
            f"{last.name} alone. {_promise(gains)}",
        )
    if gains.promised >= WORTH:
        without = ""
        if equal is not None:
            gain = "nothing is gained" if equal <= 1 else f"it is only {equal:.2f} times faster"
            without = f"At equal accuracy {gain}."
        return AdviceVerdict(
            PAYS if equal is None else PAYS_WITH_LOSS,
            True,
            f"Yes, if this loss is acceptable: {gains.promise}. Then the cascade is "
            f"{gains.promised:.2f} times faster than {last.name} alone. {without}".strip(),
        )
    best = max(gains.promised, equal or 0.0)
    behind = ""
    if first.accuracy is not None and last.accuracy is not None:
        behind = f" ({first.accuracy:.1%} right, {last.name} {last.accuracy:.1%})"
    return AdviceVerdict(
        SMALL_TOO_WEAK,
        False,
        f"No: {first.name} is too weak{behind}. It is sure and right on too few rows, and the "
        f"cascade would be {best:.2f} times as fast as {last.name} alone. Train a better first "
        "member (`cascadebert train --teacher`), or accept more other answers.",
    )


def _promise(gains: Gains) -> str:
    assert gains.promised is not None
    speed = (
        f"{gains.promised:.2f} times faster"
        if gains.promised >= 1
        else f"slower ({gains.promised:.2f} times as fast)"
    )
    return f"The rows could carry the promise that {gains.promise}: then it is {speed}."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""
