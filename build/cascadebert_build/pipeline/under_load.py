"""The operating point under load: it must have been tuned, and be faster than the default."""

from __future__ import annotations

from cascadebert_core.policy import Policy
from cascadebert_core.published_points import EXITS

from ..errors import UsageError


def require_faster(policy: Policy, point: str) -> None:
    """Refuse a point that would not help.

    Args:
        policy: A tuned policy with its certificate.
        point: What [under_load] names.

    Raises:
        UsageError: The policy has no such point, or it defers as much as the default.
    """
    if point not in policy.operating_points or not policy.certificate_of(point):
        raise UsageError(
            f"under_load.operating_point is {point!r}, which was not tuned (the policy has "
            f"{', '.join(sorted(policy.operating_points))}): run `cascadebert tune`, with more "
            "rows if its guarantee needs them, or name another point"
        )
    usual, faster = (
        policy.certificate_of(name)[EXITS][0] for name in (policy.default_operating_point, point)
    )
    if faster <= usual:
        raise UsageError(
            f"under_load.operating_point is {point!r}, which defers {1 - faster:.1%} of the rows, "
            f"and the default {policy.default_operating_point!r} defers {1 - usual:.1%}: name a "
            "point that defers fewer"
        )
