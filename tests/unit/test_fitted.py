"""The container chooses instances and threads as `serve` does, and serves them through links."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from cascadebert_build.config.schema import RuntimeConfig
from cascadebert_build.repository import deployment
from cascadebert_build.repository.deployment import PlacementOverrides, deployment_of
from cascadebert_build.repository.model_config import config_from_text, config_to_text
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_build.repository.publish import StageFiles, publish_cascade
from cascadebert_supervisor.config_text import ConfigText
from cascadebert_supervisor.fitted import described, fitted_configs
from cascadebert_supervisor.overlay import Overlay
from cascadebert_supervisor.repository import CHOICE, cascades_of_repository
from tests.support.policies import make_policy, make_stage, write_tokenizer

NAME = "news"
GPU: dict[str, Any] = {"device": "gpu"}
RUNTIMES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "numbers of cascade.toml": {"instances": 3, "threads": 2, "cascade_instances": 2},
    "threads alone": {"threads": 3},
    "inline": {"placement": "inline"},
    "inline-first": {"placement": "inline-first"},
    "onnxruntime": {"backend": "onnxruntime"},
    "gpu": GPU,
    "gpu, instances": {**GPU, "instances": 2},
}


def published(folder: Path, **runtime: Any) -> Path:
    """A repository with the cascade NAME of two stages."""
    folder.mkdir(parents=True, exist_ok=True)
    policy = make_policy(0.9)
    onnx = folder / "model.onnx"
    onnx.write_bytes(b"onnx")
    tokenizer = write_tokenizer(folder / "tokenizer")
    files = [StageFiles(stage, onnx, tokenizer) for stage in policy.stages]
    publish_cascade(folder / "repository", NAME, policy, files, RuntimeConfig(**runtime))
    return folder / "repository"


@pytest.mark.parametrize("n_cores", [1, 2, 8, 40])
@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
def test_the_container_places_models_as_serve_does(
    runtime: dict[str, Any], n_cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = published(tmp_path, **runtime)
    monkeypatch.setattr(deployment, "cores", lambda: n_cores)
    cascade = ModelRepository.read(repository).cascade(NAME)
    serve = deployment_of(cascade, cascade.served, PlacementOverrides())
    changed = fitted_configs(repository, cascades_of_repository(repository), n_cores)
    for model, wanted in {**serve.stages, NAME: serve.config}.items():
        text = (
            changed[model].text if model in changed else (repository / model / CHOICE).read_text()
        )
        config = config_from_text(text)
        assert config.instance_group == wanted.instance_group, model
        ours, theirs = dict(config.parameters), dict(wanted.parameters)
        if "threads" not in ours:  # a parameter that nothing reads
            theirs.pop("threads", None)
        assert {k: v.string_value for k, v in ours.items()} == {
            k: v.string_value for k, v in theirs.items()
        }, model


def test_only_what_changes_has_another_configuration(tmp_path: Path) -> None:
    repository = published(tmp_path, instances=3, threads=2, placement="process")
    assert fitted_configs(repository, cascades_of_repository(repository), 8) == {}


def test_the_log_names_instances_and_threads(tmp_path: Path) -> None:
    repository = published(tmp_path)
    changed = fitted_configs(repository, cascades_of_repository(repository), 16)
    stages = [stage.model for stage in make_policy(0.9).stages]
    # The first stage runs in the cascade's process.
    assert described(changed) == {stages[0]: "1x2", stages[1]: "4x2", NAME: "1x1"}


def test_the_tracked_configuration_can_be_read_and_changed() -> None:
    path = Path(__file__).parents[2] / "model_repository/cascade/config.pbtxt"
    before, config = config_from_text(path.read_text()), ConfigText(path.read_text())
    assert (config.instances, config.backend, config.on_cpu) == (1, "python", True)
    config.instances = 7
    config.set_parameter("first_calls", "5")
    config.set_parameter("new", "word")
    after = config_from_text(config.text)
    before.instance_group[0].count = 7
    before.parameters["first_calls"].string_value = "5"
    before.parameters["new"].string_value = "word"
    assert config_to_text(after) == config_to_text(before)
    assert (config.parameter("new"), config.parameter("newer")) == ("word", None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        'name: "x"',
        "instance_group { kind: KIND_CPU }",
        "instance_group { kind: KIND_CPU count: 1 } instance_group { kind: KIND_GPU count: 1 }",
        "instance_group { kind: KIND_CPU count: 1",
        'name: "x',
    ],
)
def test_a_text_that_is_not_understood_is_left_alone(text: str) -> None:
    with pytest.raises(ValueError):
        ConfigText(text)


def test_brackets_and_names_in_strings_are_no_structure() -> None:
    text = 'parameters { key: "a" value { string_value: "} count: 9 \\" { count: 8" } }\n'
    config = ConfigText(text + "instance_group { count: 2 kind: KIND_CPU }")
    config.instances = 3
    assert config.text.startswith(text)
    assert config_from_text(config.text).instance_group[0].count == 3


def test_links_follow_what_is_published_and_deleted(tmp_path: Path) -> None:
    repository = published(tmp_path)
    stage = make_stage(0, threshold=0.9, n_labels=2).model
    changed = fitted_configs(repository, cascades_of_repository(repository), 8)
    folder = tmp_path / "links"
    (folder / "left-over").mkdir(parents=True)
    overlay = Overlay(repository, folder, changed)
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in repository.iterdir())
    assert ConfigText((folder / NAME / CHOICE).read_text()).text == changed[NAME].text
    assert (folder / stage / "1" / "model.onnx").read_bytes() == b"onnx"
    (repository / stage / "2").mkdir()
    (repository / stage / ".3.new").mkdir()
    (repository / "other").mkdir()
    overlay.follow()
    assert (folder / stage / "2").is_dir()
    assert not (folder / stage / ".3.new").exists()
    assert (folder / "other").resolve() == repository / "other"
    shutil.rmtree(repository / stage / "2")
    shutil.rmtree(repository / "other")
    overlay.follow()
    assert not (folder / stage / "2").is_symlink()
    assert not (folder / "other").is_symlink()
    assert (folder / stage / CHOICE).is_file()
