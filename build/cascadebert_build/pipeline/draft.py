"""The policy of exported members before thresholds are chosen."""

from __future__ import annotations

from collections.abc import Sequence

from cascadebert_core.policy import Policy, StagePolicy

from ..checkpoints.labels import are_unnamed, unnamed_labels
from ..config.schema import CascadeConfig, MemberConfig
from ..errors import UsageError
from .exported import MemberManifest


def policy_from_members(config: CascadeConfig, manifests: Sequence[MemberManifest]) -> Policy:
    """The policy of a cascade whose stages defer everything.

    Args:
        config: The cascade's settings.
        manifests: Manifests of its members, in order.

    Raises:
        UsageError: Labels disagree, or a member's maximum length is larger than its positions.
    """
    members = list(zip(config.members, manifests, strict=True))
    for member, manifest in members:
        check_max_length(member, manifest.checkpoint, manifest.max_positions)
    labels = labels_of_members(config, [(member, each.labels) for member, each in members])
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
            max_queued_rows=config.runtime.max_queued_rows,
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
        degrade=config.runtime.degrade,
        request_timeout_s=config.runtime.request_timeout_s,
    )
    return empty.with_thresholds((1.0,) * (len(stages) - 1))


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
