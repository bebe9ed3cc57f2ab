"""The policy of exported members before thresholds are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cascadebert_core.policy import Policy, StagePolicy
from cascadebert_core.signals import SIGNALS_OF_TASK
from cascadebert_core.task import MULTI_LABEL, SINGLE_LABEL, set_from_text

from ..checkpoints.labels import are_unnamed, unnamed_labels
from ..config.schema import CascadeConfig, MemberConfig, TuneConfig
from ..errors import UsageError
from .exported import MemberManifest, task_of_member


def policy_from_members(config: CascadeConfig, manifests: Sequence[MemberManifest]) -> Policy:
    """The policy of a cascade whose stages defer everything.

    Args:
        config: The cascade's settings.
        manifests: Manifests of its members, in order.

    Raises:
        UsageError: Labels or kinds of answers disagree, [tune] does not fit them, or a member's
            maximum length is larger than its positions.
    """
    members = list(zip(config.members, manifests, strict=True))
    for member, manifest in members:
        check_max_length(member, manifest.checkpoint, manifest.max_positions)
    labels = labels_of_members(config, [(member, each.labels) for member, each in members])
    task = _task(config, manifests)
    _check_tuning(config.tune, task)
    if task == SINGLE_LABEL:
        _refuse_sets(labels)
    stages = tuple(
        StagePolicy(
            model=config.model_name(member),
            version=1,
            tokenizer=manifest.tokenizer,
            max_length=member.max_length,
            max_batch_size=member.max_batch_size,
            buckets=config.buckets(member),
            inputs=manifest.inputs,
            temperature=1.0,
            threshold=None,
            label_indices=label_indices(labels, manifest.labels, member),
            signal=SIGNALS_OF_TASK[task][0],
            max_queued_rows=config.runtime.max_queued_rows,
            windows=member.windows,
        )
        for member, manifest in members
    )
    empty = Policy(
        labels=labels,
        pair=None if config.data is None else config.data.text_pair is not None,
        stages=stages,
        operating_points={},
        default_operating_point="default",
        audit_rate=config.runtime.audit_rate,
        on_drift=config.runtime.on_drift,
        degrade=config.runtime.degrade,
        request_timeout_s=config.runtime.request_timeout_s,
        task=task,
    )
    draft = empty.with_thresholds((1.0,) * (len(stages) - 1))
    # `tune` adds the operating point that it names.
    return (
        draft
        if config.under_load is None
        else replace(draft, under_load=config.under_load.settings())
    )


def labels_of_members(
    config: CascadeConfig, members: Sequence[tuple[MemberConfig, Sequence[str]]]
) -> tuple[str, ...]:
    """The cascade's labels: those of cascade.toml, else those of the first member with names.

    Args:
        config: The cascade's settings.
        members: Each with its labels in the order of its logits.

    Raises:
        UsageError: A member has other labels.
    """
    if config.labels is not None:
        labels = config.labels
    else:
        named = [tuple(names) for _, names in members if not are_unnamed(names)]
        labels = named[0] if named else tuple(members[0][1])
    for member, names in members:
        label_indices(labels, names, member)
    return labels


def _task(config: CascadeConfig, manifests: Sequence[MemberManifest]) -> str:
    """What the members' answers are: what cascade.toml says, else what the checkpoints say."""
    some_have_sets = any(manifest.task == MULTI_LABEL for manifest in manifests)
    wanted = config.task or (MULTI_LABEL if some_have_sets else SINGLE_LABEL)
    for member, manifest in zip(config.members, manifests, strict=True):
        task = task_of_member(config, manifest)
        if task == wanted:
            continue
        what = f"is {task}" if manifest.task else "has no problem_type in its config.json"
        remedy = (
            "remove the key, or give other members"
            if config.task
            else f'if all members have a sigmoid for each label, set task = "{MULTI_LABEL}"'
        )
        whose = "cascade.toml says" if config.task else "another member is"
        raise UsageError(
            f"the member {member.name!r} ({manifest.checkpoint}) {what}, and {whose} {wanted}: "
            f"{remedy}"
        )
    return wanted


def _check_tuning(tune: TuneConfig, task: str) -> None:
    """Refuse keys of [tune] that do not fit the kind of the answers."""
    signals = SIGNALS_OF_TASK[task]
    if tune.signal is not None and tune.signal not in signals:
        raise UsageError(
            f"tune.signal is {tune.signal!r}, and this is a {task} cascade: give "
            f"{' or '.join(signals)}, or leave it out"
        )
    if tune.per_label and task == MULTI_LABEL:
        raise UsageError(
            f"tune.per_label is true, and this is a {task} cascade, whose answers are sets of "
            "labels: leave it out"
        )


def _refuse_sets(labels: Sequence[str]) -> None:
    for label in labels:
        if set_from_text(label) is not None:
            raise UsageError(
                f"the label {label!r} reads like the answer of a multi-label cascade, which is a "
                "JSON array: rename it"
            )


def label_indices(
    labels: Sequence[str], names: Sequence[str], member: MemberConfig
) -> tuple[int, ...]:
    """The index of each of the cascade's labels in a member's logits.

    A member without label names is taken to number them in the cascade's order; see
    `unnamed_members`.

    Raises:
        UsageError: The member has other labels.
    """
    if set(names) == set(labels) and len(names) == len(labels):
        return tuple(names.index(label) for label in labels)
    if are_unnamed(names) and len(names) == len(labels):
        return tuple(names.index(name) for name in unnamed_labels(len(labels)))
    raise UsageError(
        f"the member {member.name!r} ({member.checkpoint}) has the labels {list(names)}, and the "
        f"cascade's are {list(labels)}: members must agree on them as a set; correct id2label in "
        "the member's config.json, or labels in cascade.toml"
    )


def unnamed_members(
    config: CascadeConfig, members: Sequence[tuple[MemberConfig, Sequence[str]]]
) -> list[str]:
    """Names of members whose `LABEL_0` and so on are only taken to be in the others' order."""
    if config.labels is not None or all(are_unnamed(names) for _, names in members):
        return []
    return [member.name for member, names in members if are_unnamed(names)]


def check_max_length(member: MemberConfig, checkpoint: str, limit: int | None) -> None:
    """Refuse a maximum length past a member's positions; None: it has no limit.

    Raises:
        UsageError: The message names both numbers.
    """
    if limit is not None and member.max_length > limit:
        raise UsageError(
            f"members.{member.name}.max_length is {member.max_length} and {checkpoint} "
            f"has positions for {limit} tokens: give {limit} or less"
        )
