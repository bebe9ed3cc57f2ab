"""The manifest beside a plan: what it was built from, for which machine, and whether it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import PlanMisfit
from .files import read_json, sha256_of_file, write_json
from .machine import Gpu, Machine, version_numbers
from .precision import PrecisionEvidence
from .profiles import Profile
from .request import BuildOptions

SCHEMA_VERSION = 1
ENGINE_MANIFEST = "engine.json"
PLAN = "model.plan"

_REBUILD = "build it again on this machine with `cascadebert compile`, then publish"

_AMPERE = (8, 0)


@dataclass(frozen=True, slots=True)
class EngineManifest:
    """A plan's origin, machine and calls.

    Attributes:
        member: The member's name in cascade.toml.
        plan_sha256: The hash of the plan.
        plan_bytes: The size of the plan.
        tensorrt: The full version that built it, "10.12.0.36".
        cuda: The version of the CUDA runtime that it was built with, "12.9".
        gpu: The model of the GPU that built it.
        compute_capability: The compute capability of that GPU.
        options: How it was built.
        device_memory_bytes: The scratch memory of one execution context.
        inputs: Its input tensors, INT32 of shape (batch, length).
        n_labels: The columns of its output.
        profiles: The shapes that it can be called with.
        graph: "fp16" (strongly typed) or "fp32" (8.6, with the FP16 flag).
        strongly_typed: Whether the graph's types are binding.
        precision: What the engine inspector shows.
        checkpoint_sha256: The hash of the checkpoint that it was built from.
        onnx_sha256: The hash of the exported graph.
        graph_sha256: The hash of the graph that TensorRT read.
    """

    member: str
    plan_sha256: str
    plan_bytes: int
    tensorrt: str
    cuda: str
    gpu: str
    compute_capability: str
    options: BuildOptions
    device_memory_bytes: int
    inputs: tuple[str, ...]
    n_labels: int
    profiles: tuple[Profile, ...]
    graph: str
    strongly_typed: bool
    precision: PrecisionEvidence
    checkpoint_sha256: str
    onnx_sha256: str
    graph_sha256: str

    def write(self, path: Path) -> None:
        """Write the manifest. Write it after the plan, so that it proves a complete one."""
        write_json(path, {"schema_version": SCHEMA_VERSION, **asdict(self)})

    def profile_for(self, length: int) -> int | None:
        """Return the index of the profile of a padded length; None without such a profile."""
        lengths = [profile.length for profile in self.profiles]
        return lengths.index(length) if length in lengths else None


def manifest_from_file(path: Path) -> EngineManifest:
    """Read a manifest.

    Raises:
        PlanMisfit: It is missing, damaged or of another version.
    """
    raw = read_json(path)
    if raw is None:
        raise PlanMisfit(f"{path} is missing or damaged: {_REBUILD}")
    version = raw.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise PlanMisfit(
            f"{path} has the schema version {version!r} and this package knows {SCHEMA_VERSION}: "
            f"{_REBUILD}"
        )
    try:
        return _manifest(raw)
    except (KeyError, TypeError, ValueError) as exc:
        raise PlanMisfit(f"{path} is not an engine's manifest ({exc}): {_REBUILD}") from exc


def check_plan(plan: Path, manifest: EngineManifest) -> None:
    """Check that the plan is the one that the manifest was written for.

    Raises:
        PlanMisfit: It is missing or damaged.
    """
    if not plan.is_file():
        raise PlanMisfit(f"{plan} is missing: {_REBUILD}")
    if plan.stat().st_size != manifest.plan_bytes or sha256_of_file(plan) != manifest.plan_sha256:
        raise PlanMisfit(
            f"{plan} is damaged: its {plan.stat().st_size} bytes do not hash to the manifest's "
            f"{manifest.plan_sha256[:12]}…; copy it again, or {_REBUILD}"
        )


def check_machine(manifest: EngineManifest, machine: Machine, device: int = 0) -> None:
    """Check that a GPU and TensorRT of this machine can run the plan.

    Args:
        manifest: The manifest of the plan.
        machine: The machine that will run it.
        device: The index into the machine's GPUs.

    Raises:
        PlanMisfit: It does not fit; the message says why, with the remedy.
    """
    what = f"the plan of {manifest.member!r}"
    if machine.gpu_problem is not None:
        raise PlanMisfit(f"{what} needs a GPU, and {machine.gpu_problem}")
    if device >= len(machine.gpus):
        raise PlanMisfit(
            f"{what} is to run on GPU {device}, and this machine has {len(machine.gpus)}: see "
            "CUDA_VISIBLE_DEVICES"
        )
    if machine.tensorrt is None:
        raise PlanMisfit(
            f"{what} needs TensorRT, which is missing here: install the extra 'tensorrt', "
            "or serve in NVIDIA's Triton container"
        )
    built, here = version_numbers(manifest.tensorrt), version_numbers(machine.tensorrt)
    forward = manifest.options.version_compatible and built[0] == here[0] and here >= built
    if built != here and not forward:
        raise PlanMisfit(
            f"{what} was built by TensorRT {manifest.tensorrt} and this machine has "
            f"{machine.tensorrt}: {_REBUILD} (TensorRT and Triton images must have the same tag)"
        )
    if machine.cuda is not None and _major(machine.cuda) < _major(manifest.cuda):
        raise PlanMisfit(
            f"{what} was built with CUDA {manifest.cuda} and the driver here runs {machine.cuda} "
            f"at most: update the driver, or {_REBUILD}"
        )
    gpu = machine.gpus[device]
    if not _fits_gpu(manifest, gpu):
        raise PlanMisfit(
            f"{what} was built for compute capability {manifest.compute_capability} "
            f"({manifest.gpu}) and GPU {device} here has {gpu.compute_capability} ({gpu.name}): "
            f"{_REBUILD}, or build with hardware_compatibility = 'same_compute_capability' or "
            "'ampere_plus'"
        )


def check_calls(
    manifest: EngineManifest,
    *,
    inputs: Sequence[str],
    n_labels: int,
    buckets: Sequence[int],
    max_batch_size: int,
) -> None:
    """Check that the plan accepts every call that a stage will make.

    Raises:
        PlanMisfit: It does not; the message names the profile or the limit.
    """
    what = f"the plan of {manifest.member!r}"
    again = "compile it again, then publish"
    if tuple(inputs) != manifest.inputs or n_labels != manifest.n_labels:
        raise PlanMisfit(
            f"{what} takes {list(manifest.inputs)} and gives {manifest.n_labels} logits, and the "
            f"stage calls it with {list(inputs)} for {n_labels} labels: {again}"
        )
    for length in buckets:
        if manifest.profile_for(length) is None:
            held = [profile.length for profile in manifest.profiles]
            raise PlanMisfit(
                f"{what} has profiles for the lengths {held} and the stage calls it with "
                f"{length} tokens: change buckets or max_length, or {again}"
            )
    most = min(profile.max_batch for profile in manifest.profiles)
    if max_batch_size > most:
        raise PlanMisfit(
            f"{what} holds {most} rows in a call and max_batch_size is {max_batch_size}: lower "
            f"max_batch_size to {most}, or {again}"
        )


def needed_bytes(manifest: EngineManifest, instances: int) -> int:
    """Return the GPU memory of a stage in bytes: weights, and scratch memory of each profile."""
    of_one = manifest.plan_bytes + len(manifest.profiles) * manifest.device_memory_bytes
    return instances * of_one


def _fits_gpu(manifest: EngineManifest, gpu: Gpu) -> bool:
    here = tuple(int(part) for part in gpu.compute_capability.split("."))
    level = manifest.options.hardware_compatibility
    if level == "ampere_plus":
        return here >= _AMPERE
    same = gpu.compute_capability == manifest.compute_capability
    # Kernels are timed on one GPU model, and NVIDIA warns of errors on another.
    return same and (level == "same_compute_capability" or gpu.name == manifest.gpu)


def _major(version: str) -> int:
    return version_numbers(version)[0]


def _manifest(raw: dict[str, Any]) -> EngineManifest:
    fields: dict[str, Any] = {
        **raw,
        "inputs": tuple(raw["inputs"]),
        "profiles": tuple(Profile(**profile) for profile in raw["profiles"]),
        "precision": PrecisionEvidence(**raw["precision"]),
        "options": BuildOptions(**raw["options"]),
    }
    manifest = EngineManifest(**fields)
    version_numbers(manifest.tensorrt)
    version_numbers(manifest.cuda)
    numbers: list[Any] = [manifest.plan_bytes, manifest.device_memory_bytes, manifest.n_labels]
    if not manifest.profiles or not all(isinstance(number, int) for number in numbers):
        raise ValueError("it has no profiles, or a size that is not a number")
    return manifest
