"""The work folder of one cascade: artefacts between checkpoints and model repository.

::

    WORK_DIR/
    ├── <member>/model.onnx        exported graph
    ├── <member>/tokenizer.json    self-contained tokenizer
    ├── <member>/member.json       what they were made of, with hashes
    ├── <member>/verify.json       report of the numerical check
    ├── <member>/engine/           graphs for TensorRT, the request, the plan and its reports
    ├── <member>/optimized-<precision>/  the graph for the CPU, its manifest and its report
    ├── logits/<member>-….npz      logits, by artefact and data
    └── policy.json                the policy that `publish` installs
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from cascadebert_core.tokenization import Encoder
from cascadebert_engine.files import read_json, sha256_of_file, write_json

from ..config.schema import CascadeConfig, MemberConfig
from ..errors import UsageError
from ..graphs.logits import StageInput


@dataclass(frozen=True, slots=True)
class MemberManifest:
    """What a member's artefacts were made of.

    Attributes:
        key: hash of everything that the export read; equal keys need no new export.
        checkpoint: folder or hub id, for reports.
        onnx_sha256, tokenizer_sha256: of the files beside the manifest.
        tokenizer: folder name in the model repository; equal tokenizers share one.
        labels: in the order of the logits.
        inputs: tensors that the graph takes.
        max_positions: longest sequence in tokens; None where the model has no limit.
    """

    key: str
    checkpoint: str
    onnx_sha256: str
    tokenizer_sha256: str
    tokenizer: str
    labels: tuple[str, ...]
    inputs: tuple[str, ...]
    max_positions: int | None


@dataclass(frozen=True, slots=True)
class Workspace:
    """Paths below the work folder of one cascade."""

    folder: Path

    def onnx(self, member: MemberConfig) -> Path:
        """The exported graph."""
        return self.folder / member.name / "model.onnx"

    def tokenizer(self, member: MemberConfig) -> Path:
        """The self-contained tokenizer."""
        return self.folder / member.name / "tokenizer.json"

    def verify_report(self, member: MemberConfig) -> Path:
        """The report of the numerical check."""
        return self.folder / member.name / "verify.json"

    def engine(self, member: MemberConfig) -> Path:
        """The folder that travels to the machine with the GPU and back."""
        return self.folder / member.name / "engine"

    def optimized(self, member: MemberConfig, precision: str) -> Path:
        """The folder of the fused graph, in FP32 or INT8."""
        return self.folder / member.name / f"optimized-{precision}"

    @property
    def decisions(self) -> Path:
        """The report of the gate's decisions."""
        return self.folder / "decisions.json"

    def logits(self, member: MemberConfig, key: str) -> Path:
        """Logits of a member over one set of rows; `key` hashes everything that made them."""
        return self.folder / "logits" / f"{member.name}-{key[:16]}.npz"

    @property
    def policy(self) -> Path:
        """The policy that `tune` wrote."""
        return self.folder / "policy.json"

    def manifest_path(self, member: MemberConfig) -> Path:
        """The member's manifest."""
        return self.folder / member.name / "member.json"

    def manifest(self, member: MemberConfig) -> MemberManifest:
        """The member's manifest, with the files beside it checked against their hashes.

        Raises:
            UsageError: the member was not exported, or its files were changed since.
        """
        raw = read_json(self.manifest_path(member))
        if raw is None:
            raise UsageError(
                f"the member {member.name!r} is not exported: run `cascadebert export`"
            )
        raw["labels"] = tuple(raw["labels"])
        raw["inputs"] = tuple(raw["inputs"])
        manifest = MemberManifest(**raw)
        for path, expected in (
            (self.onnx(member), manifest.onnx_sha256),
            (self.tokenizer(member), manifest.tokenizer_sha256),
        ):
            if not path.is_file() or sha256_of_file(path) != expected:
                raise UsageError(
                    f"{path} is missing or damaged (its hash is not the exported one): "
                    f"delete {self.manifest_path(member)} and run `cascadebert export` again"
                )
        return manifest

    def write_manifest(self, member: MemberConfig, manifest: MemberManifest) -> None:
        """Write the manifest; it comes last, so that it vouches for complete files."""
        write_json(self.manifest_path(member), asdict(manifest))


def workspace_of(config: CascadeConfig, work_dir: Path | None) -> Workspace:
    """The given work folder, or `work/<cascade>` beside cascade.toml."""
    return Workspace(work_dir or config.folder / "work" / config.name)


def stage_input(config: CascadeConfig, workspace: Workspace, member: MemberConfig) -> StageInput:
    """How texts become the batches of an exported member."""
    return StageInput(
        Encoder(workspace.tokenizer(member), member.max_length),
        workspace.manifest(member).inputs,
        config.buckets(member),
    )
