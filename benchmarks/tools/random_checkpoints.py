"""Checkpoints with random weights in common shapes: for cost, not for accuracy."""

from __future__ import annotations

from pathlib import Path

# Layers and width. The intermediate layer has four widths, as in BERT. Heads are 64 wide, or the
# next wider size that divides the width.
SHAPES: dict[str, tuple[int, int]] = {
    "l2-h128": (2, 128),
    "l4-h312": (4, 312),
    "l6-h384": (6, 384),
    "l12-h768": (12, 768),
}


def write_member(folder: Path, shape: str, vocabulary: str) -> None:
    """Write a random BERT checkpoint, the same at every call.

    Args:
        folder: The folder, made with its parents. A checkpoint in it is replaced.
        shape: A key of SHAPES.
        vocabulary: The checkpoint (folder or hub id) whose tokenizer it takes. The embeddings have
            as many rows as that tokenizer has tokens.
    """
    import transformers

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
