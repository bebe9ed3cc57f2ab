"""The cascades that the supervisor finds in a model repository."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from cascadebert_build.repository.model_config import (
    config_from_text,
    config_to_text,
    with_versions,
)
from cascadebert_supervisor.errors import StartError
from cascadebert_supervisor.flags import command_of_server
from cascadebert_supervisor.repository import ServedCascade, cascade_of, cascades_of_repository
from cascadebert_supervisor.settings import Settings
from tests.support.supervised import ROOT
from tests.support.supervised import write_cascade as publish


def test_cascades_are_found_by_their_policy(tmp_path: Path) -> None:
    publish(tmp_path, "b", ["b_small", "b_large"])
    publish(tmp_path, "a", ["b_small"], pair=True)
    (tmp_path / "other" / "1").mkdir(parents=True)  # a model that is no cascade
    found = cascades_of_repository(tmp_path)
    assert found == [
        ServedCascade("a", ("b_small",), pair=True),
        ServedCascade("b", ("b_small", "b_large"), pair=False),
    ]
    assert cascades_of_repository(tmp_path, ["b"]) == found[1:]


def publish_version(repository: Path, name: str, version: int, stages: dict[str, int]) -> None:
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    pins = [{"model": model, "version": number} for model, number in stages.items()]
    (folder / "policy.json").write_text(
        json.dumps({"id": f"policy {version}", "pair": False, "stages": pins})
    )
    for model, number in stages.items():
        (repository / model / str(number)).mkdir(parents=True, exist_ok=True)
        (repository / model / "config.pbtxt").write_text("")


def choose(repository: Path, name: str, *versions: int) -> None:
    config = config_from_text((ROOT / "model_repository/cascade/config.pbtxt").read_text())
    config.parameters["operating_points"].string_value = '{"x":\n    versions: 7\n}'
    (repository / name / "configs").mkdir(exist_ok=True)
    (repository / name / "configs" / "published.pbtxt").write_text(
        config_to_text(with_versions(config, versions) if versions else config)
    )


def test_the_versions_that_were_chosen_last_are_served(tmp_path: Path) -> None:
    publish_version(tmp_path, "a", 9, {"a_small": 1, "a_large": 1})
    publish_version(tmp_path, "a", 10, {"a_small": 1, "a_huge": 2})
    newest = ServedCascade("a", ("a_small", "a_huge"), False, "policy 10", (10,))
    assert cascades_of_repository(tmp_path) == [newest], "10 comes after 9"
    choose(tmp_path, "a")  # an older release left it to the server
    assert cascades_of_repository(tmp_path) == [newest]
    choose(tmp_path, "a", 9)
    old = ServedCascade("a", ("a_small", "a_large"), False, "policy 9", (9,))
    assert cascades_of_repository(tmp_path) == [old]
    choose(tmp_path, "a", 9, 10)
    (both,) = cascades_of_repository(tmp_path)
    assert both == replace(newest, versions=(9, 10), other_stages=("a_large",))
    command = command_of_server(Settings(key="k" * 20), [both], frozenset())
    loads = [flag.partition("=")[2] for flag in command if flag.startswith("--load-model")]
    assert loads == ["a_small", "a_huge", "a_large", "a"]
    choose(tmp_path, "a", 3)  # deleted since
    assert cascades_of_repository(tmp_path) == [newest]
    assert cascade_of(tmp_path, "a", [9]) == old, "versions may be named, as a running server does"


def test_a_stage_version_that_is_missing_is_named(tmp_path: Path) -> None:
    publish_version(tmp_path, "a", 1, {"a_small": 1})
    publish_version(tmp_path, "a", 2, {"a_small": 2})
    (tmp_path / "a_small" / "2").rmdir()
    with pytest.raises(StartError, match=r"names version 2 of the stage 'a_small'.*publish the"):
        cascades_of_repository(tmp_path)
    choose(tmp_path, "a", 1)
    assert cascades_of_repository(tmp_path)[0].versions == (1,)


def test_nothing_to_serve_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="mount the model repository at"):
        cascades_of_repository(tmp_path / "no")
    with pytest.raises(StartError, match="holds no published cascade: run `cascadebert build"):
        cascades_of_repository(tmp_path)
    publish(tmp_path, "a", ["a_small"])
    with pytest.raises(StartError, match=r"'b', which .* does not have: it has a"):
        cascades_of_repository(tmp_path, ["a", "b"])


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ("{}", "has no stages"),
        ('{"stages": [{"model": "../x"}]}', "a stage without a model"),
        ('{"stages": ["x"]}', "a stage without a model"),
        ('{"stages": [{"model": "gone"}]}', "names the stage 'gone', which is not in"),
    ],
)
def test_a_cascade_that_is_not_whole_is_refused(tmp_path: Path, policy: str, message: str) -> None:
    publish(tmp_path, "a", ["a_small"])
    (tmp_path / "a" / "1" / "policy.json").write_text(policy)
    with pytest.raises(StartError, match=f"{message}.*publish the cascade again"):
        cascades_of_repository(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_closed_folder_is_named(tmp_path: Path) -> None:
    publish(tmp_path, "a", ["a_small"])
    (tmp_path / "a").chmod(0)
    with pytest.raises(StartError, match="cannot be read by user"):
        cascades_of_repository(tmp_path)
