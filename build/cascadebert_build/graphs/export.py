"""Exports a checkpoint to ONNX: float32, dynamic batch and length, only the model's inputs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cascadebert_core.contract import ATTENTION_MASK, INPUT_IDS, LOGITS

from ..checkpoints.checkpoint import Checkpoint
from ..errors import CheckFailed, UsageError, first_cause
from ..extras import needs_extra
from .end_of_sequence import check_end_of_sequence, logits_at_last_end, reads_end_of_sequence
from .mask import plain_mask_in_file

if TYPE_CHECKING:
    import torch

# The newest opset that the exporter writes without a conversion. LayerNormalization is one node.
OPSET = 18

# Increase it when the exported graph changes: members are then exported again.
GRAPH_VERSION = 3

_LONGEST_CAUSE = 200  # characters of another library's message


def onnx_from_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write `path`; inputs are INT32 (batch, length), the output FP32 `logits` (batch, labels).

    Raises:
        UsageError: The model cannot classify two rows, the exporter cannot trace it, or it reads a
            token that its tokenizer does not add.
        CheckFailed: The graph lacks one of the model's inputs.
    """
    with needs_extra("build"):
        import onnx
        import torch
    check_exportable(checkpoint)
    wrapped, example = _logits_only(checkpoint), _example(checkpoint)
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    length = torch.export.Dim("length", min=2, max=1 << 16)
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                wrapped,
                example,
                dynamo=True,
                input_names=list(checkpoint.inputs),
                output_names=[LOGITS],
                # One more level: the inputs are the single variadic argument of forward.
                dynamic_shapes=(({0: batch, 1: length},) * len(checkpoint.inputs),),
                opset_version=OPSET,
                verbose=False,
            )
            assert program is not None  # with dynamo=True
            # One file to verify, hash and publish: from 1.5 GiB on, `program.save` writes two.
            onnx.save(program.model_proto, str(path))
            plain_mask_in_file(path)
        except Exception as exc:
            path.unlink(missing_ok=True)
            raise UsageError(
                f"the checkpoint {checkpoint.source!r} ({checkpoint.model.config.model_type}) "
                f"cannot be exported to ONNX ({first_cause(exc)[:_LONGEST_CAUSE]}): give a member "
                "of another family, such as BERT, RoBERTa, DeBERTa or ModernBERT"
            ) from exc
    graph = onnx.load(str(path), load_external_data=False).graph
    inputs = [value.name for value in graph.input]
    if sorted(inputs) != sorted(checkpoint.inputs):
        raise CheckFailed(
            f"{path} takes {inputs}, not the {list(checkpoint.inputs)} of the checkpoint: the "
            "exporter removed an input; serve another checkpoint"
        )


def check_exportable(checkpoint: Checkpoint) -> None:
    """Check what takes a moment: two rows are classified, and the end of a text is found.

    Raises:
        UsageError: The model cannot classify two rows, or it reads a token that its tokenizer does
            not add.
    """
    check_end_of_sequence(checkpoint)
    _check_forward(_logits_only(checkpoint), _example(checkpoint), checkpoint)


def _logits_only(checkpoint: Checkpoint) -> torch.nn.Module:
    """The model with positional inputs and the logits as its only output."""
    import torch

    names = checkpoint.inputs
    pools_by_end = reads_end_of_sequence(checkpoint.model)

    class LogitsOnly(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = checkpoint.model

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            inputs = dict(zip(names, tensors, strict=True))
            if pools_by_end:
                return logits_at_last_end(self.model, **inputs)
            return self.model(**inputs, return_dict=True).logits

    return LogitsOnly().eval()


def _check_forward(
    wrapped: torch.nn.Module, example: tuple[torch.Tensor, ...], checkpoint: Checkpoint
) -> None:
    """Run the model on two rows, which takes a moment, before it is traced.

    Raises:
        UsageError: It fails, or its logits are not those of a classifier.
    """
    import torch

    where = f"the checkpoint {checkpoint.source!r} ({checkpoint.model.config.model_type})"
    try:
        with torch.no_grad():
            logits = wrapped(*example)
        shape = list(logits.shape)
    except Exception as exc:
        raise UsageError(
            f"{where} cannot classify two rows of tokens ({first_cause(exc)[:_LONGEST_CAUSE]}): "
            "try it with transformers, or give another checkpoint"
        ) from exc
    expected = [len(example[0]), len(checkpoint.labels)]
    if shape != expected:
        raise UsageError(
            f"{where} gives logits of shape {shape} for {expected[0]} rows, and id2label in "
            f"config.json names {expected[1]} labels: correct it, or give another checkpoint"
        )
    if not bool(torch.isfinite(logits).all()):
        raise UsageError(
            f"{where} gives logits that are not finite: its weights are damaged, or the training "
            "diverged; save it again, or give another checkpoint"
        )


def _example(checkpoint: Checkpoint) -> tuple[torch.Tensor, ...]:
    """Two rows. One is padded, so that the trace keeps the mask."""
    import torch

    pad_id = cast("int", checkpoint.tokenizer.pad_token_id)
    vocabulary = int(checkpoint.model.config.vocab_size)
    ids = torch.arange(24, dtype=torch.int32).reshape(2, 12) % (vocabulary - pad_id - 1)
    ids = ids + pad_id + 1
    mask = torch.ones_like(ids)
    ids[1, 9:] = pad_id
    mask[1, 9:] = 0
    values: dict[str, Any] = {INPUT_IDS: ids, ATTENTION_MASK: mask}
    return tuple(values.get(name, torch.zeros_like(ids)) for name in checkpoint.inputs)


@contextlib.contextmanager
def _quiet() -> Generator[None, None, None]:
    """Silence the exporter's progress lines and its notes on missing packages."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
