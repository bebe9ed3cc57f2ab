"""What can be known of a checkpoint from its files, in a second and without PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .families import check_adapter, check_family, check_task
from .folder import CONFIG, check_files, checkpoint_folder, json_object
from .labels import labels_of_config
from .vocabulary import (
    check_sentencepiece,
    check_vocabulary_files,
    check_vocabulary_size,
    table_rows,
    vocabulary_of_file,
)
from .weight_names import check_names
from .weights import Shapes, tensor_shapes

# The last matrix of the heads of transformers' classifiers, by the last parts of its name.
_HEADS = (
    "classifier.weight",
    "classifier.out_proj.weight",
    "classification_head.out_proj.weight",
    "score.weight",
    "logits_proj.weight",
)

# Heads of the pretraining that some checkpoints keep.
_NOT_EXPORTED = ("lm_head.", "cls.")
_LARGEST_GRAPH = (1 << 31) - 1  # bytes: protobuf's limit

_POSITIONS = ("embeddings.position_embeddings.weight", "wpe.weight")


@dataclass(frozen=True, slots=True)
class Inspection:
    """The files of a checkpoint in a folder.

    Attributes:
        folder: With config.json.
        config: The contents of config.json.
        shapes: Of all tensors; None: the weights are pickled.
    """

    folder: Path
    config: Mapping[str, Any]
    shapes: Shapes | None

    @property
    def table_rows(self) -> int | None:
        """The rows of the embedding table; None: unknown."""
        return table_rows(self.config, self.shapes)

    @property
    def position_rows(self) -> int | None:
        """The rows of the table of positions, some of which may be unused; None: unknown."""
        rows = [
            shape[0]
            for name, shape in (self.shapes or {}).items()
            if name.endswith(_POSITIONS) and len(shape) == 2
        ]
        return min(rows, default=None)


def inspect_base(source: str) -> Inspection | None:
    """Check the files of a checkpoint whose head does not matter.

    Returns:
        What the files say; None: `source` is a hub id.

    Raises:
        UsageError: The files cannot be a member's. The message has the remedy.
    """
    folder = checkpoint_folder(source)
    if folder is None:
        return None
    check_files(folder)
    check_adapter(folder)
    config = json_object(folder / CONFIG)
    check_family(config, source)
    inspection = Inspection(folder, config, tensor_shapes(folder))
    check_names(inspection.shapes or (), source)
    check_vocabulary_files(folder)
    vocabulary = vocabulary_of_file(folder)
    if vocabulary is not None:
        check_vocabulary_size(source, *vocabulary, inspection.table_rows)
    check_sentencepiece(folder)
    return inspection


def inspect_checkpoint(source: str) -> Inspection | None:
    """Check the files of a fine-tuned checkpoint.

    Returns:
        What the files say; None: `source` is a hub id.

    Raises:
        UsageError: The files cannot be a member's. The message has the remedy.
    """
    inspection = inspect_base(source)
    if inspection is not None:
        check_task(inspection.folder, inspection.config, source)
        _check_size(inspection.shapes or {}, source)
        labels = labels_of_config(inspection.config, source)
        _check_head(inspection.shapes or {}, labels, source)
    return inspection


def _check_size(shapes: Shapes, source: str) -> None:
    """Refuse a model whose graph would be larger than one ONNX file can be."""
    size = 4 * sum(
        math.prod(shape) for name, shape in shapes.items() if not name.startswith(_NOT_EXPORTED)
    )
    if size > _LARGEST_GRAPH:
        raise UsageError(
            f"the checkpoint {source!r} has {size / (1 << 30):.1f} GiB of weights in FP32, and an "
            "ONNX file holds 2 GiB at most: give a smaller member"
        )


def _check_head(shapes: Shapes, labels: tuple[str, ...], source: str) -> None:
    """Refuse a head whose rows are not the labels; heads of unknown names pass."""
    for name, shape in shapes.items():
        is_head = f".{name}".endswith(tuple(f".{head}" for head in _HEADS))
        if not is_head or len(shape) != 2 or shape[0] == len(labels):
            continue
        raise UsageError(
            f"the checkpoint {source!r} has a head of {shape[0]} labels ({name} is {shape[0]} × "
            f"{shape[1]}), and id2label in config.json names {len(labels)}: correct id2label"
        )
