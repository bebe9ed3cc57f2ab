"""The metrics of a cascade: names, kinds, descriptions, label values.

Only the standard library is needed here; `metrics` counts, `metrics_exporter` exports.
"""

from __future__ import annotations

PREFIX = "cascadebert_"

REQUESTS = f"{PREFIX}requests_total"
ROWS = f"{PREFIX}rows_total"
ERRORS = f"{PREFIX}errors_total"
EXITED = f"{PREFIX}exited_rows_total"
DEFERRED = f"{PREFIX}deferred_rows_total"
DEGRADED = f"{PREFIX}degraded_rows_total"
TRUNCATED = f"{PREFIX}truncated_rows_total"
CONFIDENCE = f"{PREFIX}confidence"
LATENCY = f"{PREFIX}latency_seconds"
IN_FLIGHT = f"{PREFIX}rows_in_flight"
QUEUED = f"{PREFIX}queued_rows"
POLICY = f"{PREFIX}policy_info"
ACTIVE_POINT = f"{PREFIX}operating_point_active"
BROKEN_GUARANTEE = f"{PREFIX}guarantee_broken"
SWITCHES = f"{PREFIX}operating_point_switches_total"
AUDITED = f"{PREFIX}audited_rows_total"
AUDIT_DROPPED = f"{PREFIX}audit_dropped_rows_total"
AUDIT_ERRORS = f"{PREFIX}audit_errors_total"
AUDIT_FAMILIES = (AUDITED, AUDIT_DROPPED, AUDIT_ERRORS)

COUNTER = "counter"
GAUGE = "gauge"

# Kind and description of every family. A histogram is three counters, as Prometheus writes it:
# Triton's own histogram takes one value a call, and a call for every row would cost more than the
# rows.
FAMILIES: dict[str, tuple[str, str]] = {
    REQUESTS: (COUNTER, "Requests that have ended, by outcome"),
    ROWS: (COUNTER, "Rows of the requests that have ended"),
    ERRORS: (COUNTER, "Requests that ended with an error, by kind"),
    EXITED: (COUNTER, "Rows answered, by the stage that answered them"),
    DEFERRED: (COUNTER, "Rows that a stage did not answer, by stage"),
    DEGRADED: (COUNTER, "Rows answered below the requested threshold, by reason"),
    TRUNCATED: (COUNTER, "Rows longer than the maximum length of their first stage"),
    f"{CONFIDENCE}_bucket": (COUNTER, "Rows whose confidence in a stage is at most le"),
    f"{CONFIDENCE}_sum": (COUNTER, "Sum of the confidences of rows in a stage"),
    f"{CONFIDENCE}_count": (COUNTER, "Rows that a stage has seen"),
    f"{LATENCY}_bucket": (COUNTER, "Rows answered within le seconds, by the stage that answered"),
    f"{LATENCY}_sum": (COUNTER, "Sum of seconds from the request to the answer of rows"),
    f"{LATENCY}_count": (COUNTER, "Rows answered, by the stage that answered them"),
    IN_FLIGHT: (GAUGE, "Rows of the requests that have not ended"),
    QUEUED: (GAUGE, "Rows in the queue of a stage"),
    POLICY: (GAUGE, "1, with the id of the served policy"),
    ACTIVE_POINT: (GAUGE, "1 for the operating point of requests that name none, 0 for the other"),
    BROKEN_GUARANTEE: (
        GAUGE,
        "1 if audits say that an operating point's guarantee is broken, until an operator ends it",
    ),
    SWITCHES: (COUNTER, "Switches to an operating point because of the load"),
    AUDITED: (COUNTER, "Audited rows, by whether their answer agreed with the last stage's"),
    AUDIT_DROPPED: (COUNTER, "Rows drawn for an audit while its queue was full"),
    AUDIT_ERRORS: (COUNTER, "Rows drawn for an audit that failed"),
}

CONFIDENCE_BOUNDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 1.0)
LATENCY_BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip

# Values of the label `outcome`.
ANSWERED = "answered"
ERROR = "error"
# Values of the label `kind` of errors: the gRPC codes of their answers, in lower case.
ERROR_KINDS = ("invalid_argument", "deadline_exceeded", "cancelled", "unavailable", "internal")
# Values of the label `result` of audits.
AGREED = "agreed"
DISAGREED = "disagreed"
