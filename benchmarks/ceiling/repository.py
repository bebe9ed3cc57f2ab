"""A model repository whose stages cost nothing, or what a GPU's would."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cascadebert_build.config.schema import RuntimeConfig
from cascadebert_build.repository.model_config import CONFIG_FILE, config_from_text, config_to_text
from cascadebert_build.repository.publish import StageFiles, publish_cascade
from cascadebert_core.contract import STAGE_INPUTS
from cascadebert_core.policy import ONE_CALL, Policy, StagePolicy

from . import null_session
from .null_session import SETTINGS

LABELS = ("negative", "positive")
_LEAST_MODEL = Path(__file__).parent / "least" / "model.py"
STAGE_MODELS = ("stage_small", "stage_large")
_POINT = "default"
_BUCKETS = tuple(range(4, 129, 4))  # as on a CPU
MAX_BATCH_SIZE = 64


@dataclass(frozen=True, slots=True)
class StageTimes:
    """What a call of a stage takes, without using the CPU.

    Attributes:
        call_s: Seconds of a call.
        row_s: Seconds of each of its rows.
    """

    call_s: float = 0.0
    row_s: float = 0.0


NULL = StageTimes()


def cascade_name(deferred: float) -> str:
    """Return the name of the cascade that defers this share of the texts."""
    return f"defers-{round(100 * deferred)}"


def publish(
    path: Path,
    tokenizer: Path,
    times: StageTimes,
    shares: Sequence[float],
    *,
    gpu: bool = False,
    placement: str = "process",
) -> list[str]:
    """Publish a cascade for each share of deferred rows; all have the same two stages.

    Args:
        path: The model repository; it is created.
        tokenizer: The tokenizer.json of both stages.
        times: What a call of a stage takes.
        shares: The shares, 0 to 1.
        gpu: Whether calls are planned as for a GPU: all lengths share a call.
        placement: `[runtime] placement`.

    Returns:
        The names of the cascades.
    """
    path.mkdir(parents=True)
    artefact = path / "no-model.onnx"
    artefact.write_bytes(b"")
    settings = path / SETTINGS
    settings.write_text(json.dumps({"call_s": times.call_s, "row_s": times.row_s}))
    runtime = RuntimeConfig(placement=placement)
    if gpu and placement == "process":
        # Batches as before an engine: calls of all lengths may share one.
        runtime = RuntimeConfig(device="gpu", engine="tensorrt", precision="fp16", instances=1)
    names: list[str] = []
    for share in shares:
        policy = _policy(0.5 + share / 2 if share else 0.0, gpu=gpu)
        stages = [
            StageFiles(stage, artefact, tokenizer, others=(settings,)) for stage in policy.stages
        ]
        names.append(cascade_name(share))
        publish_cascade(path, names[-1], policy, stages, runtime)
    for stage in _policy(0.5, gpu=gpu).stages:
        source, target = Path(null_session.__file__), path / stage.model / "1" / "session.py"
        shutil.copyfile(source, target)
    artefact.unlink()
    settings.unlink()
    return names


def _policy(threshold: float, *, gpu: bool) -> Policy:
    # As `tune` finds them: a call of a small stage on a CPU costs about as much as 48 tokens.
    call_tokens, max_call_tokens = (ONE_CALL, ONE_CALL) if gpu else (48, 2048)
    stages = tuple(
        StagePolicy(
            model=model,
            version=1,
            tokenizer="shared",
            max_length=_BUCKETS[-1],
            max_batch_size=MAX_BATCH_SIZE,
            buckets=_BUCKETS,
            inputs=STAGE_INPUTS,
            temperature=1.0,
            threshold=value,
            label_indices=(0, 1),
            call_tokens=call_tokens,
            max_call_tokens=max_call_tokens,
        )
        for model, value in zip(STAGE_MODELS, (threshold, None), strict=True)
    )
    return Policy(
        labels=LABELS,
        pair=False,
        degrade=False,
        stages=stages,
        operating_points={_POINT: (threshold,)},
        default_operating_point=_POINT,
        request_timeout_s=60.0,
        audit_rate=0.0,
        certificate=None,
    )


def write_tokenizer(path: Path, texts: Sequence[str]) -> Path:
    """Write a WordPiece tokenizer, as BERT has it, made from these texts; return its path."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=8000, show_progress=False)
    tokenizer.save(str(path))
    return path


def install_least(repository: Path, cascade: str) -> str:
    """Put the least Python model beside a cascade, with its settings; return its name."""
    name = "least"
    shutil.copytree(repository / cascade, repository / name, dirs_exist_ok=True)
    shutil.rmtree(repository / name / "configs", ignore_errors=True)
    config = config_from_text((repository / cascade / CONFIG_FILE).read_text(encoding="utf-8"))
    config.name = name
    text = config_to_text(config)
    (repository / name / CONFIG_FILE).write_text(text, encoding="utf-8")
    shutil.copyfile(_LEAST_MODEL, repository / name / "1" / "model.py")
    return name
