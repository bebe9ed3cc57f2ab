"""What is compared with `score`: a stream to a server, transformers' pipeline, and the limit."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cascadebert_build.config.placement import cores
from cascadebert_build.config.schema import CascadeConfig
from cascadebert_build.demo.corpus import corpus_from_seed
from cascadebert_build.demo.members import RECIPES, save_base_checkpoint
from cascadebert_build.errors import UsageError
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.pipeline.workspace import workspace_of
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_build.scoring.local import LocalCascade
from cascadebert_client import CascadeClient
from cascadebert_core.batching import bucket_of

from ..peers.limit import measure_limit
from ..peers.python_cascade import encoders_of_cascade

_ROWS_PER_REQUEST, _CONCURRENCY = 64, 8
_PIPELINE_BATCH = 32


@dataclass(frozen=True, slots=True)
class Cascade:
    """A built cascade and the texts that it scores.

    Attributes:
        repository: The model repository.
        config: What it was built from.
        texts: The texts.
    """

    repository: Path
    config: CascadeConfig
    texts: tuple[str, ...]


def quick_config(folder: Path) -> Path:
    """A cascade of two small untrained members on made-up texts."""
    rows = corpus_from_seed(0).validation[:200]
    data = folder / "rows.tsv"
    data.write_text("text\tlabel\n" + "".join(f"{row.text}\t{row.label}\n" for row in rows))
    lines = ['name = "quick"', 'labels = ["negative", "positive"]']
    for recipe in RECIPES:
        name = recipe.name
        checkpoint = folder / name
        save_base_checkpoint(checkpoint, recipe, rows)
        lines += ["[[members]]", f'name = "{name}"', f'checkpoint = "{checkpoint}"']
        lines += ["max_length = 64"]
    lines += ["[data]", 'path = "rows.tsv"', "[tune]", "max_deferral_rate = 0.3"]
    path = folder / "cascade.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def texts_of(glue: Path | None, config: CascadeConfig) -> tuple[str, ...]:
    """SST-2's training sentences, or without GLUE the cascade's own held-out rows.

    Raises:
        UsageError: There are no texts, or they are pairs.
    """
    if glue is not None:
        lines = (glue / "SST-2" / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]
        return tuple(line.split("\t")[0] for line in lines)
    if config.data is None:
        raise UsageError("the cascade.toml has no [data]: give --glue DIR")
    texts = CascadeBuild(config, workspace_of(config, None)).rows.texts
    return tuple(text for text in texts if isinstance(text, str))


def limit_of(cascade: Cascade, seconds: float) -> float:
    """Rows per second of all cores that the bare runtime allows, each row in the stages it needs.

    The times of rows by length are measured on a sample, each of the policy's buckets at its best
    batch size; which stages a row needs is what the cascade itself decides.
    """
    sample = cascade.texts[:: max(1, len(cascade.texts) // 1500)][:1500]
    limit = measure_limit(
        cascade.repository, cascade.config.name, sample, seconds=seconds / 2, cell_s=seconds / 40
    )
    policy = ModelRepository.read(cascade.repository).cascade(cascade.config.name).policy()
    stages = LocalCascade(cascade.repository).classify(sample)["exit_stage"]
    cost_ms = 0.0
    encoders = encoders_of_cascade(cascade.repository, cascade.config.name)
    for index, (stage, encoder) in enumerate(zip(policy.stages, encoders, strict=True)):
        row_ms = {bucket.length: bucket.row_ms for bucket in limit.stages[index].buckets}
        lengths = [bucket_of(len(row), stage.buckets) for row in encoder.encode(sample)]
        ms = np.array([row_ms[length] for length in lengths])
        cost_ms += float(ms[stages >= index].sum())
    return 1000 * limit.processes * len(sample) / cost_ms


def stream_rate(client: CascadeClient, texts: Sequence[str], window_s: float) -> float:
    """Rows per second of `classify_stream`."""
    stream = client.classify_stream(
        itertools.cycle(texts),
        rows_per_request=_ROWS_PER_REQUEST,
        max_concurrency=_CONCURRENCY,
        timeout_s=60.0,
    )
    warm_up = _ROWS_PER_REQUEST * _CONCURRENCY
    for _ in itertools.islice(stream, warm_up):
        pass
    began_s, n = time.monotonic(), 0
    for _ in stream:
        n += 1
        if time.monotonic() - began_s > window_s:
            break
    rate = n / (time.monotonic() - began_s)
    stream.close()
    return rate


def pipeline_rate(cascade: Cascade, window_s: float) -> float:
    """Rows per second of transformers' pipeline with the last member, on all cores."""
    import torch
    import transformers

    torch.set_num_threads(cores())
    member = cascade.config.members[-1]
    classify: Any = transformers.pipeline(
        "text-classification", model=cascade.config.checkpoint(member), device=-1
    )
    options = {"batch_size": _PIPELINE_BATCH, "truncation": True, "max_length": member.max_length}
    # Sorted by length within what is read at once, as careful people do.
    chunk = 8 * _PIPELINE_BATCH
    began_s, n = time.monotonic(), 0
    for start in itertools.count(0, chunk):
        texts = [cascade.texts[i % len(cascade.texts)] for i in range(start, start + chunk)]
        classify(sorted(texts, key=len), **options)
        n += chunk
        if time.monotonic() - began_s > window_s:
            break
    return n / (time.monotonic() - began_s)
