"""Write real text, and its tokens, as perf_analyzer's input data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cascadebert_core.batching import bucket_of, pad_rows
from cascadebert_core.contract import TEXT, TEXT_PAIR
from cascadebert_core.policy import StagePolicy
from cascadebert_core.tokenization import Encoder, Text


def payload_of_texts(texts: Sequence[Text]) -> dict[str, list[str]]:
    """Return a request's JSON for servers other than Triton.

    It is `{"text": […]}`, with `"text_pair"` if the texts are pairs.
    """
    columns = zip(*((text,) if isinstance(text, str) else text for text in texts), strict=True)
    names = (TEXT.lower(), TEXT_PAIR.lower())
    return {name: list(column) for name, column in zip(names, columns, strict=False)}


def write_texts(path: Path, texts: Sequence[Text]) -> Path:
    """Write texts or pairs as requests to a cascade, one row a step."""

    def step(text: Text) -> dict[str, Any]:
        columns = payload_of_texts([text])
        return {name.upper(): {"content": of, "shape": [1]} for name, of in columns.items()}

    return _write(path, map(step, texts))


def write_payloads(path: Path, texts: Sequence[Text], rows: int = 1) -> Path:
    """Write texts or pairs as JSON for servers other than Triton, `rows` of them a request."""
    starts = range(0, len(texts) - rows + 1, rows)
    return write_bodies(path, (payload_of_texts(texts[i : i + rows]) for i in starts))


def write_bodies(path: Path, payloads: Iterable[Mapping[str, Any]]) -> Path:
    """Write the JSON bodies of requests to a server other than Triton's gRPC endpoint."""
    return _write(path, ({"payload": [dict(payload)]} for payload in payloads))


def write_tokens(path: Path, texts: Sequence[Text], encoder: Encoder, stage: StagePolicy) -> Path:
    """Write texts as requests to a stage, tokenised and padded to buckets as the cascade does."""

    def step(text: Text) -> dict[str, Any]:
        batch = pad_rows(encoder.encode([text]), stage.inputs, stage.buckets, encoder.pad_id)
        return {
            name: {"content": batch.tensors[name][0].tolist(), "shape": [batch.shape[1]]}
            for name in stage.inputs
        }

    return _write(path, map(step, texts))


def rows_of_fullest_bucket(
    texts: Sequence[Text], encoder: Encoder, stage: StagePolicy
) -> list[Text]:
    """Return the texts of the padded length that most of them have, in their order.

    perf_analyzer can put rows into one request only if they have one shape.
    """
    buckets = [bucket_of(len(row), stage.buckets) for row in encoder.encode(texts)]
    ((fullest, _),) = Counter(buckets).most_common(1)
    return [text for text, b in zip(texts, buckets, strict=True) if b == fullest]


def _write(path: Path, steps: Iterable[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"data": list(steps)}, ensure_ascii=False), encoding="utf-8")
    return path
