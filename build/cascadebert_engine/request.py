"""The request for an engine: a JSON file that takes a build to the machine with the GPU."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import BuildFailed
from .files import read_json, sha256_of_file, write_json
from .profiles import Profile

SCHEMA_VERSION = 1
ENGINE_REQUEST = "engine-request.json"

HARDWARE_COMPATIBILITY = ("none", "ampere_plus", "same_compute_capability")


@dataclass(frozen=True, slots=True)
class Graph:
    """An ONNX file beside the request.

    Attributes:
        file: The name of the file.
        sha256: The hash of the file.
        opset: The opset of the default domain.
        half_share: The share of matrix products that are in FP16.
    """

    file: str
    sha256: str
    opset: int
    half_share: float


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How the engine is built.

    Attributes:
        workspace_mib: The most scratch memory that a kernel may use; 0 for the device's limit.
        optimization_level: TensorRT's scale of 0 to 5; its default is 3.
        hardware_compatibility: "none" binds the plan to the GPU model, "same_compute_capability" to
            its compute capability, and "ampere_plus" to 8.0 and newer. The last two cost speed.
        version_compatible: Whether newer TensorRT of the same major version can run the plan.
    """

    workspace_mib: int = 0
    optimization_level: int = 3
    hardware_compatibility: str = "none"
    version_compatible: bool = False


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """An engine to build.

    Attributes:
        member: The member's name in cascade.toml.
        inputs: The INT32 tensors of shape (batch, length).
        n_labels: The columns of the FP32 output `logits`.
        profiles: The profiles, ascending by length.
        fp32: The member in FP32, from which TensorRT before 10 builds.
        fp16: The member in FP16.
        checkpoint_sha256: The hash of the checkpoint.
        onnx_sha256: The hash of the exported graph.
        options: How to build.
    """

    member: str
    inputs: tuple[str, ...]
    n_labels: int
    profiles: tuple[Profile, ...]
    fp32: Graph
    fp16: Graph
    checkpoint_sha256: str
    onnx_sha256: str
    options: BuildOptions

    def write(self, path: Path) -> None:
        """Write the request."""
        write_json(path, {"schema_version": SCHEMA_VERSION, **asdict(self)})


def request_from_file(path: Path) -> EngineRequest:
    """Read a request and check the graphs beside it.

    Raises:
        BuildFailed: It is missing, damaged or of another version, or a graph is not the one that
            it names.
    """
    raw = read_json(path)
    if raw is None:
        raise BuildFailed(
            f"{path} is missing or not a JSON object: run `cascadebert compile --step graph`"
        )
    version = raw.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise BuildFailed(
            f"{path} has the schema version {version!r} and this package knows {SCHEMA_VERSION}: "
            "run `cascadebert compile --step graph` with the version that builds"
        )
    try:
        request = _request(raw)
    except (KeyError, TypeError, ValueError) as exc:
        raise BuildFailed(
            f"{path} is not an engine request ({exc}): run `cascadebert compile --step graph` again"
        ) from exc
    for graph in (request.fp32, request.fp16):
        file = path.parent / graph.file
        if not file.is_file() or sha256_of_file(file) != graph.sha256:
            raise BuildFailed(
                f"{file} is missing or damaged (its hash is not the one in {path.name}): copy the "
                "whole folder again, or run `cascadebert compile --step graph`"
            )
    return request


def _request(raw: dict[str, Any]) -> EngineRequest:
    fields: dict[str, Any] = {
        **raw,
        "inputs": tuple(raw["inputs"]),
        "profiles": tuple(Profile(**profile) for profile in raw["profiles"]),
        "fp32": Graph(**raw["fp32"]),
        "fp16": Graph(**raw["fp16"]),
        "options": BuildOptions(**raw["options"]),
    }
    return EngineRequest(**fields)
