"""The operating points of a cascade as its published configuration shows them.

Triton serves the configuration to every client, but not policy.json. So publishing copies from the
policy, into the configuration's parameter `contract.OPERATING_POINTS`, one JSON object::

    {"fast": {
        "default": true,
        "thresholds": [0.92],
        "promise": {"kind": "max_disagreement", "limit": 0.02, "confidence": 0.95},
        "n": 2000, "observed": 0.011, "bound": 0.019,
        "exits": [0.81, 1.0], "speedup": 3.4, "speedup_spread": [3.3, 3.6], "computations": 0.28}}

A point that was tuned for a budget has "budget": {"kind": …, "limit": …} instead of "promise", and
one whose thresholds were set by hand has "by_hand": true. The keys from "promise" on are those of
the point in the policy's certificate, and each may be missing.

The parameter `contract.COST_CURVE` is one JSON object, too. It is the certificate's, on its
held-out rows. All pairs are the cost of a row, relative to the last stage alone, and the quality::

    {"quality": "accuracy", "n": 2000,
     "curve": [[0.2, 0.88], …, [1.2, 0.93]],
     "last": [1.0, 0.93],
     "points": {"fast": [0.31, 0.92]}}

"quality" is "accuracy", or "agreement" with the last stage if the rows have no labels. "curve" has
one threshold for all stages; the points have their own. A row that passes all stages costs more
than 1.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .policy import Policy

DEFAULT = "default"
THRESHOLDS = "thresholds"
UNDER_LOAD = "under_load"  # true if it takes the default's place while much is waiting

GUARANTEE = "promise"  # a guarantee.Guarantee, as JSON
BUDGET = "budget"
SET_BY_HAND = "by_hand"
ROWS = "n"  # held-out rows that were used
OBSERVED = "observed"  # the loss on them
BOUND = "bound"  # the loss that the guarantee's confidence bounds
EXITS = "exits"  # the share of rows that each stage answered
SPEEDUP = "speedup"  # times faster than the last stage alone
SPEEDUP_SPREAD = "speedup_spread"  # the least and the most in the repeats of the measurement
COMPUTATIONS = "computations"  # multiply-accumulates, relative to the last stage alone
QUALITY = "quality"
ACCURACY = "accuracy"
AGREEMENT = "agreement"
CURVE = "curve"
LAST = "last"
POINTS = "points"
_FROM_CERTIFICATE = (
    GUARANTEE, BUDGET, SET_BY_HAND, ROWS, OBSERVED, BOUND, EXITS, SPEEDUP, SPEEDUP_SPREAD,
    COMPUTATIONS,
)  # fmt: skip


def points_to_json(policy: Policy) -> str:
    """Return the value of the parameter `contract.OPERATING_POINTS`."""
    points: dict[str, dict[str, Any]] = {}
    faster = policy.under_load and policy.under_load.operating_point
    for name, thresholds in policy.operating_points.items():
        certificate = policy.certificate_of(name)
        points[name] = {
            THRESHOLDS: list(thresholds),
            DEFAULT: name == policy.default_operating_point,
            **({UNDER_LOAD: True} if name == faster else {}),
            **{key: certificate[key] for key in _FROM_CERTIFICATE if key in certificate},
        }
    return json.dumps(points)
