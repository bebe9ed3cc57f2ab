"""What a server's audits say of a promise.

The server counts, for every operating point of a policy, rows drawn at random whose answer was the
last stage's and rows whose answer was another. From the counts follows a confidence sequence for
how often the cascade disagrees, and from that a verdict.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from cascadebert_core.guarantee import ACCURACY_DROP, DEFAULT_CONFIDENCE, GUARANTEES, Guarantee

from ._checks import is_real
from ._confidence_sequence import (
    BROKEN,
    HOLDS,
    UNDECIDED,
    Interval,
    audit_interval,
    rows_to_tell,
    verdict_of,
)
from ._metrics_text import Sample
from .errors import UnexpectedResponse

AUDITED = "cascadebert_audited_rows_total"
DROPPED = "cascadebert_audit_dropped_rows_total"
ERRORS = "cascadebert_audit_errors_total"

PARAMETER = "operating_points"
"""Of the model's configuration: JSON, with the promise of every operating point."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the server has counted for one operating point since the cascade was loaded.

    Attributes:
        agreed: Rows drawn whose answer was the last stage's.
        disagreed: Rows drawn whose answer was another.
        dropped: Rows drawn while too many others waited; nothing is known of them, and since that
            did not depend on them, they are left out.
        errors: Rows drawn that the last stage could not be asked about. That may have depended on
            them, so the interval allows for whatever they would have been.
    """

    agreed: int = 0
    disagreed: int = 0
    dropped: int = 0
    errors: int = 0

    @property
    def audited(self) -> int:
        """Rows whose result is known."""
        return self.agreed + self.disagreed


@dataclass(frozen=True, slots=True)
class PointAudit:
    """The state of one operating point.

    Attributes:
        operating_point: Its name.
        policy: Id of the policy that it is of.
        counts: What the server counted.
        promise: What it promises; None where nobody promised anything.
        confidence: Of the interval.
        interval: Of the share of all rows whose answer is not the last stage's.
        verdict: One of `confidence_sequence`'s; None without a promise.
        rows_to_tell: About how many more audited rows a verdict takes; 0 where there is one, None
            where it cannot be said.
    """

    operating_point: str
    policy: str
    counts: Counts
    guarantee: Guarantee | None
    confidence: float
    interval: Interval
    verdict: str | None
    rows_to_tell: int | None

    @property
    def estimate(self) -> float | None:
        """Share of the audited rows whose answer was not the last stage's; None without any."""
        n = self.counts.audited
        return self.counts.disagreed / n if n else None


def counts_from_samples(samples: Iterable[Sample], model: str) -> dict[tuple[str, str], Counts]:
    """Return a model's counts by policy and operating point; empty where nothing is audited."""
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for sample in samples:
        if sample.labels.get("model") != model:
            continue
        kind = {
            AUDITED: sample.labels.get("result", ""),
            DROPPED: "dropped",
            ERRORS: "errors",
        }.get(sample.name)
        if kind is None:
            continue
        if kind not in {"agreed", "disagreed", "dropped", "errors"} or not (
            math.isfinite(sample.value) and sample.value >= 0
        ):
            raise UnexpectedResponse(
                f"{sample.name}{sample.labels} is {sample.value}: no count of audited rows"
            )
        key = (sample.labels.get("policy", ""), sample.labels.get("operating_point", ""))
        # Several instances of a cascade, or one that is being loaded again, are one sample.
        found[key][kind] = found[key].get(kind, 0) + round(sample.value)
    return {key: Counts(**kinds) for key, kinds in sorted(found.items())}


def guarantees_from_parameters(parameters: Mapping[str, str]) -> dict[str, Guarantee]:
    """Return the promises that a model's configuration shows, by operating point.

    Raises:
        UnexpectedResponse: There is something that is no promise.
    """
    text = parameters.get(PARAMETER)
    if text is None:
        return {}
    try:
        points = cast("dict[str, dict[str, Any]]", json.loads(text))
        found = {name: point.get("promise") for name, point in points.items()}
        return {name: _guarantee(raw) for name, raw in found.items() if raw is not None}
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as exc:
        raise UnexpectedResponse(
            f"the parameter {PARAMETER!r} of the model's configuration cannot be read "
            f"({type(exc).__name__}: {exc}): publish the cascade again, or give --max-disagreement"
        ) from exc


def _guarantee(raw: Any) -> Guarantee:
    guarantee = Guarantee(str(raw["kind"]), raw["limit"], raw["confidence"])
    if guarantee.kind not in GUARANTEES:
        raise ValueError(f"a promise of the kind {guarantee.kind!r}")
    for number in (guarantee.limit, guarantee.confidence):
        if not is_real(number) or not 0 < number < 1:
            raise ValueError(f"{number!r} is not between 0 and 1")
    return guarantee


def audit_of_point(
    operating_point: str, policy: str, counts: Counts, guarantee: Guarantee | None
) -> PointAudit:
    """Return the verdict on one operating point.

    An accuracy drop needs the truth, which a server does not have. It is never above the
    disagreement, so a promise of it can be seen to hold, but not to be broken.
    """
    confidence = guarantee.confidence if guarantee is not None else DEFAULT_CONFIDENCE
    delta = 1 - confidence
    known = (counts.agreed, counts.disagreed, counts.errors)
    interval = audit_interval(*known, delta)
    verdict, more = None, None
    if guarantee is not None:
        verdict = verdict_of(interval, guarantee.limit)
        more = rows_to_tell(*known, guarantee.limit, delta) if verdict == UNDECIDED else 0
        if guarantee.kind == ACCURACY_DROP and verdict == BROKEN:
            verdict, more = UNDECIDED, None
    return PointAudit(
        operating_point, policy, counts, guarantee, confidence, interval, verdict, more
    )


def sentence(point: PointAudit) -> str:
    """Return the verdict on one operating point for people, with what would be needed to tell."""
    if point.guarantee is None:
        return "nothing was promised: give --max-disagreement to test a limit"
    drop = point.guarantee.kind == ACCURACY_DROP
    what = f"{100 * point.guarantee.limit:.4g}%"
    what = f"an accuracy at most {what} lower" if drop else f"at most {what} disagreements"
    if point.verdict != UNDECIDED:
        return f"the promise {'holds' if point.verdict == HOLDS else 'is BROKEN'}: {what}"
    if drop and point.interval.low > point.guarantee.limit:
        why = "more answers differ than that, and whether for the worse only labelled rows show"
    elif point.rows_to_tell is None:
        why = "the rate is too near to the limit"
    else:
        rows = "row" if point.rows_to_tell == 1 else "rows"
        why = f"at this rate it takes about {point.rows_to_tell:,} more audited {rows}"
    return f"it cannot be told yet whether the promise holds: {what}; {why}"


def is_broken(points: Iterable[PointAudit]) -> bool:
    """Whether any promise is broken."""
    return any(point.verdict == BROKEN for point in points)
