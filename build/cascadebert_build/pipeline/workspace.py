"""The work folder of one cascade: artefacts between checkpoints and model repository.

::

    WORK_DIR/
    ├── <member>/model.onnx        exported graph
    ├── <member>/tokenizer.json    self-contained tokenizer
    ├── <member>/member.json       what they were made from, with hashes
    ├── <member>/verify.json       report of the numerical check
    ├── <member>/engine/           graphs for TensorRT, the request, the plan and its reports
    ├── <member>/optimized-<precision>/  the graph for the CPU, its manifest and its report
    ├── logits/<member>-….npz      logits, by artefact and data
    ├── costs.json                 times of the stages on this machine
    ├── decisions.json             report of the gate's decisions
    └── policy.json                the policy that `publish` installs
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..config.schema import CascadeConfig, MemberConfig


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

    def manifest(self, member: MemberConfig) -> Path:
        """The member's manifest."""
        return self.folder / member.name / "member.json"

    def verify_report(self, member: MemberConfig) -> Path:
        """The report of the numerical check."""
        return self.folder / member.name / "verify.json"

    def engine(self, member: MemberConfig) -> Path:
        """The folder that travels to the machine with the GPU and back."""
        return self.folder / member.name / "engine"

    def optimized(self, member: MemberConfig, precision: str) -> Path:
        """The folder of the optimised graph, in FP32 or INT8."""
        return self.folder / member.name / f"optimized-{precision}"

    def logits(self, member: MemberConfig, key: str) -> Path:
        """Logits of a member over one set of rows; `key` hashes everything that made them."""
        return self.folder / "logits" / f"{member.name}-{key[:16]}.npz"

    @property
    def costs(self) -> Path:
        """The times of the stages on this machine."""
        return self.folder / "costs.json"

    @property
    def decisions(self) -> Path:
        """The report of the gate's decisions."""
        return self.folder / "decisions.json"

    @property
    def policy(self) -> Path:
        """The policy that `tune` wrote."""
        return self.folder / "policy.json"


def workspace_of(config: CascadeConfig, work_dir: Path | None) -> Workspace:
    """The given work folder, or `work/<cascade>` beside cascade.toml."""
    return Workspace(work_dir or config.folder / "work" / config.name)
