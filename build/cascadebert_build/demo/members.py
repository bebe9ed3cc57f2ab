"""The demo's members before training: a tokenizer and two random-weight base checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from cascadebert_build.demo.corpus import LABELS


@dataclass(frozen=True)
class MemberRecipe:
    """What a member is and how `cascadebert train` makes it out of its base checkpoint."""

    name: str
    layers: int
    hidden_size: int
    heads: int
    intermediate_size: int
    initializer_range: float
    dropout: float
    epochs: float
    learning_rate: float
    batch_size: int
    warmup: float
    weight_decay: float
    max_length: int
    seed: int
