"""The demo's members before training: a tokenizer and checkpoints with random weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from ..checkpoints.checkpoint import hide_weight_bars
from .corpus import LABELS, Row

# A word needs this many occurrences to enter the vocabulary; invented names never have them.
_MIN_OCCURRENCES: Final = 20
_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MAX_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class MemberRecipe:
    """A member's shape, and how it is trained from scratch.

    The values were found by trial on the corpus. The small member learns which words are good or
    bad, and little else. The large one also learns what a "not" applies to and which clause counts.
    """

    name: str
    layers: int
    hidden_size: int
    intermediate_size: int
    epochs: float
    learning_rate: float
    heads: int = 4
    batch_size: int = 32
    warmup_ratio: float = 0.1
    weight_decay: float = 0.01
    max_length: int = _MAX_LENGTH
    seed: int = 0


RECIPES: Final = (
    MemberRecipe(
        "small", layers=1, hidden_size=48, intermediate_size=96, epochs=2, learning_rate=1e-3
    ),
    MemberRecipe(
        "large", layers=4, hidden_size=96, intermediate_size=192, epochs=4, learning_rate=5e-4
    ),
)


def save_base_checkpoint(folder: Path, recipe: MemberRecipe, rows: Sequence[Row]) -> None:
    """Write a checkpoint with random weights, and a tokenizer made for the training rows."""
    import transformers

    hide_weight_bars()
    words = vocabulary_of_rows(rows)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(words),
        model_max_length=_MAX_LENGTH,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.intermediate_size,
        max_position_embeddings=_MAX_LENGTH,
        # The corpus is seen only a few times. Dropout would cost one more epoch.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    transformers.set_seed(recipe.seed)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def vocabulary_of_rows(rows: Sequence[Row]) -> list[str]:
    """Return the frequent words that name no topic; all other words become [UNK].

    The topic of a review does not say whether the review is good. So the members ignore it, in
    training and for topics that they never saw.
    """
    counts: Counter[str] = Counter()
    topics: set[str] = set()
    for row in rows:
        counts.update(_words(row.text))
        for topic in row.topics:
            topics.update(_words(topic))
    return [
        word for word, n in counts.most_common() if n >= _MIN_OCCURRENCES and word not in topics
    ]


def _tokenizer(words: Sequence[str]) -> Tokenizer:
    vocabulary = {token: i for i, token in enumerate((*_SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _words(text: str) -> list[str]:
    normalized = normalizers.BertNormalizer(lowercase=True).normalize_str(text)
    return [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normalized)]
