"""The tuned policy of the work folder, taken only if it is of these members and this runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cascadebert_core.policy import Policy, policy_from_file

from ..errors import UsageError
from .artefact import Artefact, artefact_hashes
from .context import BuildContext
from .under_load import require_faster


def tuned_policy(
    context: BuildContext, draft: Policy, artefacts: Sequence[Artefact], *, what: str
) -> Policy:
    """Read the tuned policy.

    Args:
        context: The build.
        draft: The policy of the members as they are now, without thresholds.
        artefacts: What serves now, one for each stage.
        what: What the artefacts are called in a message; "" for exported graphs.

    Raises:
        UsageError: Nothing was tuned, or the members or artefacts have changed since.
    """
    path = context.workspace.policy
    if not path.is_file():
        raise UsageError("no thresholds are chosen: run `cascadebert tune`")
    policy = policy_from_file(path)
    same = len(policy.stages) == len(draft.stages)
    if same:
        # The thresholds do not depend on audits, limits and degrading.
        policy = policy.with_service_of(draft)
        if policy.under_load is not None:
            require_faster(policy, policy.under_load.operating_point)
        points = policy.operating_points, policy.default_operating_point
        now = draft.with_tuning_of(policy).with_operating_points(*points)
        same = replace(now, certificate=policy.certificate) == policy
    if not same or (policy.certificate or {}).get("artefacts") != artefact_hashes(artefacts):
        theirs = f" or their {what}s" if what else ""
        raise UsageError(
            f"the members{theirs} have changed since the thresholds were chosen: run "
            "`cascadebert tune` again"
        )
    return policy


def is_tuned_on(context: BuildContext, policy: Policy) -> bool:
    """Whether a policy's thresholds were chosen on the rows of this build, divided as they are now.

    The settings `duplicates` and `fit_temperature` divide them.
    """
    certificate = policy.certificate or {}
    return (
        certificate.get("data_sha256") == context.rows.sha256()
        and certificate.get("rows") == context.split.counts()
    )
