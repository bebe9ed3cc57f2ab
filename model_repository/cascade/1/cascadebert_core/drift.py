"""What a broken guarantee changes in service: the test, the memory of it, and the way back.

The auditor's results go through a `GuaranteeWatch`. For each operating point with a limit on
disagreement it keeps the confidence sequence of `confidence_sequence`, which may be read after
every row. Once the sequence is above the limit, the guarantee is broken, and the policy says what
then happens: nothing but the alarm, another operating point, or the last stage alone.

It never ends by itself: a sample that looks good again is of other traffic, or of the fallback's
own answers. An operator ends it by removing the entry of a file, which is also how several
instances of a cascade, a restart and a reload know of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from .confidence_sequence import BROKEN, Interval, audit_interval, verdict_of
from .drift_state import DriftState
from .guarantee import DISAGREEMENT, Guarantee
from .observer import AuditObserver
from .policy import LAST_STAGE, Policy
from .published_points import GUARANTEE
from .route import Route, Router, route_from_thresholds


@dataclass(slots=True)
class _Test:
    """The test of one operating point: its limit, and what was counted."""

    limit: float
    delta: float
    agreed: int = 0
    disagreed: int = 0
    failed: int = 0

    def interval(self) -> Interval:
        return audit_interval(self.agreed, self.disagreed, self.failed, self.delta)

    def forget(self) -> None:
        self.agreed = self.disagreed = self.failed = 0


class GuaranteeWatch:
    """Tests the guarantees on the auditor's results, and replaces the routes of broken ones."""

    def __init__(
        self,
        policy: Policy,
        observer: AuditObserver,
        state: DriftState | None,
        *,
        instances: int = 1,
        log: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        """Take up the state that the last start has left.

        Args:
            policy: With the certificate that has the guarantees.
            observer: Receives what the auditor reports, and which guarantees are broken.
            state: The memory; None keeps everything in this process.
            instances: How many processes test. Each has its share of the probability of a false
                alarm.
            log: Writes a line of the server's log.
        """
        self._observer = observer
        self._state = state
        self._policy_id = policy.id
        self._log = log
        self._action = policy.on_drift
        self._tests = {
            point: _Test(guarantee.limit, guarantee.delta / instances)
            for point in policy.operating_points
            if (guarantee := _limit_on_disagreement(policy, point))
        }
        self._last = Router(policy).route_from_parameters({"stage": len(policy.stages) - 1})
        self._fallback: Route | None = None
        if policy.on_drift == LAST_STAGE:
            self._fallback = self._last
        elif policy.on_drift:
            thresholds = policy.operating_points[policy.on_drift]
            self._fallback = route_from_thresholds(thresholds, policy.on_drift)
        self._lock = threading.Lock()
        self._broken: set[str] = set()
        self._unwritten: set[str] = set()
        self._unreadable = False
        # Replaced as a whole, so that requests may look at it without a lock.
        self._routes: dict[str, Route] = {}
        self.look()

    @property
    def points(self) -> tuple[str, ...]:
        """The operating points whose guarantee is tested."""
        return tuple(self._tests)

    @property
    def broken(self) -> frozenset[str]:
        """Those of them whose guarantee is broken."""
        return frozenset(self._broken)

    @property
    def routes(self) -> Mapping[str, Route]:
        """The routes that take the place of those of broken operating points, by their names."""
        return self._routes

    def look(self) -> None:
        """Take over what others have written or removed since the last look."""
        if self._state is None:
            return
        with self._lock:
            # Read under the lock, as alarms are written: a folder that was read before an alarm
            # would look as if an operator had ended it.
            found = self._found(self._state)
            if found is None:
                return
            broken = found & set(self._tests)
            news, cleared = broken - self._broken, self._broken - broken - self._unwritten
            self._unwritten -= broken  # another instance has written it
            for point in sorted(cleared):
                self._tests[point].forget()
            for point in sorted(news | cleared):
                self._set(point, broken=point in news)
        for point in sorted(news):
            self._tell("guarantee_broken", point, self._state.evidence(point))
        for point in sorted(cleared):
            self._tell("guarantee_cleared", point, {})

    def _found(self, state: DriftState) -> frozenset[str] | None:
        """Return what the folder has, under the lock; None if it cannot tell: that ends nothing."""
        try:
            found = state.points()
        except FileNotFoundError as exc:
            # An operator removes a file, and its folder stays. A volume that has gone takes both.
            if not self._broken - self._unwritten:
                return None
            error: OSError = exc
        except OSError as exc:
            error = exc
        else:
            self._unreadable = False
            return found
        if not self._unreadable:
            self._unreadable = True
            self._log({
                "event": "guarantee_state_unreadable",
                "policy": self._policy_id,
                "state": str(state.folder),
                "error": error.strerror or type(error).__name__,
                "broken": sorted(self._broken),
            })  # fmt: skip
        return None

    def audited(self, operating_point: str, agreed: int, disagreed: int) -> None:
        """See `observer.AuditObserver`."""
        self._observer.audited(operating_point, agreed, disagreed)
        test = self._tests.get(operating_point)
        if test is None:
            return
        with self._lock:  # a look may forget the counts
            test.agreed += agreed
            test.disagreed += disagreed
            evidence = self._judge(operating_point, test)
        if evidence is not None:
            self._tell("guarantee_broken", operating_point, evidence)

    def audit_dropped(self, operating_point: str, rows: int) -> None:
        """See `observer.AuditObserver`."""
        self._observer.audit_dropped(operating_point, rows)

    def audit_failed(self, operating_point: str, rows: int) -> None:
        """See `observer.AuditObserver`."""
        self._observer.audit_failed(operating_point, rows)
        test = self._tests.get(operating_point)
        if test is not None:
            with self._lock:
                test.failed += rows

    def guarantee(self, operating_point: str, broken: bool) -> None:
        """See `observer.AuditObserver`; the auditor itself does not call it."""
        self._observer.guarantee(operating_point, broken)

    def _judge(self, point: str, test: _Test) -> dict[str, Any] | None:
        """Look at a test, under the lock; return the evidence if its guarantee breaks now."""
        if point in self._broken:
            return None
        interval = test.interval()
        if verdict_of(interval, test.limit) != BROKEN:
            return None
        evidence = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "audited": test.agreed + test.disagreed,
            "disagreed": test.disagreed,
            "at_least": interval.low,
            "limit": test.limit,
        }
        # First the memory: whatever the folder does, the alarm holds.
        self._set(point, broken=True)
        if self._state is not None and not self._state.add(point, evidence):
            self._unwritten.add(point)  # only a reload ends it, and the next start forgets it
        return evidence

    def _set(self, point: str, *, broken: bool) -> None:
        """Change the routes, under the lock."""
        self._broken = self._broken | {point} if broken else self._broken - {point}
        self._observer.guarantee(point, broken)
        if self._fallback is None:
            return
        self._routes = {
            # The fallback may itself be an operating point, and be broken too.
            each: self._last
            if each == self._fallback.operating_point
            or self._fallback.operating_point in self._broken
            else self._fallback
            for each in self._broken
        }

    def _tell(self, event: str, point: str, evidence: Mapping[str, Any]) -> None:
        line = {
            "event": event,
            "policy": self._policy_id,
            "operating_point": point,
            "action": self._action or "alarm",
            **{k: v for k, v in evidence.items() if k != "time"},
        }
        if self._state is not None and event == "guarantee_broken":
            line["state"] = str(self._state.folder)
            if point in self._unwritten:
                line["state"] += " cannot be written: the next start will not know of it"
        self._log(line)


def _limit_on_disagreement(policy: Policy, point: str) -> Guarantee | None:
    """Return the guarantee of a point that audits can refute; None if it has no such."""
    try:
        found = policy.certificate_of(point)[GUARANTEE]
        guarantee = Guarantee(found["kind"], float(found["limit"]), float(found["confidence"]))
    except (AttributeError, KeyError, TypeError, ValueError):  # it has none, or it is damaged
        return None
    within = 0 < guarantee.limit < 1 and 0 < guarantee.delta < 1
    return guarantee if within and guarantee.kind == DISAGREEMENT else None
