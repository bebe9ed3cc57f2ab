"""How the labels of a data file are read: as names, or as indices into the names."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection, Mapping, Sequence

from ..errors import UsageError

LABELS_ARE = ("auto", "names", "indices")

_MOST_NAMES = 12  # in one message

Label = int | str


class UnknownLabel(UsageError):  # noqa: N818
    """A label is neither a name nor an index.

    Attributes:
        label: As it stands in the file.
    """

    def __init__(self, label: Label, message: str) -> None:
        super().__init__(message)
        self.label = label


def index_of_labels(
    labels: Collection[Label],
    names: Sequence[str],
    labels_are: str = "auto",
    index_names: Sequence[str] | None = None,
) -> dict[Label, int]:
    """The index of every label of a file.

    A number and its text are the same label, so all file formats are read alike. With "auto", a
    label that is a name is a name, and a number that is none is an index. If a number is the name
    of one label and the index of another, the whole file decides: it holds names if all of its
    labels are names and not all are indices, and the reverse.

    Args:
        labels: All labels of the file, of which each counts once.
        names: The names, in the order of the indices.
        labels_are: One of `LABELS_ARE`.
        index_names: The names of the source's own indices, as data sets of the hub have them. If
            they are the same names in another order, an index means the source's.

    Raises:
        UnknownLabel: A label is neither, or not what `labels_are` says.
        UsageError: Both readings fit the whole file, and they differ.
    """
    by_name = {name: i for i, name in enumerate(names)}
    own = index_names is not None and set(index_names) == set(names)
    order = index_names if own and index_names is not None else names
    by_index = {str(i): by_name[name] for i, name in enumerate(order)}
    if labels_are == "auto":
        reading = _auto(labels, by_name, by_index)
    else:
        reading = by_name if labels_are == "names" else by_index
    for label in labels:
        if str(label) not in reading:
            raise UnknownLabel(label, _unknown(str(label), names, labels_are, reading))
    return {label: reading[str(label)] for label in labels}


def _auto(
    labels: Collection[Label], by_name: Mapping[str, int], by_index: Mapping[str, int]
) -> Mapping[str, int]:
    texts = {str(label) for label in labels}
    either = {**by_index, **by_name}
    both = sorted(t for t in texts & set(by_name) & set(by_index) if by_name[t] != by_index[t])
    if not both or not texts <= set(either):
        return either
    are_names, are_indices = texts <= set(by_name), texts <= set(by_index)
    if are_names != are_indices:
        return by_name if are_names else by_index
    text = both[0]
    other = next(name for name, i in by_name.items() if i == by_index[text])
    raise UsageError(
        f"the label {text!r} can be the name of label {by_name[text]} or the index of label "
        f"{by_index[text]}, whose name is {other!r}: say which, with labels_are = 'names' or "
        "'indices' under [data] in cascade.toml, or --labels-are"
    )


def _unknown(text: str, names: Sequence[str], labels_are: str, reading: Mapping[str, int]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    if len(names) > _MOST_NAMES:
        shown += f", … ({len(names)} names)"
    known = {
        "auto": f"{shown} (or 0 to {len(names) - 1})",
        "names": shown,
        "indices": f"0 to {len(names) - 1}",
    }[labels_are]
    near = text.removesuffix(".0") if text.removesuffix(".0") in reading else None
    if near is None:
        folded = {_folded(name): name for name in reading}
        found = difflib.get_close_matches(_folded(text), list(folded), 1, 0.8)
        near = folded[found[0]] if found else None
    hint = "" if near is None else f"did you mean {near!r}{_letters(text, near)}? "
    return (
        f"the label {text!r} is none of {known}: {hint}correct the row, or give the names of all "
        "labels"
    )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _letters(text: str, name: str) -> str:
    """The codes of two spellings that look the same on paper; empty if they look different."""
    if unicodedata.normalize("NFKC", text) != unicodedata.normalize("NFKC", name):
        return ""
    return f" (which looks the same: it is {name!a}, and the label is {text!a})"
