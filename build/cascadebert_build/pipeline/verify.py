"""The numerical check of an exported graph against its checkpoint."""

from __future__ import annotations

from cascadebert_engine.files import sha256_of

from ..checkpoints.checkpoint import checkpoint_from_source
from ..checkpoints.special_tokens import is_plain_text
from ..errors import CheckFailed
from ..graphs.session import OnnxSession
from ..progress import say, timed
from ..verification.onnx import CHECK_VERSION, TOLERANCE, VerifyReport, verify_onnx
from .check_record import has_passed, write_check
from .context import BuildContext
from .exported import Exported, task_of_member
from .quick import EXPORTS_S, seconds_of_member


def verify_exported(context: BuildContext, exported: Exported) -> VerifyReport | None:
    """Check the saved graph against its checkpoint.

    Returns:
        The report; None if the check has passed before and nothing has changed since.

    Raises:
        CheckFailed: The graph is further from the checkpoint than the tolerance.
    """
    if not context.force and is_verified(context, exported):
        say("verify", exported.name, "up to date")
        return None
    path = context.workspace.verify_report(exported.member)
    with timed("verify", exported.name) as note:
        checkpoint = checkpoint_from_source(
            context.config.checkpoint(exported.member),
            trust_remote_code=exported.member.trust_remote_code,
        )
        report = verify_onnx(
            OnnxSession(exported.onnx).logits,
            checkpoint,
            exported.stage_input,
            context.rows.texts,
            member=exported.name,
            max_batch_size=exported.member.max_batch_size,
            text_only=is_plain_text(checkpoint.tokenizer, context.config.tokenizer.special_tokens),
            task=task_of_member(context.config, exported.manifest),
            seconds=seconds_of_member(context, EXPORTS_S),
        )
        write_check(path, _key(context, exported, quick=bool(report.left_out)), report)
        if not report:
            raise CheckFailed(
                f"the graph of {exported.name!r} differs from its checkpoint "
                f"({exported.manifest.checkpoint}): "
                f"{'; '.join(report.failures())}; see {path}"
            )
        note(str(report).removeprefix(f"{exported.name}: "))
    return report


def is_verified(context: BuildContext, exported: Exported) -> bool:
    """Whether the graph, as it is now, has passed its check; a short one counts in quick builds."""
    path = context.workspace.verify_report(exported.member)
    if has_passed(path, _key(context, exported)):
        return True
    return context.quick and has_passed(path, _key(context, exported, quick=True))


def _key(context: BuildContext, exported: Exported, *, quick: bool = False) -> str:
    """A hash of everything that the check reads, and of whether it left something out."""
    manifest, member = exported.manifest, exported.member
    return sha256_of(
        manifest.key, manifest.onnx_sha256, manifest.tokenizer_sha256, context.rows.sha256(),
        member.max_length, member.max_batch_size, exported.buckets, TOLERANCE,
        CHECK_VERSION, *(["quick"] if quick else []),
    )  # fmt: skip
