"""Labels that are numbers: names or indices, by one rule for all file formats."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from cascadebert_build.config.labels import UnknownLabel, index_of_labels
from cascadebert_build.config.rows import Rows, rows_from_source
from cascadebert_build.config.schema import DataConfig
from cascadebert_build.errors import UsageError

STARS = ("1", "2", "3", "4", "5")


def rows_of(folder: Path, suffix: str, labels: list[int], **keys: Any) -> Rows:
    path = folder / f"rows{suffix}"
    if suffix == ".jsonl":
        lines = [json.dumps({"text": "x", "label": label}) for label in labels]
    else:
        mark = "," if suffix == ".csv" else "\t"
        lines = [f"text{mark}label", *(f"x{mark}{label}" for label in labels)]
    path.write_text("\n".join(lines) + "\n")
    return rows_from_source(DataConfig(str(path), **keys))


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (("1", "2"), [1, 2], [0, 1]),  # 2 is no index: names
        (("1", "2"), [0, 1], [0, 1]),  # 0 is no name: indices
        (("-1", "1"), [-1, 1], [0, 1]),
        (("0", "1"), [0, 1], [0, 1]),  # both readings agree
        (("neg", "pos"), [1, 0], [1, 0]),
        (STARS, [5, 1, 3], [4, 0, 2]),
        (STARS, [0, 4], [0, 4]),
    ],
)
def test_every_format_is_read_alike(
    tmp_path: Path, suffix: str, names: tuple[str, ...], labels: list[int], expected: list[int]
) -> None:
    assert rows_of(tmp_path, suffix, labels).label_indices(names).tolist() == expected


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("names", "labels"), [(("1", "2"), [1, 1]), (("1", "0"), [0, 1]), (STARS, [1, 2, 4])]
)
def test_two_readings_that_differ_are_refused_until_one_is_chosen(
    tmp_path: Path, suffix: str, names: tuple[str, ...], labels: list[int]
) -> None:
    with pytest.raises(UsageError, match="labels_are") as caught:
        rows_of(tmp_path, suffix, labels).label_indices(names)
    assert "the name of label" in str(caught.value)
    assert "the index of label" in str(caught.value)
    by_name = rows_of(tmp_path, suffix, labels, labels_are="names").label_indices(names)
    by_index = rows_of(tmp_path, suffix, labels, labels_are="indices").label_indices(names)
    assert [names[i] for i in by_name] == [str(label) for label in labels]
    assert by_index.tolist() == labels


def test_a_part_of_the_rows_is_read_as_the_whole_file() -> None:
    rows = Rows(("x", "y", "z"), ("1", "2", "5"), "test")
    assert rows.label_indices(STARS).tolist() == [0, 1, 4]
    assert rows.subset([0, 1]).label_indices(STARS).tolist() == [0, 1], "not ambiguous"
    assert rows.subset([1, 0]).subset([1]).label_indices(STARS).tolist() == [0]


def test_a_name_and_a_number_that_is_no_name_may_stand_in_one_file() -> None:
    assert index_of_labels(["pos", 0], ["neg", "pos"]) == {"pos": 1, 0: 0}
    with pytest.raises(UsageError, match="labels_are"):
        index_of_labels(["1", "0", "other"], ["1", "2", "other"])


@pytest.mark.parametrize(
    ("label", "names", "near"),
    [("Positive", ("negative", "positive"), "positive"), ("1.0", ("a", "b"), "1"), (7, STARS, "")],
)
def test_an_unknown_label_is_named_with_the_nearest_one(
    label: int | str, names: tuple[str, ...], near: str
) -> None:
    with pytest.raises(UnknownLabel) as caught:
        index_of_labels([label], names)
    assert caught.value.label == label
    assert (f"did you mean {near!r}" in str(caught.value)) == bool(near)
    with pytest.raises(UnknownLabel):
        index_of_labels(["0"], ["neg", "pos"], "names")
    with pytest.raises(UnknownLabel):
        index_of_labels(["neg"], ["neg", "pos"], "indices")


@pytest.mark.parametrize(
    ("label", "name"), [("u\u0308ber", "über"), ("no\u00a0way", "no way"), ("ﬁne", "fine")]
)
def test_spellings_that_look_the_same_are_told_apart(label: str, name: str) -> None:
    with pytest.raises(UnknownLabel) as caught:
        index_of_labels([label], [name, "other"])
    assert ascii(label) in str(caught.value)
    assert ascii(name) in str(caught.value)
    with pytest.raises(UnknownLabel) as caught:
        index_of_labels(["othr"], [name, "other"])
    assert "looks the same" not in str(caught.value)


def test_many_names_are_not_all_listed() -> None:
    with pytest.raises(UnknownLabel) as caught:
        index_of_labels(["other"], [f"intent {i}" for i in range(150)])
    assert len(str(caught.value)) < 400


class HubColumn:
    """`datasets.ClassLabel`, as far as it is read."""

    def __init__(self, names: list[str]) -> None:
        self.names = names


class HubRecords(list[dict[str, object]]):
    """`datasets.Dataset`, as far as it is read."""

    column_names = ("text", "label")
    features: ClassVar = {"text": object(), "label": HubColumn(["positive", "negative"])}


def test_the_indices_of_a_hub_data_set_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    records = HubRecords([{"text": "fine", "label": 0}, {"text": "dull", "label": 1}])
    hub = ModuleType("datasets")
    monkeypatch.setattr(hub, "load_dataset", lambda *_, **__: records, raising=False)
    monkeypatch.setitem(sys.modules, "datasets", hub)
    rows = rows_from_source(DataConfig("org/reviews"))
    assert rows.label_indices(["negative", "positive"]).tolist() == [1, 0]
    assert rows.label_indices(["positive", "negative"]).tolist() == [0, 1]
    assert rows.subset([1]).label_indices(["negative", "positive"]).tolist() == [0]
    assert rows.label_indices(["no", "yes"]).tolist() == [0, 1], "other names: as in a file"
