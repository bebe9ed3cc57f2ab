"""Tiny random members of the families that people fine-tune, with tokenizers of their kinds.

They have one layer, or two if the layers differ, so that an export takes a few seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from .checkpoints import TEXTS, make_tokenizer, save_checkpoint

_BERT = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "max_position_embeddings": 66,
}
_LLAMA = {**_BERT, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64}
_DISTIL = {"dim": 16, "n_heads": 2, "hidden_dim": 24, "n_layers": 1, "max_position_embeddings": 64}
_BART = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Family:
    """A family: its tokenizer and the smallest settings.

    Attributes:
        tokenizer: "bert": WordPiece with [SEP]; "roberta": the same with </s>; "unigram":
            SentencePiece's; "bytes": BPE of bytes with </s>; "causal": the same, which adds no
            token.
        settings: Of the model.
    """

    tokenizer: str
    settings: dict[str, Any] = field(default_factory=dict[str, Any])


FAMILIES = {
    "albert": Family("unigram", {**_BERT, "embedding_size": 8, "type_vocab_size": 2}),
    "bart": Family("bytes", _BART),
    "bert": Family("bert", {**_BERT, "type_vocab_size": 2}),
    "camembert": Family("unigram", {**_BERT, "type_vocab_size": 1}),
    "deberta-v2": Family(
        "unigram",
        {
            **_BERT,
            "type_vocab_size": 0,
            "relative_attention": True,
            "max_relative_positions": -1,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
        },
    ),
    "distilbert": Family("bert", _DISTIL),
    "electra": Family("bert", {**_BERT, "embedding_size": 8, "type_vocab_size": 2}),
    "gpt2": Family("causal", {"n_embd": 16, "n_head": 2, "n_layer": 1, "n_positions": 64}),
    "llama": Family("causal", _LLAMA),
    "mbart": Family("unigram", _BART),
    "plbart": Family("unigram", _BART),
    "mvp": Family("bytes", _BART),
    "mistral": Family("causal", {**_LLAMA, "sliding_window": 8}),
    "modernbert": Family(
        "bytes",
        {
            **_BERT,
            "num_hidden_layers": 2,
            "global_attn_every_n_layers": 2,
            "local_attention": 8,
            "max_position_embeddings": 64,
        },
    ),
    "mpnet": Family("roberta", _BERT),
    "qwen2": Family("causal", _LLAMA),
    "roberta": Family("bytes", {**_BERT, "type_vocab_size": 1}),
    "roformer": Family("bert", {**_BERT, "embedding_size": 16, "type_vocab_size": 2}),
    "t5": Family(
        "unigram",
        {
            "d_model": 16,
            "d_kv": 8,
            "d_ff": 24,
            "num_layers": 1,
            "num_decoder_layers": 1,
            "num_heads": 2,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 16,
        },
    ),
    "xlm-roberta": Family("unigram", {**_BERT, "type_vocab_size": 1}),
}

# Tried in every run: a causal model, one that reads the end, local attention, relative positions.
DEFAULT_FAMILIES = ("bart", "deberta-v2", "modernbert", "qwen2", "xlm-roberta")


def save_family(folder: Path, family: str, **config: Any) -> Path:
    """A tiny random checkpoint of a family, with a tokenizer of the family's kind.

    Args:
        folder: Is made.
        family: A key of `FAMILIES`.
        config: As in `save_checkpoint`.
    """
    kind, settings = FAMILIES[family].tokenizer, FAMILIES[family].settings
    tokenizer = make_tokenizer(kind) if kind in {"bert", "roberta"} else trained_tokenizer(kind)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos")}
    if family in {"t5", "bart", "mbart", "plbart", "mvp"}:
        start = tokenizer.pad_token_id if family == "t5" else tokenizer.eos_token_id
        ids["decoder_start_token_id"] = start
    return save_checkpoint(folder, family, tokenizer=tokenizer, **{**ids, **settings, **config})


@cache
def trained_tokenizer(kind: str) -> Any:
    """A small tokenizer of a kind of `Family`, trained on TEXTS."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if kind == "unigram":
        rust = Tokenizer(models.Unigram())
        rust.normalizer = normalizers.NFKC()
        rust.pre_tokenizer = pre_tokenizers.Metaspace()
        rust.train_from_iterator(
            TEXTS,
            trainers.UnigramTrainer(
                vocab_size=120,
                special_tokens=names,
                unk_token="<unk>",
                initial_alphabet=[chr(c) for c in range(33, 127)],
                show_progress=False,
            ),
        )
    else:
        rust = Tokenizer(models.BPE())
        rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        rust.train_from_iterator(
            TEXTS,
            trainers.BpeTrainer(
                vocab_size=400,
                special_tokens=names,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        )
        rust.decoder = decoders.ByteLevel()
    if kind != "causal":
        ends = [(name, rust.token_to_id(name)) for name in ("<s>", "</s>")]
        rust.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=rust,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        **({} if kind == "causal" else {"cls_token": "<s>", "sep_token": "</s>"}),
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    )
