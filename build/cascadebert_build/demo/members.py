"""The demo's members before training: their recipes, a tokenizer, and random weights."""

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
    """A member's shape, and how it is trained.

    The values were found by trial on the corpus. The small member learns which words are good or
    bad, and little else. The large one also learns what a "not" applies to and which clause counts.

    Attributes:
        name: The member's name.
        folder: Of its base and of its checkpoint.
        summary: What it is, to print.
        expected: How long its training takes on 2 cores, to print.
        layers: Layers of a member from scratch; the other sizes likewise.
        rows: The number of training rows that it sees; each row once in an epoch.
        threads: The number of threads that its training gains from.
    """

    name: str
    folder: str
    summary: str
    expected: str
    epochs: float
    learning_rate: float
    layers: int = 0
    hidden_size: int = 0
    intermediate_size: int = 0
    heads: int = 4
    rows: int = 20_000
    threads: int = 1
    batch_size: int = 32
    warmup_ratio: float = 0.1
    weight_decay: float = 0.01
    max_length: int = _MAX_LENGTH
    seed: int = 0


#: The members that are trained from scratch.
RECIPES: Final = (
    MemberRecipe(
        "small", "small", "1 layer, 48 wide, from scratch", "about 20 s",
        layers=1, hidden_size=48, intermediate_size=96, epochs=2, learning_rate=1e-3,
    ),
    MemberRecipe(
        "large", "large", "4 layers, 96 wide, from scratch", "about a minute",
        layers=4, hidden_size=96, intermediate_size=192, epochs=4, learning_rate=5e-4,
    ),
)  # fmt: skip

#: The large member of the demo: a pretrained one needs few rows. `minilm` has its weights.
MINILM: Final = MemberRecipe(
    "large", "minilm", "MiniLM with 6 layers, 384 wide", "about 2 minutes",
    epochs=1, learning_rate=1e-4, rows=5_000, threads=64, batch_size=16,
)  # fmt: skip


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
