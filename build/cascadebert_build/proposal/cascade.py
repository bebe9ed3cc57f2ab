"""A whole cascade from checkpoints and a data file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.policy import Policy
from cascadebert_core.task import MULTI_LABEL
from cascadebert_core.tokenization import Text

from ..checkpoints.checkpoint import config_of_hub_model
from ..checkpoints.inspection import inspect_checkpoint
from ..checkpoints.probe import token_counts
from ..config.fields import is_name
from ..config.label_sets import members_of_set
from ..config.rows import Rows
from ..config.schema import CascadeConfig, DataConfig, MemberConfig
from ..errors import UsageError
from ..pipeline.context import BuildContext
from ..pipeline.preflight import check_labels, expected_policy
from ..pipeline.workspace import workspace_of
from .columns import Ask, GivenColumns, recognised_columns
from .data_file import sample_of_file
from .lengths import Lengths, lengths_of_counts, max_length_of
from .machine import runtime_of_machine
from .members import members_from_text, names_of_members

# Short enough for every checkpoint, while lengths are not known.
_SHORTEST = 3
# The rows whose tokens are counted.
_COUNTED_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user says of a cascade that has no cascade.toml.

    Attributes:
        members: `NAME=CHECKPOINT` or checkpoints, as written.
        data: The data file, or the id of a hub data set.
        data_format: Of the file; None: what its ending tells.
        columns: Columns that are named.
        labels: Names in the order of integer labels; None: the checkpoints' own.
        name: Of the cascade.
    """

    members: tuple[str, ...]
    data: str
    data_format: str | None = None
    columns: GivenColumns = GivenColumns()  # noqa: RUF009 - it is frozen
    labels: tuple[str, ...] | None = None
    name: str = "cascade"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A cascade that was made from checkpoints and data.

    Attributes:
        config: The cascade's settings.
        rows: The held-out rows.
        labels: Of the cascade, in the order of its answers.
        task: One of `cascadebert_core.task.TASKS`.
        lengths: Of the texts, for each member.
        machine: Why the runtime is as it is, in a sentence.
    """

    config: CascadeConfig
    rows: Rows
    labels: tuple[str, ...]
    task: str
    lengths: tuple[Lengths, ...]
    machine: str


def propose(
    wishes: Wishes, folder: Path, *, ask: Ask | None = None, least_members: int = 1
) -> Proposal:
    """Make a cascade: check the members, recognise columns, and choose lengths and runtime.

    The members keep their order.

    Args:
        wishes: What the user says.
        folder: Relative paths are relative to it, and the work folder lies in it.
        ask: Asks if several columns are possible; None: that is an error.
        least_members: Fewer are an error.

    Raises:
        UsageError: A checkpoint or the data cannot be used, labels disagree, or a column is not
            clear.
    """
    if not is_name(wishes.name):
        raise UsageError(
            f"--name {wishes.name!r}: give lower-case letters, digits and hyphens, beginning and "
            "ending with a letter or digit"
        )
    members = members_from_text(wishes.members, folder)
    if len(members) < least_members:
        given = f"only {members[0][1]} is given" if members else "none is given"
        raise UsageError(
            f"a cascade needs {least_members} checkpoints or more, small and large, and {given}: "
            "name another one; `cascadebert train --layers` makes a small member of a large one"
        )
    config = CascadeConfig(
        folder=folder,
        members=tuple(
            MemberConfig(name, source, max_length=_SHORTEST)
            for name, (_, source) in zip(names_of_members(members), members, strict=True)
        ),
        name=wishes.name,
        labels=wishes.labels,
    )
    policy = expected_policy(BuildContext(config, workspace_of(config, None)))
    config = replace(config, data=_data(wishes, folder, policy, ask))
    rows = BuildContext(config, workspace_of(config, None)).rows
    check_labels(rows, policy)
    runtime, machine = runtime_of_machine()
    lengths = _lengths(config, rows.texts)
    config = replace(
        config,
        members=tuple(
            replace(
                member, max_length=max_length_of(of_member.longest, _positions(member.checkpoint))
            )
            for member, of_member in zip(config.members, lengths, strict=True)
        ),
        runtime=runtime,
    )
    return Proposal(config, rows, policy.labels, policy.task, lengths, machine)


def in_order_of_cost(proposal: Proposal, costs: Sequence[float]) -> Proposal:
    """The proposal with its members from the fastest to the slowest.

    Members that have names of their place, such as small and large, get those of the new place.

    Args:
        proposal: As it was made.
        costs: Of each member.
    """
    order = [int(i) for i in np.argsort(np.asarray(costs), kind="stable")]
    members = [proposal.config.members[i] for i in order]
    places = names_of_members([(None, member.checkpoint) for member in members])
    if sorted(member.name for member in members) == sorted(places):
        members = [replace(m, name=name) for m, name in zip(members, places, strict=True)]
    return replace(
        proposal,
        config=replace(proposal.config, members=tuple(members)),
        lengths=tuple(proposal.lengths[i] for i in order),
    )


def _data(wishes: Wishes, folder: Path, policy: Policy, ask: Ask | None) -> DataConfig:
    """The data with its columns."""
    given = wishes.columns
    path = folder / Path(wishes.data).expanduser()
    source = str(path.resolve()) if path.exists() else wishes.data
    is_hub = not path.exists() and given.text is not None and given.label is not None
    if is_hub and "." not in Path(wishes.data).name:
        return DataConfig(
            wishes.data, given.text or "text", given.text_pair or None, given.label or None
        )
    sample: dict[str, Any] = sample_of_file(source, wishes.data_format)
    if policy.task == MULTI_LABEL:
        labels = policy.labels
        sample = {
            column: _flat(values, labels) if _are_sets(values) else values
            for column, values in sample.items()
        }
    columns = recognised_columns(wishes.data, sample, policy.labels, given, ask)
    return DataConfig(
        source,
        columns.text,
        columns.text_pair,
        columns.label,
        format=wishes.data_format,
    )


def _are_sets(values: Sequence[Any]) -> bool:
    """Whether these are lists of labels, in JSON if they are text."""
    return all(
        isinstance(value, (list, tuple)) or str(value).lstrip().startswith("[") for value in values
    )


def _flat(values: Sequence[Any], labels: Sequence[str]) -> list[Any]:
    sets = (tuple(value) if isinstance(value, list) else value for value in values)
    return list(chain.from_iterable(members_of_set(value, labels) for value in sets))


def _lengths(config: CascadeConfig, texts: Sequence[Text]) -> tuple[Lengths, ...]:
    step = -(-len(texts) // _COUNTED_ROWS)
    counts: list[NDArray[np.int64]] = [
        token_counts(config.checkpoint(member), texts[::step]) for member in config.members
    ]
    return tuple(lengths_of_counts(of_member) for of_member in counts)


def _positions(source: str) -> int | None:
    """The positions that a checkpoint has, or fewer; None: it does not say."""
    found = inspect_checkpoint(source)
    raw = config_of_hub_model(source) if found is None else found.config
    stated = [
        raw.get("max_position_embeddings"), None if found is None else found.position_rows
    ]  # fmt: skip
    known = [n for n in stated if isinstance(n, int) and n > 0]
    # RoBERTa's positions start after the padding id.
    return min(known) - (2 if "roberta" in str(raw.get("model_type")) else 0) if known else None
