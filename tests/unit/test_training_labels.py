"""Names of labels that are numbers, before a training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cascadebert_build.config.rows import Rows
from cascadebert_build.errors import UsageError
from cascadebert_build.training import config as training_config
from cascadebert_build.training.config import label_names


class BaseConfig:
    """A base's config.json, as far as it is read."""

    def __init__(self, *names: str) -> None:
        self.id2label = dict(enumerate(names))


def names_of(
    monkeypatch: pytest.MonkeyPatch, rows: Rows, *base: str, given: list[str] | None = None
) -> tuple[str, ...]:
    monkeypatch.setattr(training_config, "config_from_source", lambda _: BaseConfig(*base))
    return label_names(rows, "base", given)


def test_the_names_of_a_base_are_in_the_order_of_their_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = BaseConfig()
    config.id2label = {1: "POS", 0: "NEG"}
    monkeypatch.setattr(training_config, "config_from_source", lambda _: config)
    assert label_names(rows_of(0, 1), "base") == ("NEG", "POS")


def rows_of(*labels: int | str) -> Rows:
    return Rows(("x",) * len(labels), labels, "test")


@pytest.mark.parametrize("kind", [int, str])
def test_numbers_take_the_names_that_fit(
    monkeypatch: pytest.MonkeyPatch, kind: type[int] | type[str]
) -> None:
    zero, one, two = (kind(n) for n in (0, 1, 2))
    assert names_of(monkeypatch, rows_of(zero, one), "no", "yes") == ("no", "yes")
    assert names_of(monkeypatch, rows_of(zero, one, two), "no", "yes") == (
        "LABEL_0",
        "LABEL_1",
        "LABEL_2",
    )
    assert names_of(monkeypatch, rows_of(one, two), "1", "2") == ("1", "2"), "names of the base"
    hub = replace(rows_of(zero, one), index_names=("neg", "pos"))
    assert names_of(monkeypatch, hub, "LABEL_0", "LABEL_1") == ("neg", "pos")
    assert names_of(monkeypatch, rows_of(-1, 1), "a", "b") == ("-1", "1")


def test_numbers_that_do_not_count_from_0_are_refused_until_they_are_called_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stars = rows_of("10", "1", "2")
    with pytest.raises(UsageError, match=r"test, row 1: the label 10 .* --labels-are names"):
        names_of(monkeypatch, stars, "no", "yes")
    names = names_of(monkeypatch, replace(stars, labels_are="names"), "no", "yes")
    assert names == ("1", "2", "10")
    assert stars.label_indices(names).tolist() == [2, 0, 1]
    assert names_of(monkeypatch, stars, "no", "yes", given=["10", "2", "1"]) == ("10", "2", "1")
