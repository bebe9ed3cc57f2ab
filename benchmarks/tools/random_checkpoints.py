"""Members of the shapes that people run, with random weights: for cost, never for accuracy."""

from __future__ import annotations

from pathlib import Path

# Layers and width; an intermediate layer of four widths, as in BERT itself, and heads of 64, or of
# the next wider size that divides the width.
SHAPES: dict[str, tuple[int, int]] = {
    "l2-h128": (2, 128),
    "l4-h312": (4, 312),
    "l6-h384": (6, 384),
    "l12-h768": (12, 768),
}


def write_member(folder: Path, shape: str, vocabulary: str) -> None:
    """Write a random BERT checkpoint of one of SHAPES, the same at every call, to a folder.

    Args:
        folder: made, with its parents; a checkpoint that is there is replaced.
        shape: a key of SHAPES.
        vocabulary: checkpoint (folder or hub id) whose tokenizer it takes; the embeddings have
            as many rows as that tokenizer has tokens.

    Raises:
        ValueError: if there is no such shape.
    """
    import transformers

    if shape not in SHAPES:
        raise ValueError(f"no shape {shape!r}: choose one of {', '.join(SHAPES)}")
    layers, width = SHAPES[shape]
    tokenizer = transformers.AutoTokenizer.from_pretrained(vocabulary)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers,
        num_attention_heads=width // 64, intermediate_size=4 * width,
    )  # fmt: skip
    transformers.set_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
