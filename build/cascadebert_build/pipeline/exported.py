"""A member after its export: an ONNX graph, a tokenizer, and a manifest that vouches for both."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from cascadebert_core.policy import TOKENIZER_NAME
from cascadebert_core.task import SINGLE_LABEL
from cascadebert_core.tokenization import Encoder
from cascadebert_engine.files import read_json, sha256_of_file, write_json

from ..config.schema import CascadeConfig, MemberConfig
from ..errors import UsageError
from ..graphs.logits import StageInput
from .context import BuildContext


@dataclass(frozen=True, slots=True)
class MemberManifest:
    """What a member's files were made from.

    Attributes:
        key: Hash of everything that the export read; equal keys need no new export.
        checkpoint: Folder or hub id, for reports.
        onnx_sha256: Hash of the graph beside the manifest.
        tokenizer_sha256: Hash of the tokenizer beside it.
        tokenizer: Folder name in the model repository; equal tokenizers share one.
        labels: Label names in the order of the logits.
        inputs: Tensors that the graph takes.
        max_positions: Longest sequence in tokens; None if the model has no limit.
        task: One of `cascadebert_core.task.TASKS`; None if the checkpoint does not say.
    """

    key: str
    checkpoint: str
    onnx_sha256: str
    tokenizer_sha256: str
    tokenizer: str
    labels: tuple[str, ...]
    inputs: tuple[str, ...]
    max_positions: int | None
    task: str | None = None

    def write(self, path: Path) -> None:
        """Write the manifest; it comes last, so that it vouches for complete files."""
        write_json(path, asdict(self))


def task_of_member(config: CascadeConfig, manifest: MemberManifest) -> str:
    """What a member's answers are: what its checkpoint says, else what cascade.toml says."""
    return manifest.task or config.task or SINGLE_LABEL


@dataclass(frozen=True)
class Exported:
    """A member whose files are checked against its manifest.

    Attributes:
        member: The member's settings.
        manifest: What the files were made from.
        onnx: The graph.
        tokenizer: The tokenizer.
        buckets: Padded lengths in tokens, ascending.
    """

    member: MemberConfig
    manifest: MemberManifest
    onnx: Path
    tokenizer: Path
    buckets: tuple[int, ...]

    @property
    def name(self) -> str:
        """The member's name."""
        return self.member.name

    @cached_property
    def stage_input(self) -> StageInput:
        """How texts become batches; the tokenizer is loaded once."""
        encoder = Encoder(self.tokenizer, self.member.max_length, self.member.windows)
        return StageInput(encoder, self.manifest.inputs, self.buckets)

    @property
    def window_size(self) -> int:
        """Tokens of a window without special tokens; 0 if longer texts are cut."""
        return 0 if self.member.windows is None else self.stage_input.encoder.window_size


def exported_member(context: BuildContext, member: MemberConfig) -> Exported:
    """Read an exported member from the work folder, and check its files.

    Raises:
        UsageError: The member is not exported, or its files have changed since.
    """
    workspace = context.workspace
    path = workspace.manifest(member)
    raw = read_json(path)
    if raw is None:
        raise UsageError(f"the member {member.name!r} is not exported: run `cascadebert export`")
    try:
        raw["labels"], raw["inputs"] = tuple(raw["labels"]), tuple(raw["inputs"])
        manifest = MemberManifest(**raw)
    except (TypeError, KeyError) as exc:
        raise UsageError(
            f"{path} is damaged or of another release ({exc}): run `cascadebert export --force`"
        ) from exc
    if not TOKENIZER_NAME.fullmatch(manifest.tokenizer):
        raise UsageError(
            f"{path} is of an older release, whose tokenizer is called {manifest.tokenizer!r}: run "
            "`cascadebert export` again"
        )
    exported = Exported(
        member,
        manifest,
        workspace.onnx(member),
        workspace.tokenizer(member),
        context.config.buckets(member),
    )
    for file, expected in (
        (exported.onnx, manifest.onnx_sha256),
        (exported.tokenizer, manifest.tokenizer_sha256),
    ):
        if not file.is_file() or sha256_of_file(file) != expected:
            raise UsageError(
                f"{file} is missing or damaged (its hash is not the exported one): "
                f"delete {path} and run `cascadebert export` again"
            )
    return exported
