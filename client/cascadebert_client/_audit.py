"""The verdict of a server's audits on a guarantee.

For each operating point the server counts rows, drawn at random, whose answer agreed with the last
stage's or disagreed with it. The counts give a confidence sequence for the rate of disagreement,
and the sequence gives the verdict.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from cascadebert_core.confidence_sequence import (
    BROKEN,
    HOLDS,
    UNDECIDED,
    Interval,
    audit_interval,
    rows_to_tell,
    verdict_of,
)
from cascadebert_core.guarantee import ACCURACY_DROP, DEFAULT_CONFIDENCE, Guarantee
from cascadebert_core.metric_names import (
    AGREED,
    AUDIT_DROPPED,
    AUDIT_ERRORS,
    AUDITED,
    DISAGREED,
)

from ._metrics_text import Sample
from .errors import UnexpectedResponse


@dataclass(frozen=True, slots=True)
class Counts:
    """The server's counts for one operating point since the cascade was loaded.

    Attributes:
        agreed: Rows whose answer was the last stage's.
        disagreed: Rows whose answer was another.
        dropped: Rows drawn while the audit queue was full. Their results are unknown, but the drop
            does not depend on the row, so they are left out.
        errors: Rows whose audit failed. The failure may depend on the row, so the interval allows
            for every possible result.
    """

    agreed: int = 0
    disagreed: int = 0
    dropped: int = 0
    errors: int = 0

    @property
    def audited(self) -> int:
        """The rows with a known result."""
        return self.agreed + self.disagreed


@dataclass(frozen=True, slots=True)
class PointAudit:
    """The audit of one operating point.

    Attributes:
        operating_point: Its name.
        policy: The id of its policy.
        counts: The server's counts.
        guarantee: The guarantee that is tested; None without one.
        confidence: The confidence of the interval.
        interval: The interval of the rate of disagreement among all rows.
        verdict: `HOLDS`, `BROKEN` or `UNDECIDED`; None without a guarantee.
        rows_to_tell: About how many more audited rows a verdict takes. 0 if there is one, None if
            it cannot be estimated.
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
        """The rate of disagreement among the audited rows; None without any."""
        n = self.counts.audited
        return self.counts.disagreed / n if n else None


def counts_from_samples(samples: Iterable[Sample], model: str) -> dict[tuple[str, str], Counts]:
    """Return a model's counts by policy and operating point; empty if nothing is audited.

    Raises:
        UnexpectedResponse: A sample is not a count, or not a count of audited rows.
    """
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for sample in samples:
        if sample.labels.get("model") != model:
            continue
        result = sample.labels.get("result", "")
        kinds = {AUDITED: result, AUDIT_DROPPED: "dropped", AUDIT_ERRORS: "errors"}
        kind = kinds.get(sample.name)
        if kind is None:
            continue
        if kind not in {AGREED, DISAGREED, "dropped", "errors"} or not (
            math.isfinite(sample.value) and sample.value >= 0
        ):
            raise UnexpectedResponse(
                f"{sample.name}{sample.labels} is {sample.value}, not a count of audited rows: "
                "check that --metrics-url is the server's"
            )
        key = (sample.labels.get("policy", ""), sample.labels.get("operating_point", ""))
        # The counts of several instances, or of several loads of a cascade, are added.
        found[key][kind] = found[key].get(kind, 0) + round(sample.value)
    return {key: Counts(**kinds) for key, kinds in sorted(found.items())}


def audited_models(samples: Iterable[Sample]) -> list[str]:
    """Return the models with counts of audited rows, sorted."""
    names = {AUDITED, AUDIT_DROPPED, AUDIT_ERRORS}
    return sorted({each.labels.get("model", "") for each in samples if each.name in names})


def audit_of_point(
    operating_point: str, policy: str, counts: Counts, guarantee: Guarantee | None
) -> PointAudit:
    """Return the audit of one operating point.

    An accuracy drop can only be measured with labels, which a server does not have. It is never
    above the rate of disagreement, so audits can show that its limit holds, but not that it is
    broken.
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
    """Return the verdict on one operating point in words, or what is needed for one."""
    if point.guarantee is None:
        return "there is no guarantee to test: give --max-disagreement"
    drop = point.guarantee.kind == ACCURACY_DROP
    limit = f"{100 * point.guarantee.limit:.4g}%"
    what = f"an accuracy drop of at most {limit}" if drop else f"at most {limit} disagreements"
    if point.verdict != UNDECIDED:
        return f"the guarantee {'holds' if point.verdict == HOLDS else 'is BROKEN'}: {what}"
    if drop and point.interval.low > point.guarantee.limit:
        why = "more answers differ, and only labelled rows can show whether accuracy dropped"
    elif point.rows_to_tell is None:
        why = "the rate is too near to the limit"
    else:
        rows = "row" if point.rows_to_tell == 1 else "rows"
        why = f"at this rate a verdict takes about {point.rows_to_tell:,} more audited {rows}"
    return f"it cannot be told yet whether the guarantee holds: {what}; {why}"


def is_broken(points: Iterable[PointAudit]) -> bool:
    """Return whether any guarantee is broken."""
    return any(point.verdict == BROKEN for point in points)
