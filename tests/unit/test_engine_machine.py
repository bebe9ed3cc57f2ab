"""Versions, and what of a machine a plan must fit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cascadebert_engine.builder import is_strongly_typed
from cascadebert_engine.errors import BuildFailed, PlanMisfit
from cascadebert_engine.machine import Gpu, Machine, version_numbers, version_of_number
from cascadebert_engine.manifest import (
    EngineManifest,
    check_calls,
    check_machine,
    manifest_from_file,
)
from cascadebert_engine.precision import PrecisionEvidence
from cascadebert_engine.preflight import misfits
from cascadebert_engine.profiles import Profile, graph_batches, profiles_of_buckets
from cascadebert_engine.request import BuildOptions

H100 = Machine((Gpu("NVIDIA H100", "9.0", 80 << 30),), None, "13.0", "10.12.0")

MANIFEST = EngineManifest(
    member="small",
    plan_sha256="0",
    plan_bytes=31 << 20,
    tensorrt="10.12.0.36",
    cuda="12.9",
    gpu="NVIDIA H100",
    compute_capability="9.0",
    options=BuildOptions(),
    device_memory_bytes=8 << 20,
    inputs=("input_ids", "attention_mask"),
    n_labels=2,
    profiles=(Profile(32, 8, 64), Profile(128, 8, 64)),
    graph="fp16",
    strongly_typed=True,
    precision=PrecisionEvidence(18, 0, 0, 40),
    checkpoint_sha256="c",
    onnx_sha256="o",
    graph_sha256="g",
)


@pytest.mark.parametrize(
    ("number", "version"),
    [
        (8600, "8.6.0"),
        (8601, "8.6.1"),
        (101200, "10.12.0"),
        (101601, "10.16.1"),
        (110400, "11.4.0"),
    ],
)
def test_the_librarys_number_is_read_as_its_version(number: int, version: str) -> None:
    assert version_of_number(number) == version


def test_versions_compare_as_numbers() -> None:
    assert version_numbers("10.12.0.36") == (10, 12, 0)
    assert version_numbers("10.14.1.48.post1") == (10, 14, 1)
    assert version_numbers("11") == (11, 0, 0)
    assert version_numbers("10.9.0") < version_numbers("10.12.0")
    with pytest.raises(ValueError, match="is not a version"):
        version_numbers("unknown")


@pytest.mark.parametrize("version", ["10.12.0.36", "10.16.1.11", "11.4.0.106"])
def test_strong_typing_from_10_12_on(version: str) -> None:
    assert is_strongly_typed(version)


@pytest.mark.parametrize("version", ["8.6.0", "8.6.1.post1"])
def test_types_are_hints_in_8_6(version: str) -> None:
    assert not is_strongly_typed(version)


@pytest.mark.parametrize("version", ["7.2.3", "8.5.3", "9.1.0", "10.0.1", "10.11.0.33", "12.0.0"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(BuildFailed, match=r"is not supported: use 10\.12 to 11"):
        is_strongly_typed(version)


def test_the_machine_that_built_it_fits() -> None:
    check_machine(MANIFEST, H100)
    # The fourth number is NVIDIA's build of the same library.
    check_machine(MANIFEST, replace(H100, tensorrt="10.12.0.99"))


@pytest.mark.parametrize(
    ("machine", "sentence"),
    [
        (
            replace(H100, tensorrt="10.13.0"),
            r"by TensorRT 10\.12\.0\.36 and .* has 10\.13\.0",
        ),
        (replace(H100, tensorrt=None), "needs TensorRT"),
        (replace(H100, gpus=(), gpu_problem="no driver"), "needs a GPU, and no driver"),
        (
            replace(H100, gpus=(Gpu("NVIDIA A100", "8.0", 80 << 30),)),
            r"compute capability 9\.0 \(NVIDIA H100\) and GPU 0 here has 8\.0 \(NVIDIA A100\)",
        ),
        (
            replace(H100, gpus=(Gpu("NVIDIA GH200", "9.0", 96 << 30),)),
            r"here has 9\.0 \(NVIDIA GH200\)",
        ),
        (replace(H100, cuda="11.8"), r"built with CUDA 12\.9 and the driver here runs 11\.8"),
    ],
)
def test_another_machine_does_not_fit(machine: Machine, sentence: str) -> None:
    with pytest.raises(PlanMisfit, match=sentence):
        check_machine(MANIFEST, machine)


def test_a_second_gpu_must_exist() -> None:
    with pytest.raises(PlanMisfit, match="on GPU 1, and this machine has 1"):
        check_machine(MANIFEST, H100, device=1)


def test_compatibility_that_was_asked_for_is_used() -> None:
    options = BuildOptions(hardware_compatibility="ampere_plus", version_compatible=True)
    portable = replace(MANIFEST, options=options)
    for capability in ("8.0", "8.9", "9.0", "12.0"):
        check_machine(portable, replace(H100, gpus=(Gpu("another", capability, 80 << 30),)))
    with pytest.raises(PlanMisfit, match="compute capability"):
        check_machine(portable, replace(H100, gpus=(Gpu("T4", "7.5", 16 << 30),)))
    check_machine(portable, replace(H100, tensorrt="10.16.1"))
    for version in ("10.11.0", "11.0.0"):  # older, and another major
        with pytest.raises(PlanMisfit, match="was built by TensorRT"):
            check_machine(portable, replace(H100, tensorrt=version))


def test_another_model_of_the_same_capability_fits_where_that_was_asked_for() -> None:
    options = BuildOptions(hardware_compatibility="same_compute_capability")
    gh200 = replace(H100, gpus=(Gpu("NVIDIA GH200", "9.0", 96 << 30),))
    check_machine(replace(MANIFEST, options=options), gh200)


def published(repository: Path, backend: str, instances: int = 1) -> Path:
    """A repository with one stage that holds a plan."""
    version = repository / "sst2_small" / "1"
    version.mkdir(parents=True)
    plan = b"plan"
    (version / "model.plan").write_bytes(plan)
    sha256 = hashlib.sha256(plan).hexdigest()
    replace(MANIFEST, plan_sha256=sha256, plan_bytes=len(plan)).write(version / "engine.json")
    if backend == "python":
        (version / "model.py").write_text("")
    group = f"instance_group {{\n  count: {instances}\n  kind: KIND_GPU\n}}\n"
    (repository / "sst2_small" / "config.pbtxt").write_text(group)
    stage = {
        "model": "sst2_small", "version": 1, "inputs": list(MANIFEST.inputs),
        "label_indices": [0, 1], "buckets": [32, 128], "max_batch_size": 64,
    }  # fmt: skip
    (repository / "sst2" / "1").mkdir(parents=True)
    text = json.dumps({"stages": [stage]})
    (repository / "sst2" / "1" / "policy.json").write_text(text)
    return repository


def test_tritons_own_backend_needs_every_gpu_to_fit(tmp_path: Path) -> None:
    both = replace(H100, gpus=(*H100.gpus, Gpu("T4", "7.5", 16 << 30)))
    assert misfits(published(tmp_path / "a", "python"), machine=both) == []
    (sentence,) = misfits(published(tmp_path / "b", "tensorrt"), machine=both)
    assert "GPU 1 here has 7.5 (T4)" in sentence


def test_all_instances_with_their_scratch_must_fit_the_memory(tmp_path: Path) -> None:
    # Two profiles of 8 MiB each, three instances: 48 MiB and the plans.
    repository = published(tmp_path / "a", "tensorrt", instances=3)
    small, enough = (
        replace(H100, gpus=(Gpu("NVIDIA H100", "9.0", mib << 20),)) for mib in (48, 49)
    )
    (sentence,) = misfits(repository, machine=small)
    assert "take 48 MiB" in sentence
    assert "lower instances or max_batch_size" in sentence
    assert misfits(repository, machine=enough) == []


@pytest.mark.parametrize("stages", [None, [{}], ["x"], 3])
def test_a_policy_that_says_nothing_is_left_to_the_cascade(tmp_path: Path, stages: Any) -> None:
    repository = published(tmp_path / "a", "tensorrt")
    (repository / "sst2" / "1" / "policy.json").write_text(json.dumps({"stages": stages}))
    assert misfits(repository, machine=H100) == []


@pytest.mark.parametrize(
    "damage",
    [
        {"tensorrt": ""},
        {"profiles": []},
        {"plan_bytes": "many"},
        {"options": None},
        {"device_memory_bytes": None},
    ],
)
def test_a_damaged_manifest_is_a_sentence(tmp_path: Path, damage: dict[str, Any]) -> None:
    repository = published(tmp_path / "a", "tensorrt")
    path = repository / "sst2_small" / "1" / "engine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    (sentence,) = misfits(repository, machine=H100)
    assert "is not an engine's manifest" in sentence
    assert "cascadebert compile" in sentence


def test_calls_that_the_profiles_hold() -> None:
    calls: dict[str, Any] = {
        "inputs": MANIFEST.inputs,
        "n_labels": 2,
        "buckets": (32, 128),
        "max_batch_size": 64,
    }
    check_calls(MANIFEST, **calls)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"inputs": ("input_ids",)}, "and the stage calls it with"),
        ({"n_labels": 3}, "for 3 labels"),
        ({"buckets": (32, 64)}, r"profiles for the lengths \[32, 128\] .* with 64 tokens"),
        ({"max_batch_size": 65}, "lower max_batch_size to 64"),
    ]
    for change, sentence in changes:
        with pytest.raises(PlanMisfit, match=sentence):
            check_calls(MANIFEST, **{**calls, **change})


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path / "engine.json")
    assert manifest_from_file(tmp_path / "engine.json") == MANIFEST


def test_profiles_and_graphs_cover_every_call() -> None:
    assert profiles_of_buckets([16, 32], 4, 8) == (Profile(16, 4, 8), Profile(32, 4, 8))
    assert Profile(16, 1, 1).batches == (1,)
    with pytest.raises(ValueError, match="opt_batch is 9"):
        profiles_of_buckets([16], 9, 8)
    assert graph_batches(1) == (1,)
    assert graph_batches(8) == (1, 2, 4, 8)
    assert graph_batches(48) == (1, 2, 4, 8, 16, 32, 48)
