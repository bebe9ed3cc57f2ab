"""What a cascade's published configuration says of its inputs and labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cascadebert_build.config.schema import RuntimeConfig
from cascadebert_build.repository.deployment import PlacementOverrides, deployment_of
from cascadebert_build.repository.model_config import (
    config_from_text,
    parameter,
    read_config,
)
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_build.repository.publish import StageFiles, publish_cascade
from cascadebert_build.repository.served_versions import choose_served_versions
from cascadebert_client._label_order import labels_from_parameters, orders_from_parameters
from cascadebert_core.policy import Policy
from tests.support.policies import make_policy, write_tokenizer

TEXT = ("TEXT", False)
PAIR = ("TEXT_PAIR", False)
OPTIONAL_PAIR = ("TEXT_PAIR", True)

Publish = Callable[[Policy], None]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def publish(repository: Path, tmp_path: Path) -> Publish:
    tokenizer = write_tokenizer(tmp_path / "source")
    onnx = tmp_path / "source" / "model.onnx"
    onnx.write_bytes(b"onnx")

    def publish_as_mine(policy: Policy) -> None:
        files = [StageFiles(stage, onnx, tokenizer) for stage in policy.stages]
        publish_cascade(repository, "mine", policy, files, RuntimeConfig())

    return publish_as_mine


def started(repository: Path) -> Any:
    """The configuration that a start takes."""
    return config_from_text((repository / "mine" / "configs" / "published.pbtxt").read_text())


def deployed(repository: Path, *versions: int) -> Any:
    """The configuration that `serve` and `load` send."""
    cascade = ModelRepository.read(repository).cascade("mine")
    return deployment_of(cascade, versions, PlacementOverrides()).config


def inputs(config: Any) -> list[tuple[str, bool]]:
    return [(each.name, each.optional) for each in config.input]


def labels_file(config: Any) -> str:
    (name,) = [each.label_filename for each in config.output if each.label_filename] or [""]
    return name


def parameters(config: Any) -> dict[str, str]:
    return {name: value.string_value for name, value in config.parameters.items()}


@pytest.mark.parametrize(
    ("pair", "expected"),
    [(False, [TEXT]), (True, [TEXT, PAIR]), (None, [TEXT, OPTIONAL_PAIR])],
)
def test_a_cascade_declares_the_inputs_of_its_task(
    repository: Path, publish: Publish, pair: bool | None, expected: list[tuple[str, bool]]
) -> None:
    publish(replace(make_policy(0.9), pair=pair))
    for config in (
        started(repository), deployed(repository, 1), read_config(repository / "mine")
    ):  # fmt: skip
        assert inputs(config) == expected
        assert {tuple(each.dims) for each in config.input} == {(1,)}


def test_versions_of_both_kinds_share_an_optional_input(repository: Path, publish: Publish) -> None:
    publish(replace(make_policy(0.9), pair=True))
    publish(replace(make_policy(0.8), pair=False))
    assert inputs(started(repository)) == [TEXT]
    choose_served_versions(repository, "mine", [1, 2])
    assert inputs(started(repository)) == [TEXT, OPTIONAL_PAIR]
    assert inputs(deployed(repository, 1, 2)) == [TEXT, OPTIONAL_PAIR]
    choose_served_versions(repository, "mine", [1])
    assert inputs(started(repository)) == [TEXT, PAIR]


def test_labels_are_a_file_and_a_parameter(repository: Path, publish: Publish) -> None:
    publish(replace(make_policy(0.9), labels=("négatif", "positif")))
    for config in (started(repository), deployed(repository, 1)):
        assert labels_file(config) == "1/labels.txt"
        assert labels_from_parameters(parameters(config)) == ("négatif", "positif")
        assert parameter(config, "labels_by_policy") is None
    text = (repository / "mine" / "1" / "labels.txt").read_text(encoding="utf-8")
    assert text == "négatif\npositif\n"


def test_each_served_version_has_its_own_order(repository: Path, publish: Publish) -> None:
    publish(replace(make_policy(0.9), labels=("a", "b")))
    publish(replace(make_policy(0.8), labels=("b", "a")))
    ids = [ModelRepository.read(repository).cascade("mine").policy(v).id for v in (1, 2)]
    choose_served_versions(repository, "mine", [1, 2])
    for config in (started(repository), deployed(repository, 1, 2)):
        assert labels_file(config) == "2/labels.txt"
        found = orders_from_parameters(parameters(config))
        assert found == {ids[0]: ("a", "b"), ids[1]: ("b", "a")}
    choose_served_versions(repository, "mine", [1])
    assert labels_file(started(repository)) == "1/labels.txt"
    assert orders_from_parameters(parameters(started(repository))) == {ids[0]: ("a", "b")}


def test_a_label_of_two_lines_has_no_file(repository: Path, publish: Publish) -> None:
    publish(replace(make_policy(0.9), labels=("a\nb", "c")))
    assert labels_file(started(repository)) == ""
    assert not (repository / "mine" / "1" / "labels.txt").exists()
    assert labels_from_parameters(parameters(started(repository))) == ("a\nb", "c")


def test_a_version_of_an_earlier_release_is_served_without_the_file(
    repository: Path, publish: Publish
) -> None:
    publish(make_policy(0.9))
    (repository / "mine" / "1" / "labels.txt").unlink()
    choose_served_versions(repository, "mine", [1])
    assert labels_file(started(repository)) == labels_file(deployed(repository, 1)) == ""
    publish(make_policy(0.9))
    assert labels_file(started(repository)) == "2/labels.txt"


@pytest.mark.parametrize(
    "found", [{}, {"labels": "["}, {"labels": "3"}, {"labels": "[1]"}, {"labels_by_policy": "[]"}]
)
def test_what_is_not_understood_gives_no_order(found: dict[str, str]) -> None:
    assert orders_from_parameters({"policy": "x", **found}) == {}
    assert labels_from_parameters({"policy": "x", **found}) == ()


def test_the_timeline_is_declared_if_all_served_versions_make_it(
    repository: Path, publish: Publish
) -> None:
    def declared(config: Any) -> bool:
        return [each.name for each in config.output].count("TIMELINE") == 1

    publish(make_policy(0.9))
    assert declared(read_config(repository / "mine"))
    assert declared(started(repository))
    assert declared(deployed(repository, 1))
    (repository / "mine/1/cascadebert_core/timeline.py").unlink()  # as of an earlier release
    publish(make_policy(0.8))
    assert declared(started(repository))
    choose_served_versions(repository, "mine", [1, 2])
    assert not declared(started(repository))
    assert not declared(deployed(repository, 1, 2))
    assert declared(deployed(repository, 2))


def test_parameters_are_json(repository: Path, publish: Publish) -> None:
    publish(make_policy(0.9))
    assert json.loads(parameters(started(repository))["labels"]) == list(make_policy(0.9).labels)
