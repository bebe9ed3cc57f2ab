"""The first step: a checkpoint becomes an ONNX graph and a tokenizer."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from cascadebert_engine.files import sha256_of, sha256_of_file, write_text

from ..checkpoints.checkpoint import (
    Checkpoint,
    checkpoint_from_source,
    sha256_of_checkpoint,
    tokenizer_to_json,
)
from ..checkpoints.special_tokens import is_plain_text, with_plain_special_tokens
from ..config.schema import SPECIAL_TOKENS, MemberConfig
from ..errors import UsageError
from ..extras import has_extra, require
from ..graphs.export import GRAPH_VERSION, OPSET, check_exportable, onnx_from_checkpoint
from ..progress import say, timed
from .context import BuildContext
from .draft import check_max_length
from .exported import Exported, MemberManifest, exported_member
from .member_warnings import warn_of_unused_weights


@dataclass(frozen=True, slots=True)
class _Pending:
    """A member whose files are not up to date.

    Attributes:
        member: The member.
        source: Its checkpoint, a folder or hub id.
        key: Of what its files will be made of.
        found: Its files, if only the tokenizer has to be written again.
    """

    member: MemberConfig
    source: str
    key: str
    found: Exported | None


def export_members(context: BuildContext, members: Sequence[MemberConfig]) -> list[Exported]:
    """Export members, except those whose files are up to date.

    Before the first export, which takes long, each checkpoint is loaded and classifies two rows. On
    a machine without PyTorch, files that another machine exported are taken as they are.

    Raises:
        MissingExtra: The build extra is not installed.
        UsageError: A checkpoint cannot be read or exported.
        CheckFailed: A graph lacks one of the model's inputs.
    """
    states = [_state(context, member) for member in members]
    pending = [state for state in states if isinstance(state, _Pending)]
    for each in pending[1:]:  # the first is loaded for its export now
        check_exportable(_loaded(context, each)[0])
    return [_exported(context, state) for state in states]


def _state(context: BuildContext, member: MemberConfig) -> Exported | _Pending:
    """The files of a member, or what is to be done for it."""
    found = None if context.force else _found(context, member)
    if found is not None and not has_extra("torch"):
        say("export", member.name, "kept as it is: PyTorch is not installed here")
        return found
    require("build", "torch", "transformers", "onnx", "onnxscript", "onnxruntime")
    source = context.config.checkpoint(member)
    versions = [version(package) for package in ("torch", "transformers", "onnxscript")]
    graph_key = sha256_of(
        sha256_of_checkpoint(source), OPSET, GRAPH_VERSION, versions,
        *(["trust_remote_code"] if member.trust_remote_code else []),
    )  # fmt: skip
    keys = {setting: _key(graph_key, setting) for setting in SPECIAL_TOKENS}
    key = keys[context.config.tokenizer.special_tokens]
    if found is not None and found.manifest.key == key:
        say("export", member.name, "up to date")
        return found
    if found is not None and found.manifest.key not in keys.values():
        found = None
    if found is None and not Path(source).exists():
        say("export", member.name, f"no folder {context.config.folder / source}: asking the hub")
    if member.trust_remote_code:
        say("warning", member.name, f"Python code of {source} may run here (trust_remote_code)")
    return _Pending(member, source, key, found)


def _loaded(context: BuildContext, pending: _Pending) -> tuple[Checkpoint, str]:
    """A member's checkpoint, which can serve with its settings, and its tokenizer.json."""
    member = pending.member
    trusted = member.trust_remote_code
    checkpoint = checkpoint_from_source(pending.source, trust_remote_code=trusted)
    check_max_length(member, member.checkpoint, checkpoint.max_positions())
    return checkpoint, _tokenizer_json(context, checkpoint)


def _exported(context: BuildContext, state: Exported | _Pending) -> Exported:
    if isinstance(state, Exported):
        return state
    if state.found is not None:
        return _export_tokenizer(context, state, state.found)
    return _export(context, state)


def _key(graph_key: str, special_tokens: str) -> str:
    """A hash of all that an export reads; the default setting has the graph's own."""
    is_default = special_tokens == SPECIAL_TOKENS[0]
    return graph_key if is_default else sha256_of(graph_key, special_tokens)


def _export_tokenizer(context: BuildContext, pending: _Pending, found: Exported) -> Exported:
    """Write only the tokenizer: the graph is up to date, but texts are to be read otherwise."""
    with timed("export", found.name) as note:
        checkpoint, text = _loaded(context, pending)
        manifest_path = context.workspace.manifest(found.member)
        manifest_path.unlink()
        write_text(found.tokenizer, text)
        tokenizer_hash = sha256_of_file(found.tokenizer)
        manifest = replace(
            found.manifest,
            key=pending.key,
            tokenizer_sha256=tokenizer_hash,
            tokenizer=_tokenizer_name(checkpoint.model.config.model_type, tokenizer_hash),
        )
        manifest.write(manifest_path)
        note("the tokenizer; the graph is up to date")
    return replace(found, manifest=manifest)


def _tokenizer_json(context: BuildContext, checkpoint: Checkpoint) -> str:
    """The tokenizer's file with the settings of cascade.toml."""
    text = tokenizer_to_json(checkpoint.tokenizer)
    if is_plain_text(checkpoint.tokenizer, context.config.tokenizer.special_tokens):
        return with_plain_special_tokens(text, checkpoint.source)
    return text


def _export(context: BuildContext, pending: _Pending) -> Exported:
    workspace, member = context.workspace, pending.member
    onnx, tokenizer = workspace.onnx(member), workspace.tokenizer(member)
    with timed("export", member.name) as note:
        checkpoint, text = _loaded(context, pending)
        warn_of_unused_weights(member.name, checkpoint)
        # Until here an earlier export is whole, and stays.
        with _removed_if_it_fails(onnx, tokenizer):
            onnx.parent.mkdir(parents=True, exist_ok=True)
            workspace.manifest(member).unlink(missing_ok=True)
            write_text(tokenizer, text)
            tokenizer_hash = sha256_of_file(tokenizer)
            onnx_from_checkpoint(checkpoint, onnx)
            manifest = MemberManifest(
                key=pending.key,
                checkpoint=member.checkpoint,
                onnx_sha256=sha256_of_file(onnx),
                tokenizer_sha256=tokenizer_hash,
                tokenizer=_tokenizer_name(checkpoint.model.config.model_type, tokenizer_hash),
                labels=checkpoint.labels,
                inputs=checkpoint.inputs,
                max_positions=checkpoint.max_positions(),
                task=checkpoint.task,
            )
            manifest.write(workspace.manifest(member))
        note(f"{onnx.stat().st_size / 1e6:.0f} MB, opset {OPSET}, {', '.join(manifest.inputs)}")
    return Exported(member, manifest, onnx, tokenizer, context.config.buckets(member))


@contextlib.contextmanager
def _removed_if_it_fails(*paths: Path) -> Generator[None, None, None]:
    """Remove these files, and the folders that the block has made, if it fails."""
    made = [folder for folder in paths[0].parents if not folder.exists()]
    try:
        yield
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else has put a file there
            for folder in made:
                folder.rmdir()
        raise


def _tokenizer_name(family: str, sha256: str) -> str:
    """A folder's name of lower-case letters, digits and hyphens: `big-bird-0123456789ab`."""
    return "-".join([*re.findall(r"[a-z0-9]+", family.lower()), sha256[:12]])


def _found(context: BuildContext, member: MemberConfig) -> Exported | None:
    try:
        return exported_member(context, member)
    except UsageError:
        return None  # absent, damaged, or of another release: it is exported again
