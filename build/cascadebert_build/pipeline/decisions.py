"""The check of the gate's decisions: the artefacts that serve against the FP32 graphs."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cascadebert_core.policy import Policy
from cascadebert_engine.files import sha256_of

from ..errors import CheckFailed
from ..progress import say, timed
from ..tuning.stage_cost import stage_times_from_json
from ..verification.decisions import MAX_REGROUPED, DecisionReport, compare_decisions
from .artefact import Artefact, ArtefactMaker
from .check_record import has_passed, write_check
from .context import BuildContext
from .logits_cache import LogitsCache
from .quick import decided_rows


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
    chosen = _rows_to_compare(context, policy.certificate)
    regrouped = None
    if len(chosen) < len(context.rows.texts):
        served = [values[chosen] for values in served]
        some = replace(context, given_rows=context.rows.subset(chosen))
        logits = LogitsCache(some, maker)
    elif maker.regroups and not context.quick:
        regrouped = [logits.served(each, regrouped=True) for each in artefacts]
    reference = [logits.reference(each.exported) for each in artefacts]
    is_short = bool(decisions_left_out(context, maker, policy.certificate))
    path = context.workspace.decisions
    with timed("verify", "decisions") as note:
        report = compare_decisions(policy, served, reference, maker.max_flipped, regrouped)
        write_check(path, _key(context, maker, policy, artefacts, quick=is_short), report)
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
    if not maker.name or has_passed(path, _key(context, maker, policy, artefacts)):
        return True
    return context.quick and has_passed(path, _key(context, maker, policy, artefacts, quick=True))


def decisions_left_out(
    context: BuildContext, maker: ArtefactMaker, certificate: Mapping[str, Any] | None
) -> list[str]:
    """What the check of a quick build will leave out."""
    if not (context.quick and maker.name):
        return []
    n, n_all = len(_rows_to_compare(context, certificate)), len(context.rows.texts)
    found = [] if n == n_all else [f"decisions of {n_all - n} of {n_all} rows"]
    return [*found, "decisions in other batches"] if maker.regroups else found


# Changes whenever the check does.
_CHECK_VERSION = 2


def _rows_to_compare(context: BuildContext, certificate: Mapping[str, Any] | None) -> list[int]:
    """Rows whose decisions are compared, ascending: all, or as many as a quick build has time for.

    Args:
        context: The build.
        certificate: With the times of the stages.
    """
    n = len(context.rows.texts)
    if not context.quick:
        return list(range(n))
    stages: dict[str, Any] = (certificate or {}).get("cost") or {}
    of_stages = [stage_times_from_json(stage) for stage in stages.values()]
    ms = sum(times.per_row(max(times.ms)) for times in of_stages)
    return sorted(random.Random(0).sample(range(n), decided_rows(n, ms)))


def _key(
    context: BuildContext,
    maker: ArtefactMaker,
    policy: Policy,
    artefacts: Sequence[Artefact],
    *,
    quick: bool = False,
) -> str:
    """A hash of everything that the check reads, and of whether it left something out."""
    kernels = [each.kernels for each in artefacts]
    return sha256_of(
        policy.id,
        context.rows.sha256(),
        maker.max_flipped,
        maker.regroups,
        MAX_REGROUPED,
        kernels,
        _CHECK_VERSION,
        *(["quick"] if quick else []),
    )
