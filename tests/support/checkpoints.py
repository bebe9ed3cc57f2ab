"""Small random checkpoints of several families, with real tokenizers, saved to folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

TOPICS = ["film", "plot", "cast", "score", "script", "hotel", "room", "staff", "phone", "screen"]
MOODS = ["good", "bad", "dull", "superb", "grim", "charming", "flat", "vivid", "tired", "bright"]
TEXTS = [
    f"the {topic} was {'not ' if (i + j) % 3 == 0 else ''}{mood}" + ", really" * ((i * j) % 7)
    for i, topic in enumerate(TOPICS)
    for j, mood in enumerate(MOODS)
]
_WORDS = [*TOPICS, *MOODS, "the", "was", "not", "really", ","]

_SHAPE = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "max_position_embeddings": 66,
}
# DistilBERT has names of its own.
_DISTIL_SHAPE = {"dim": 32, "n_heads": 2, "hidden_dim": 48, "n_layers": 2}
_DISTIL_SHAPE["max_position_embeddings"] = 66

FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {**_SHAPE, "type_vocab_size": 2},
    "roberta": {**_SHAPE, "type_vocab_size": 1},
    "distilbert": _DISTIL_SHAPE,
    "electra": {**_SHAPE, "embedding_size": 16, "type_vocab_size": 2},
    "deberta-v2": {
        **_SHAPE,
        "type_vocab_size": 0,
        "relative_attention": True,
        "max_relative_positions": -1,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
    },
}


def save_checkpoint(
    folder: Path,
    family: str = "bert",
    *,
    labels: Sequence[str] = ("negative", "positive"),
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    tokenizer: Any = None,
    **config: Any,
) -> Path:
    """A random checkpoint, with weights large enough that its confidences spread.

    Args:
        folder: Is made.
        family: The `model_type`.
        labels: In the order of the logits.
        seed: Of the weights.
        dtype: Of the weights.
        tokenizer: None: that of `make_tokenizer`.
        config: Settings of the model; they take precedence over those of `FAMILIES`.
    """
    tokenizer = tokenizer or make_tokenizer(family)
    transformers.set_seed(seed)
    settings = transformers.AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        initializer_range=0.3,
        **{**FAMILIES.get(family, {}), **config},
    )
    model = transformers.AutoModelForSequenceClassification.from_config(settings)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):  # fresh ones are all zero, which real ones never are
                weight.normal_(std=0.02)
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer(family: str = "bert") -> Any:
    """BERT's layout, or RoBERTa's: other special tokens and ids, and no token types."""
    roberta = family == "roberta"
    names = ["<s>", "<pad>", "</s>", "<unk>"] if roberta else ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    vocabulary = {
        token: i
        for i, token in enumerate(
            dict.fromkeys([*names, *_WORDS, *letters, *(f"##{letter}" for letter in letters)])
        )
    }
    unknown = names[3]
    rust = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    rust.normalizer = normalizers.BertNormalizer(lowercase=True)
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    start, end = (names[0], names[2]) if roberta else (names[1], names[2])
    rust.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} {end} $B {end}" if roberta else f"{start} $A {end} $B:1 {end}:1",
        special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])],
    )
    inputs = ["input_ids", "attention_mask"]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=rust,
        pad_token=names[1] if roberta else names[0],
        unk_token=unknown,
        cls_token=start,
        sep_token=end,
        model_max_length=64,
        model_input_names=inputs if roberta else [*inputs, "token_type_ids"],
    )


def write_rows(path: Path, *, pair: bool = False, labels: Sequence[str] = ("0", "1")) -> Path:
    """TEXTS as a tsv with labels in turn."""
    lines = ["sentence\tother\tlabel" if pair else "sentence\tlabel"]
    for i, text in enumerate(TEXTS):
        other = f"\t{TEXTS[-i]}" if pair else ""
        lines.append(f"{text}{other}\t{labels[i % len(labels)]}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_config(
    folder: Path,
    members: dict[str, Path],
    *,
    name: str = "cascade",
    pair: bool = False,
    rate: float = 0.3,
    extra: str = "",
    **member_keys: Any,
) -> Path:
    """A cascade.toml over these checkpoints, small to large, and TEXTS as its data."""
    rows = write_rows(folder / "rows.tsv", pair=pair)
    keys = {"max_length": 32, "max_batch_size": 16, **member_keys}
    lines = [f'name = "{name}"', extra]
    for member, checkpoint in members.items():
        lines += ["[[members]]", f'name = "{member}"', f'checkpoint = "{checkpoint}"']
        lines += [f"{key} = {value}" for key, value in keys.items()]
    lines += ["[data]", f'path = "{rows}"', 'text = "sentence"']
    lines += ['text_pair = "other"'] if pair else []
    lines += ["[tune]", f"max_deferral_rate = {rate}"]
    path = folder / "cascade.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
