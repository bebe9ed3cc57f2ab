"""Versions in a model repository: new ones beside the old, pinned, kept, pruned, and refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cascadebert_build.commands.arguments import versions_from_text
from cascadebert_build.config.schema import RuntimeConfig
from cascadebert_build.errors import UsageError
from cascadebert_build.repository.deployment import PlacementOverrides, deployment_of
from cascadebert_build.repository.model_config import (
    config_from_text,
    config_to_text,
    conflict_of_configs,
    merges_lengths,
    parameter,
    read_config,
    stage_config,
    versions_of_config,
)
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_build.repository.publish import StageFiles, publish_cascade
from cascadebert_build.repository.published_cascade import PublishedCascade
from cascadebert_build.repository.served_versions import choose_served_versions
from cascadebert_build.server.serve import serve_cascades
from cascadebert_core.contract import CALLS_IN_FLIGHT, FIRST_CALLS
from cascadebert_core.policy import Policy
from tests.support.policies import make_policy, make_stage, write_tokenizer

Publish = Callable[..., list[str]]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def publish(repository: Path, tmp_path: Path) -> Publish:
    """Publishes a cascade with these artefacts, small to large."""
    tokenizer = write_tokenizer(tmp_path / "source")

    def run(
        policy: Policy,
        *artefacts: str,
        name: str = "mine",
        runtime: RuntimeConfig = RuntimeConfig(),  # noqa: B008 - frozen
        **options: Any,
    ) -> list[str]:
        files: list[StageFiles] = []
        for stage, content in zip(policy.stages, artefacts or ("small", "large"), strict=True):
            onnx = tmp_path / "source" / f"{content}.onnx"
            onnx.write_text(content)
            files.append(StageFiles(stage, onnx, tokenizer))
        return list(publish_cascade(repository, name, policy, files, runtime, **options).written)

    return run


def threshold(value: float) -> Policy:
    policy = make_policy(value)
    stages = (replace(s, model=s.model.replace("test", "mine")) for s in policy.stages)
    return replace(policy, stages=tuple(stages))


def mine(repository: Path, name: str = "mine") -> PublishedCascade:
    return ModelRepository.read(repository).cascade(name)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_new_thresholds_are_a_new_version_and_the_old_one_stays_whole(
    repository: Path, publish: Publish
) -> None:
    publish(threshold(0.9))
    before = contents(repository / "mine" / "1")
    assert publish(threshold(0.8)) == ["mine"]
    assert contents(repository / "mine" / "1") == before
    assert mine(repository).versions == (1, 2)
    assert mine(repository).policy() == threshold(0.8)
    new = contents(repository / "mine" / "2")
    assert {name for name in new if new[name] != before.get(name)} == {"policy.json"}
    assert new.keys() == before.keys()
    # Stages that did not change have their version, and there is no other.
    assert mine(repository).stages([2]) == {"mine_0": {1}, "mine_1": {1}}
    assert versions_of_config(read_config(repository / "mine_1")) == [1]
    everything = contents(repository)
    assert publish(threshold(0.8)) == []
    assert contents(repository) == everything


def test_a_new_member_is_a_new_version_that_the_policy_pins(
    repository: Path, publish: Publish
) -> None:
    publish(threshold(0.9))
    old = contents(repository / "mine_1" / "1")
    assert publish(threshold(0.9), "small", "larger") == ["mine_1", "mine"]
    assert contents(repository / "mine_1" / "1") == old
    assert (repository / "mine_1" / "2" / "model.onnx").read_text() == "larger"
    assert mine(repository).stages([1]) == {"mine_0": {1}, "mine_1": {1}}
    assert mine(repository).stages([2]) == {"mine_0": {1}, "mine_1": {2}}
    # Whatever is loaded with config.pbtxt alone finds all that kept versions call.
    assert versions_of_config(read_config(repository / "mine_1")) == [1, 2]
    # The same pins are another policy, and so another id.
    ids = {mine(repository).policy(version).id for version in (1, 2)}
    assert len(ids) == 2


def test_publishing_the_old_again_calls_the_old_stage(repository: Path, publish: Publish) -> None:
    publish(threshold(0.9))
    publish(threshold(0.9), "small", "larger")
    assert publish(threshold(0.9)) == ["mine"]
    assert mine(repository).policy(3) == mine(repository).policy(1)
    assert mine(repository).versions == (1, 2, 3)


def test_the_last_few_are_kept_and_stages_that_nothing_calls_go(
    repository: Path, publish: Publish
) -> None:
    for number in range(1, 6):
        publish(threshold(0.9), "small", f"large {number}", keep=3)
    assert mine(repository).versions == (3, 4, 5)
    assert mine(repository).stages([5]) == {"mine_0": {1}, "mine_1": {5}}
    assert sorted(p.name for p in (repository / "mine_1").iterdir() if p.is_dir()) == [
        "3", "4", "5", "configs",
    ]  # fmt: skip
    assert (repository / "mine_0" / "1").is_dir(), "every version calls it"
    assert versions_of_config(read_config(repository / "mine_1")) == [3, 4, 5]
    publish(threshold(0.9), "small", "large 5", keep=1)
    assert mine(repository).versions == (5,)
    assert versions_of_config(read_config(repository / "mine_1")) == [5]
    assert not [path for path in repository.rglob(".*") if path.is_dir()], "nothing half-deleted"
    with pytest.raises(UsageError, match="--keep 0: give a number from 1 on"):
        publish(threshold(0.9), keep=0)


def test_a_member_that_left_goes_with_the_last_version_that_calls_it(
    repository: Path, publish: Publish
) -> None:
    publish(threshold(0.9))
    alone = threshold(0.9)
    single = replace(
        alone, stages=(replace(alone.stages[0], threshold=None),), operating_points={"default": ()}
    )
    publish(single, "small", keep=2)
    assert (repository / "mine_1").is_dir()
    publish(replace(single, audit_rate=0.1), "small", keep=2)
    assert not (repository / "mine_1").exists()
    assert mine(repository).versions == (2, 3)


def test_a_version_that_a_start_serves_is_kept_however_old(
    repository: Path, publish: Publish
) -> None:
    publish(threshold(0.9))
    publish(threshold(0.8), keep=2)
    choose_served_versions(repository, "mine", [1])
    publish(threshold(0.7), keep=2)
    assert mine(repository).versions == (1, 2, 3)
    # Now the newest is what a start serves.
    publish(threshold(0.6), keep=2)
    assert mine(repository).versions == (3, 4)


def test_what_the_next_start_serves_is_never_deleted(repository: Path, publish: Publish) -> None:
    publish(threshold(0.9))
    publish(threshold(0.8), "small", "larger")
    choose_served_versions(repository, "mine", [1])
    assert publish(threshold(0.8), "small", "larger", keep=1) == []
    assert mine(repository).versions == (1, 2)
    assert mine(repository).served == (1,)
    assert (repository / "mine_1" / "1").is_dir()


def test_stages_that_another_cascade_calls_stay(repository: Path, publish: Publish) -> None:
    publish(threshold(0.9))
    publish(threshold(0.9), name="yours")
    for number in range(4):
        publish(threshold(0.9), "small", f"large {number}", keep=1)
    assert mine(repository, "yours").stages([1]) == {"mine_0": {1}, "mine_1": {1}}
    assert mine(repository).versions == (5,)
    assert sorted(p.name for p in (repository / "mine_1").glob("[0-9]*")) == ["1", "5"]
    assert versions_of_config(read_config(repository / "mine_1")) == [1, 5]


def test_another_release_of_the_code_is_a_new_version(repository: Path, publish: Publish) -> None:
    publish(threshold(0.9))
    core = repository / "mine" / "1" / "cascadebert_core" / "gate.py"
    core.write_text(core.read_text() + "# of an earlier release\n")
    assert publish(threshold(0.9)) == ["mine"]
    assert mine(repository).versions == (1, 2)
    assert core.read_text().endswith("# of an earlier release\n")
    cached = repository / "mine" / "2" / "cascadebert_core" / "__pycache__"
    cached.mkdir()
    (cached / "gate.cpython-310.pyc").write_bytes(b"compiled")
    assert publish(threshold(0.9)) == []


def test_a_damaged_stage_version_is_written_again_as_itself(
    repository: Path, publish: Publish
) -> None:
    publish(threshold(0.9))
    publish(threshold(0.9), "small", "larger")
    (repository / "mine_1" / "2" / "model.onnx").write_text("cut")
    assert publish(threshold(0.9), "small", "larger") == ["mine_1"]
    assert (repository / "mine_1" / "2" / "model.onnx").read_text() == "larger"
    assert mine(repository).versions == (1, 2)


def test_a_repository_of_an_earlier_release_goes_on(repository: Path, publish: Publish) -> None:
    """Its stages have a manifest of one version, and its description leaves the version open."""
    publish(threshold(0.9))
    from cascadebert_engine.files import read_json, write_json

    path = repository / "mine_1" / "cascadebert.json"
    versions = (read_json(path) or {})["versions"]
    write_json(path, {"key": "0" * 64, "files": versions["1"]["files"]})
    (repository / "mine" / "configs" / "published.pbtxt").write_text(
        'name: "mine"\nversion_policy { latest { num_versions: 1 } }\n'
    )
    assert mine(repository).served == (1,)
    assert publish(threshold(0.8), "small", "larger") == ["mine_1", "mine"]
    assert mine(repository).stages([2]) == {"mine_0": {1}, "mine_1": {2}}


def test_a_larger_batch_serves_old_versions_and_new(repository: Path, publish: Publish) -> None:
    def with_batch(rows: int, large: str) -> list[str]:
        policy = threshold(0.9)
        stages = (policy.stages[0], replace(policy.stages[1], max_batch_size=rows))
        return publish(replace(policy, stages=stages), "small", large)

    with_batch(8, "large")
    with_batch(32, "large")
    assert read_config(repository / "mine_1").max_batch_size == 32
    # A policy never sends more than it says itself: the older ones still need the 32.
    with_batch(4, "larger")
    assert read_config(repository / "mine_1").max_batch_size == 32
    assert mine(repository).policy().stages[1].max_batch_size == 4
    assert versions_of_config(read_config(repository / "mine_1")) == [1, 2]


def test_instances_change_for_all_versions_and_make_none(
    repository: Path, publish: Publish
) -> None:
    publish(threshold(0.9))
    publish(threshold(0.9), "small", "larger")
    runtime = RuntimeConfig(instances=3, max_queue_delay_us=100)
    written = publish(threshold(0.9), "small", "larger", runtime=runtime)
    assert written == ["mine_0", "mine_1", "mine"]
    assert mine(repository).versions == (1, 2)
    config = read_config(repository / "mine")
    assert [parameter(config, key) for key in (CALLS_IN_FLIGHT, FIRST_CALLS)] == ["3", "3"]
    assert read_config(repository / "mine_1").instance_group[0].count == 3


def test_versions_that_cannot_share_a_configuration_are_refused(
    repository: Path, publish: Publish
) -> None:
    publish(threshold(0.9))
    policy = threshold(0.9)
    fewer = replace(policy.stages[1], inputs=("input_ids", "attention_mask"))
    policy = replace(policy, stages=(policy.stages[0], fewer))
    before = contents(repository)
    with pytest.raises(
        UsageError, match=r"mine_1 keeps version 1.*\(input\).*another name.*--keep 1"
    ):
        publish(policy, "small", "without token types")
    assert contents(repository) == before, "nothing is written before the check"
    # Both ways out that the message names.
    renamed = replace(policy, stages=(policy.stages[0], replace(fewer, model="mine_2")))
    assert publish(renamed, "small", "without token types") == ["mine_2", "mine"]
    assert publish(policy, "small", "without token types", keep=1) == ["mine_1", "mine"]
    assert len(read_config(repository / "mine_1").input) == 2
    assert mine(repository).versions == (3,)
    assert not (repository / "mine_2").exists()


def test_a_version_that_a_large_keep_spares_must_share_the_configuration(
    repository: Path, publish: Publish
) -> None:
    policy = threshold(0.9)
    fewer = replace(policy.stages[1], inputs=("input_ids", "attention_mask"))
    publish(policy)
    for value in (0.8, 0.7):
        stages = (threshold(value).stages[0], replace(fewer, model="mine_2"))
        publish(replace(threshold(value), stages=stages), keep=5)
    with pytest.raises(UsageError, match=r"mine_1 keeps version 1"):
        publish(
            replace(policy, stages=(policy.stages[0], fewer)),
            "small",
            "without token types",
            keep=5,
        )


TENSORRT: dict[str, Any] = {"engine": "tensorrt", "precision": "fp16", "device": "gpu"}
STAGE = make_stage(0, threshold=0.9)


@pytest.mark.parametrize(
    ("old", "new", "conflict"),
    [
        ((STAGE, {}), (replace(STAGE, max_batch_size=64), {}), None),
        ((STAGE, {}), (replace(STAGE, buckets=(8, 12), max_length=12), {}), None),
        ((STAGE, {}), (STAGE, {"backend": "onnxruntime"}), "backend: python and onnxruntime"),
        ((STAGE, {}), (replace(STAGE, label_indices=(0, 1, 2)), {}), "output"),
        ((STAGE, {}), (STAGE, {"device": "gpu"}), "model_warmup"),
        (
            (STAGE, {"device": "gpu"}),
            (replace(STAGE, buckets=(8, 12), max_length=12), {"device": "gpu"}),
            "model_warmup",
        ),
        (
            (STAGE, TENSORRT),
            (replace(STAGE, max_batch_size=64), TENSORRT),
            "max_batch_size: 8 and 64",
        ),
        (
            (STAGE, {**TENSORRT, "backend": "tensorrt", "cuda_graphs": True}),
            (STAGE, {**TENSORRT, "backend": "tensorrt"}),
            "optimization",
        ),
    ],
)  # fmt: skip
def test_what_versions_of_a_stage_may_differ_in(
    old: tuple[Any, Any], new: tuple[Any, Any], conflict: str | None
) -> None:
    configs = [stage_config(stage, RuntimeConfig(**runtime)) for stage, runtime in (old, new)]
    assert conflict_of_configs(*configs) == conflict


def test_plans_with_other_profiles_need_models_of_their_own() -> None:
    runtime = RuntimeConfig(backend="tensorrt", **TENSORRT)
    configs = [stage_config(STAGE, runtime, profiles) for profiles in (2, 3)]
    assert conflict_of_configs(*configs) == "instance_group"


# --- what a start serves


def test_a_start_serves_the_newest_until_others_are_chosen(
    repository: Path, publish: Publish
) -> None:
    publish(threshold(0.9))
    publish(threshold(0.9), "small", "larger")

    def started(model: str) -> list[int]:
        from cascadebert_build.repository.model_config import config_from_text

        text = (repository / model / "configs" / "published.pbtxt").read_text()
        return versions_of_config(config_from_text(text))

    assert mine(repository).served == (2,)
    assert (started("mine"), started("mine_0"), started("mine_1")) == ([2], [1], [2])
    assert choose_served_versions(repository, "mine", [1])
    assert (started("mine"), started("mine_1")) == ([1], [1])
    assert publish(threshold(0.9), "small", "larger") == [], "nothing new, nothing chosen"
    assert mine(repository).served == (1,)
    choose_served_versions(repository, "mine", [1, 2])
    assert (started("mine"), started("mine_1")) == ([1, 2], [1, 2])
    publish(threshold(0.5))
    assert mine(repository).served == (3,)


def test_stages_of_two_cascades_start_with_what_both_call(
    repository: Path, publish: Publish
) -> None:
    publish(threshold(0.9))
    publish(threshold(0.9), name="yours")
    publish(threshold(0.9), "small", "larger")
    config = repository / "mine_1" / "configs" / "published.pbtxt"
    assert "versions: 1\n    versions: 2" in config.read_text()


def test_the_plan_pins_versions_and_keeps_what_runs(
    repository: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cascadebert_build.repository import deployment as plan

    monkeypatch.setattr(plan, "cores", lambda: 8)
    apart = RuntimeConfig(placement="process")
    publish(threshold(0.9), runtime=apart)
    publish(threshold(0.8), "small", "larger", runtime=apart)
    fresh = deployment_of(mine(repository), [2], PlacementOverrides())
    assert [config.instance_group[0].count for config in fresh.stages.values()] == [4, 4]
    assert versions_of_config(fresh.config) == [2]
    running = dict(fresh.stages)
    running["mine_1"].instance_group[0].count = 2
    kept = deployment_of(mine(repository), [1, 2], PlacementOverrides(), running)
    assert [config.instance_group[0].count for config in kept.stages.values()] == [4, 2]
    assert kept.config.parameters["calls_in_flight"].string_value == "2"
    assert kept.config.parameters["first_calls"].string_value == "4"
    # What a call without a version gets.
    assert kept.config.parameters["policy"].string_value == (mine(repository).policy(2).id)
    overrides = PlacementOverrides({"mine_1": 3}, {"": 2})
    overridden = deployment_of(mine(repository), [1], overrides, running)
    assert overridden.stages["mine_1"].instance_group[0].count == 3
    assert overridden.stages["mine_1"].parameters["threads"].string_value == "2"


def test_the_first_stage_runs_in_the_cascades_process_unless_something_else_is_said(
    repository: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cascadebert_build.repository import deployment as plan

    monkeypatch.setattr(plan, "cores", lambda: 8)

    def inline(
        instances: dict[str, int] | None = None, running: Any = None
    ) -> tuple[str | None, int]:
        """Which stages, and the instances of the first stage's own model."""
        overrides = PlacementOverrides(instances or {})
        deployed = deployment_of(mine(repository), [1], overrides, running)
        count = deployed.stages["mine_0"].instance_group[0].count
        return parameter(deployed.config, "inline"), count

    publish(threshold(0.9))
    assert parameter(read_config(repository / "mine"), "inline") is None, "for a bare tritonserver"
    assert inline() == ("first", 1)
    fresh = deployment_of(mine(repository), [1], PlacementOverrides())
    assert fresh.config.parameters["first_calls"].string_value == "4"
    again = deployment_of(
        mine(repository), [1], PlacementOverrides(), {**fresh.stages, "mine": fresh.config}
    )
    assert config_to_text(again.config) == config_to_text(fresh.config), "a load changes nothing"
    # Numbers of the first stage are of processes, and each process of the cascade holds the member.
    assert inline({"mine_0": 3}) == ("none", 3)
    assert inline({"": 3}) == ("none", 3)
    assert inline({"mine": 2}) == ("none", 4)
    assert inline({"mine_1": 3}) == ("first", 1)
    apart = deployment_of(mine(repository), [1], PlacementOverrides({"mine_0": 3}))
    assert inline(running={**apart.stages, "mine": apart.config}) == ("none", 3)
    publish(threshold(0.9), runtime=RuntimeConfig(placement="inline-first"))
    assert inline() == ("first", 1)
    assert inline({"mine_0": 3}) == ("first", 3)
    publish(threshold(0.9))
    # What an earlier release published has no code for it.
    shutil.rmtree(repository / "mine" / "1" / "cascadebert_core")
    (repository / "mine" / "1" / "cascadebert_core").mkdir()
    assert inline() == ("none", 4)
    publish(threshold(0.9), name="given", runtime=RuntimeConfig(instances=3))
    given = ModelRepository.read(repository).cascade("given")
    assert parameter(deployment_of(given, [1], PlacementOverrides()).config, "inline") == "none"


def test_a_version_whose_code_takes_one_length_keeps_its_batches(
    repository: Path, publish: Publish
) -> None:
    gpu = RuntimeConfig(device="gpu", engine="tensorrt", precision="fp16")
    publish(threshold(0.9), runtime=gpu)
    assert merges_lengths(read_config(repository / "mine_0"))
    for file in (repository / "mine_0").rglob("*.pbtxt"):  # as an earlier release published it
        config = config_from_text(file.read_text())
        for each in config.input:
            each.allow_ragged_batch = False
        file.write_text(config_to_text(config))
    publish(threshold(0.8), "smaller", "large", runtime=gpu)
    assert ModelRepository.read(repository).stage("mine_0").folders == (1, 2)
    assert not merges_lengths(read_config(repository / "mine_0"))
    publish(threshold(0.7), "smallest", "large", runtime=gpu, keep=1)
    assert merges_lengths(read_config(repository / "mine_0")), "the last of its kind has gone"


def test_the_cascades_own_instances_are_published_fitted_kept_and_overridden(
    repository: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cascadebert_build.repository import bls_folder
    from cascadebert_build.repository import deployment as plan

    monkeypatch.setattr(bls_folder, "cores", lambda: 8)
    monkeypatch.setattr(plan, "cores", lambda: 16)

    def instances(overrides: dict[str, int] | None = None, running: Any = None) -> int:
        placement = PlacementOverrides(overrides or {})
        deployed = deployment_of(mine(repository), [1], placement, running)
        return deployed.config.instance_group[0].count

    def published() -> int:
        return read_config(repository / "mine").instance_group[0].count

    gpu = RuntimeConfig(device="gpu", engine="tensorrt", precision="fp16")
    publish(threshold(0.9), runtime=gpu)
    assert (published(), instances()) == (2, 4), "chosen for each machine"
    assert instances({"": 3}) == 4, "a number for all stages is not the cascade's"
    assert instances({"mine": 3}) == 3
    running = deployment_of(mine(repository), [1], PlacementOverrides({"mine": 3}))
    assert instances(running={"mine": running.config}) == 3
    publish(threshold(0.9), runtime=replace(gpu, cascade_instances=5))
    assert (published(), instances()) == (5, 5)
    assert instances({"mine": 1}) == 1


def test_on_a_cpu_the_cascade_has_one_instance_unless_more_are_asked_for(
    repository: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cascadebert_build.repository import deployment as plan

    monkeypatch.setattr(plan, "cores", lambda: 64)
    publish(threshold(0.9))
    assert deployment_of(
        mine(repository), [1], PlacementOverrides()
    ).config.instance_group[0].count == 1  # fmt: skip
    publish(threshold(0.9), runtime=RuntimeConfig(cascade_instances=2))
    assert deployment_of(
        mine(repository), [1], PlacementOverrides()
    ).config.instance_group[0].count == 2  # fmt: skip


def test_instances_that_a_cascade_cannot_have_are_refused(
    repository: Path, publish: Publish
) -> None:
    publish(threshold(0.9), runtime=RuntimeConfig(placement="inline"))
    with pytest.raises(UsageError, match="--instances mine=2: its stages run in its own process"):
        deployment_of(mine(repository), [1], PlacementOverrides({"mine": 2}))
    policy = threshold(0.9)
    stages = tuple(replace(stage, max_queued_rows=2) for stage in policy.stages)
    publish(replace(policy, stages=stages), name="yours")
    with pytest.raises(UsageError, match=r"--instances yours=3: .* 2 rows waiting"):
        deployment_of(
            ModelRepository.read(repository).cascade("yours"),
            [1],
            PlacementOverrides({"yours": 3}),
        )


def test_overrides_for_unknown_models_and_threads_of_a_cascade_are_refused() -> None:
    PlacementOverrides({"mine": 2, "mine_0": 1, "": 1}, {"mine_0": 2}).require_models(
        ["mine_0"], ["mine"]
    )
    for overrides, message in (
        (PlacementOverrides({"other": 2}), "--instances other=…: the stages are mine_0, the casc"),
        (PlacementOverrides({}, {"mine": 2}), "--threads mine=…: the stages are mine_0"),
    ):
        with pytest.raises(UsageError, match=message):
            overrides.require_models(["mine_0"], ["mine"])


def test_versions_that_there_are_not_are_named(repository: Path, publish: Publish) -> None:
    publish(threshold(0.9))
    publish(threshold(0.8))
    with (
        pytest.raises(UsageError, match="mine has no version 7: published and kept are 1, 2"),
        serve_cascades(repository, versions={"mine": [1, 7]}),
    ):
        pass
    with (
        pytest.raises(UsageError, match="--versions theirs=…: the cascades are mine"),
        serve_cascades(repository, versions={"theirs": [1]}),
    ):
        pass


def test_versions_on_the_command_line() -> None:
    assert versions_from_text("2") == [2]
    assert versions_from_text("2,1,2") == [1, 2]
    for text in ("", "0", "1,", "newest", "-1"):
        with pytest.raises(UsageError, match=f"--versions '{text}': give a version"):
            versions_from_text(text)
