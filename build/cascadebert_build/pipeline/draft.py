"""The policy of exported members before thresholds are chosen."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cascadebert_core.policy import Policy, StagePolicy

from ..config.schema import CascadeConfig, MemberConfig
from ..errors import UsageError
from .exported import MemberManifest

# The names that transformers gives to unnamed labels.
_UNNAMED = re.compile(r"LABEL_\d+")


def policy_from_members(config: CascadeConfig, manifests: Sequence[MemberManifest]) -> Policy:
    """The policy of a cascade whose stages defer everything.

    Args:
        config: The cascade's settings.
        manifests: Manifests of its members, in order.

    Raises:
        UsageError: Labels disagree, or a member's maximum length is larger than its positions.
    """
    labels = _labels(config, manifests)
    stages = tuple(
        StagePolicy(
            model=config.model_name(member),
            version=1,
            tokenizer=manifest.tokenizer,
            max_length=_max_length(member, manifest),
            max_batch_size=member.max_batch_size,
            buckets=config.buckets(member),
            inputs=manifest.inputs,
            temperature=1.0,
            threshold=None,
            label_indices=_label_indices(labels, manifest, member),
            max_queued_rows=config.runtime.max_queued_rows,
        )
        for member, manifest in zip(config.members, manifests, strict=True)
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


def _labels(config: CascadeConfig, manifests: Sequence[MemberManifest]) -> tuple[str, ...]:
    if config.labels is not None:
        return config.labels
    # A member without label names takes those of one that has them.
    named = [manifest.labels for manifest in manifests if not _unnamed(manifest)]
    return named[0] if named else manifests[0].labels


def _label_indices(
    labels: tuple[str, ...], manifest: MemberManifest, member: MemberConfig
) -> tuple[int, ...]:
    """The index of each of the policy's labels in the member's logits."""
    if set(manifest.labels) == set(labels) and len(manifest.labels) == len(labels):
        return tuple(manifest.labels.index(label) for label in labels)
    if _unnamed(manifest) and len(manifest.labels) == len(labels):
        return tuple(range(len(labels)))
    raise UsageError(
        f"the member {member.name!r} ({manifest.checkpoint}) has the labels "
        f"{list(manifest.labels)}, and the cascade's are {list(labels)}: members must agree on "
        "them as a set"
    )


def _max_length(member: MemberConfig, manifest: MemberManifest) -> int:
    limit = manifest.max_positions
    if limit is not None and member.max_length > limit:
        raise UsageError(
            f"members.{member.name}.max_length is {member.max_length} and {manifest.checkpoint} "
            f"has positions for {limit} tokens: give {limit} or less"
        )
    return member.max_length


def _unnamed(manifest: MemberManifest) -> bool:
    return all(_UNNAMED.fullmatch(label) for label in manifest.labels)
