"""Policies and tokenizers for tests of the core, made without torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors

from cascadebert_core.contract import OPERATING_POINTS, TOKENIZER_FILE, TOKENIZERS_FOLDER
from cascadebert_core.policy import Policy, StagePolicy
from cascadebert_core.signals import LEAST_SURE
from cascadebert_core.task import MULTI_LABEL
from cascadebert_core.under_load import UnderLoad
from cascadebert_core.windows import MAX, Windows

WORDS = ["good", "bad", "film", "plot", "not", "very", "the", "a", "was", "but"]


def write_tokenizer(version_folder: Path, name: str = "tiny", *, pad_id: int = 0) -> Path:
    """A word-level tokenizer with BERT's special tokens, at `tokenizers/<name>`."""
    special = ["[CLS]", "[SEP]", "[UNK]"]
    special.insert(pad_id, "[PAD]")
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.enable_padding(pad_id=pad_id, pad_token="[PAD]")
    path = version_folder / TOKENIZERS_FOLDER / name / TOKENIZER_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return path


def make_stage(
    index: int, *, threshold: float | None, n_labels: int = 2, **changes: object
) -> StagePolicy:
    """A stage called test_<index> with the tokenizer "tiny"."""
    fields: dict[str, object] = {
        "model": f"test_{index}",
        "version": 1,
        "tokenizer": "tiny",
        "max_length": 16,
        "max_batch_size": 8,
        "buckets": (4, 8, 16),
        "inputs": ("input_ids", "attention_mask", "token_type_ids"),
        "temperature": 1.0,
        "signal": "max_probability",
        "threshold": threshold,
        "label_indices": tuple(range(n_labels)),
    }
    return StagePolicy(**{**fields, **changes})  # pyright: ignore[reportArgumentType]


def make_multi_label_policy(
    *thresholds: float,
    labels: tuple[str, ...] = ("insult", "threat", "toxic"),
    audit_rate: float = 0.0,
) -> Policy:
    """A cascade whose answers are sets of labels."""
    policy = make_policy(*thresholds, labels=labels, audit_rate=audit_rate)
    stages = tuple(replace(stage, signal=LEAST_SURE) for stage in policy.stages)
    return replace(policy, stages=stages, task=MULTI_LABEL)


def with_windows(policy: Policy, *windows: Windows | None) -> Policy:
    """The policy with what each stage does with texts longer than its maximum length."""
    stages = tuple(replace(s, windows=w) for s, w in zip(policy.stages, windows, strict=True))
    return replace(policy, stages=stages)


def make_windows_policy(*thresholds: float) -> Policy:
    """A cascade whose last stage reads long texts in windows."""
    policy = make_policy(*thresholds)
    return with_windows(policy, *[None] * len(thresholds), Windows(MAX, 3, 4))


def make_under_load_policy(usual: float, faster: float, **settings: Any) -> Policy:
    """A cascade of two stages whose point "fast" applies under load, from one queued row on."""
    policy = make_policy(usual).with_operating_points(
        {"usual": (usual,), "fast": (faster,)}, "usual"
    )
    fields: dict[str, Any] = {"queued_rows": 1, "latency_s": 0.0, "hold_s": 5.0, **settings}
    return replace(
        policy,
        certificate={OPERATING_POINTS: {"fast": {"observed": 0.01}}},
        under_load=UnderLoad("fast", **fields),
    )


def make_policy(
    *thresholds: float,
    labels: tuple[str, ...] = ("negative", "positive"),
    pair: bool | None = False,
    audit_rate: float = 0.0,
) -> Policy:
    """A cascade with one stage more than thresholds."""
    stages = tuple(
        make_stage(i, threshold=threshold, n_labels=len(labels))
        for i, threshold in enumerate((*thresholds, None))
    )
    return Policy(
        labels=labels,
        pair=pair,
        stages=stages,
        operating_points={"default": thresholds},
        default_operating_point="default",
        audit_rate=audit_rate,
    )
