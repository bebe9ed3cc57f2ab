"""The check of the gate's decisions: the artefacts that serve against the FP32 graphs."""

from __future__ import annotations

from collections.abc import Sequence

from cascadebert_core.policy import Policy
from cascadebert_engine.files import sha256_of

from ..errors import CheckFailed
from ..progress import say, timed
from ..verification.decisions import MAX_REGROUPED, DecisionReport, compare_decisions
from .artefact import Artefact, ArtefactMaker
from .check_record import has_passed, write_check
from .context import BuildContext
from .logits_cache import LogitsCache


def verify_decisions(
    context: BuildContext,
    maker: ArtefactMaker,
    logits: LogitsCache,
    policy: Policy,
    artefacts: Sequence[Artefact],
) -> DecisionReport | None:
    """Compare the decisions of the artefacts that serve with those of the FP32 graphs.

    Args:
        context: The build.
        maker: Of the artefacts.
        logits: Of the artefacts and of the exported graphs.
        policy: With the thresholds that will serve.
        artefacts: One for each stage.

    Returns:
        The report; None if the FP32 graphs themselves serve, or if the check has passed before
        and nothing has changed since.

    Raises:
        CheckFailed: The decisions of more rows differ than the tolerance allows.
    """
    if not maker.name:
        return None
    if not context.force and are_decisions_verified(context, maker, policy, artefacts):
        say("verify", "decisions", "up to date")
        return None
    served = [logits.served(each) for each in artefacts]
    reference = [logits.reference(each.exported) for each in artefacts]
    regrouped = None
    if maker.regroups:
        regrouped = [logits.served(each, regrouped=True) for each in artefacts]
    path = context.workspace.decisions
    with timed("verify", "decisions") as note:
        report = compare_decisions(policy, served, reference, maker.max_flipped, regrouped)
        write_check(path, _key(context, maker, policy, artefacts), report)
        if not report:
            raise CheckFailed(
                f"{'; '.join(report.failures())}: {maker.remedy}, or choose thresholds further "
                f"from where the rows are; see {path}"
            )
        note(str(report))
    return report


def are_decisions_verified(
    context: BuildContext, maker: ArtefactMaker, policy: Policy, artefacts: Sequence[Artefact]
) -> bool:
    """Whether the decisions have passed their check, or need none."""
    path = context.workspace.decisions
    return not maker.name or has_passed(path, _key(context, maker, policy, artefacts))


def _key(
    context: BuildContext, maker: ArtefactMaker, policy: Policy, artefacts: Sequence[Artefact]
) -> str:
    """A hash of everything that the check reads."""
    kernels = [each.kernels for each in artefacts]
    return sha256_of(
        policy.id, context.rows.sha256(), maker.max_flipped, maker.regroups, MAX_REGROUPED, kernels
    )
