"""The names of a checkpoint's labels, in the order of its logits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ..errors import UsageError

# The names that transformers gives to unnamed labels.
_UNNAMED = re.compile(r"LABEL_(\d+)")


def labels_of_config(config: Mapping[str, Any], source: str) -> tuple[str, ...]:
    """The label names of a config.json; `LABEL_0` and so on if it has none.

    Args:
        config: The contents of config.json.
        source: The checkpoint, for messages.

    Raises:
        UsageError: `id2label` does not number the labels from 0, names one twice, or `label2id`
            contradicts it.
    """
    id2label = config.get("id2label")
    if id2label is None:
        n = config.get("num_labels") or 2
        return unnamed_labels(n if isinstance(n, int) else 2)
    where = f"the checkpoint {source!r}: id2label in config.json"
    if isinstance(id2label, list):
        raise UsageError(f"{where} is a list: write {_numbered(cast('list[Any]', id2label))}")
    if not isinstance(id2label, Mapping):
        raise UsageError(f'{where} is {id2label!r}: write {{"0": "…", "1": "…"}}')
    names = _by_number(cast("Mapping[Any, Any]", id2label), where)
    numbers = sorted(names)
    labels = tuple(names[number] for number in numbers)
    if numbers != list(range(len(numbers))):
        raise UsageError(
            f"{where} has the numbers {_listed(numbers)}, and logits count from 0 on: write "
            f"{_numbered(labels)}, if that is their order"
        )
    for i, label in enumerate(labels):
        first = labels.index(label)
        if first != i:
            raise UsageError(
                f"{where} gives the labels {first} and {i} one name, {label!r}: rename one, for "
                "answers are names"
            )
    _check_label2id(config.get("label2id"), labels, where)
    return labels


def unnamed_labels(n: int) -> tuple[str, ...]:
    """The names that transformers gives to n unnamed labels."""
    return tuple(f"LABEL_{i}" for i in range(n))


def are_unnamed(labels: Sequence[str]) -> bool:
    """Whether these are `LABEL_0` to `LABEL_n`, in any order."""
    return sorted(labels) == sorted(unnamed_labels(len(labels)))


def _by_number(id2label: Mapping[Any, Any], where: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for key, name in id2label.items():
        try:
            number = int(key)
        except ValueError as exc:
            swapped = all(isinstance(value, int) for value in id2label.values())
            hint = "it looks like label2id; swap names and numbers" if swapped else "give numbers"
            raise UsageError(f"{where} has the key {key!r}: {hint}") from exc
        if isinstance(name, bool) or not isinstance(name, (str, int, float)) or name == "":
            raise UsageError(f"{where} calls label {number} {name!r}: give a name")
        names[number] = str(name)
    return names


def _check_label2id(label2id: object, labels: Sequence[str], where: str) -> None:
    """Refuse other numbers for the same names: one of the two orders is wrong."""
    if not isinstance(label2id, Mapping) or are_unnamed(labels):
        return
    numbers = {str(name): number for name, number in cast("Mapping[Any, Any]", label2id).items()}
    if set(numbers) != set(labels):
        return  # often a relic of the base model; nothing reads it
    for i, label in enumerate(labels):
        if str(numbers[label]) != str(i):
            raise UsageError(
                f"{where} gives {label!r} the number {i}, and label2id gives it {numbers[label]}: "
                "correct the wrong one"
            )


def _numbered(labels: Sequence[Any]) -> str:
    names = {str(i): str(label) for i, label in enumerate(labels[:5])}
    return json.dumps(names, ensure_ascii=False)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (" …" if len(numbers) > 5 else "")
