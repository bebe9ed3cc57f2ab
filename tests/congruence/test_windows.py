"""Long texts by windows: server, offline evaluation and PyTorch agree, and costs count windows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cascadebert_build.checkpoints.checkpoint import checkpoint_from_source, tokenizer_to_json
from cascadebert_build.cli import main
from cascadebert_build.evaluation.simulate import simulate
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import CascadeClient
from cascadebert_core.task import softmax
from cascadebert_core.tokenization import Encoder, windows_of_row
from cascadebert_core.windows import MAX, MEAN, Windows
from tests.support.checkpoints import TEXTS, make_tokenizer, save_checkpoint, write_config
from tests.support.families import trained_tokenizer
from tests.support.scoring import check_score
from tests.support.serving import Built, build, check_congruence, check_tie, serving

THREE = ("negative", "neutral", "positive")
# Of test_tiny_cascades.py, so that their exports are shared.
MEMBERS: tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...] = (
    ("bert", THREE, {"num_hidden_layers": 1}),
    ("roberta", THREE[::-1], {}),
    ("bert", (THREE[1], THREE[0], THREE[2]), {"num_hidden_layers": 3}),
)
KEYS = (
    'max_length = 16\nlong_texts = "mean"\nwindow_overlap = 4\nmax_windows = 3',
    "max_length = 16",
    'max_length = 24\nlong_texts = "max"',
)
WINDOWS = (Windows(MEAN, 4, 3), None, Windows(MAX, 3, 8))


@dataclass(frozen=True)
class Case:
    """A served cascade, its cascade.toml, and its checkpoints."""

    built: Built
    config: Path
    members: tuple[Path, ...]
    server: TritonServer


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    folder = tmp_path_factory.mktemp("windows")
    members = {
        f"m{i}": save_checkpoint(folder / f"m{i}", family, labels=labels, seed=i, **settings)
        for i, (family, labels, settings) in enumerate(MEMBERS)
    }
    config = write_config(folder, members, name="long", rate=0.6, max_length=16)
    text = config.read_text()
    for path, keys in zip(members.values(), KEYS, strict=True):
        line = f'checkpoint = "{path}"\n'
        assert f"{line}max_length = 16\n" in text
        text = text.replace(f"{line}max_length = 16\n", f"{line}{keys}\n")
    config.write_text(text)
    words = random.Random(0)
    with (folder / "rows.tsv").open("a", encoding="utf-8") as file:
        for i in range(100):
            long = " and ".join(words.sample(TEXTS, 1 + i % 12))
            file.write(f"{long}\t{i % 3}\n")
    built = build(config, folder / "repository")
    with serving(built.repository) as server:
        yield Case(built, config, tuple(members.values()), server)


async def test_every_row_gets_the_label_and_exit_stage_of_the_evaluation(case: Case) -> None:
    policy = case.built.policy
    assert tuple(stage.windows for stage in policy.stages) == WINDOWS
    outcome = simulate(policy, case.built.logits())
    confidences = outcome.stage_confidence[:, 0]
    thresholds = [None, float(np.quantile(confidences, 0.7)), 0.0]
    await check_congruence(case.server.url, case.built, thresholds)
    check_tie(case.server.url, case.built)
    long = np.array([len(str(text).split()) > 20 for text in case.built.texts])
    assert set(outcome.exit_stage[long].tolist()) == {0, 1, 2}, "a stage answers no long text"


def test_score_gives_the_answers_of_the_evaluation(case: Case, tmp_path: Path) -> None:
    check_score(case.built, tmp_path)


@pytest.mark.parametrize("stage", [0, 2])
def test_the_answers_are_those_of_windows_in_pytorch(stage: int, case: Case) -> None:
    policy = case.built.policy
    of = policy.stages[stage]
    assert of.windows is not None
    checkpoint = checkpoint_from_source(str(case.members[stage]))
    model: Any = checkpoint.model
    texts = [str(text) for text in case.built.texts[100:130]]
    size, columns = of.max_length - 2, list(of.label_indices)
    logits: list[np.ndarray] = []
    several = 0
    for text in texts:
        start, *own, end = checkpoint.tokenizer(text)["input_ids"]
        windows = [
            [start, *own[begin : begin + size], end] for begin in of.windows.starts(len(own), size)
        ]
        several += len(windows) > 1
        with torch.inference_mode():
            alone = [model(torch.tensor([ids])).logits[0].numpy()[columns] for ids in windows]
        if of.windows.pool == MEAN:
            logits.append(np.mean(alone, axis=0))
        else:
            logits.append(np.log(softmax(np.array(alone)).max(axis=0)))
    assert several > 15
    expected = softmax(np.array(logits, np.float32) / np.float32(of.temperature))
    with CascadeClient(case.server.url, "long") as client:
        answers = client.classify(texts, stage=stage)
    served = np.array([answer.probabilities for answer in answers])
    np.testing.assert_allclose(served, expected, atol=1e-4)


def test_costs_and_reports_count_windows(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    steps = case.built.steps
    costs = steps.row_costs(case.built.policy)
    assert costs is not None
    assert costs.macs is not None
    tokenizer = checkpoint_from_source(str(case.members[0])).tokenizer
    counts = np.array([len(tokenizer(str(text))["input_ids"]) for text in case.built.texts])
    n_windows = np.array([WINDOWS[0].count(count - 2, 14) for count in counts])
    # A text of one window is padded to the next 4 tokens, the windows of others to 16.
    tokens = np.where(n_windows > 1, 16 * n_windows, -(-counts // 4) * 4)
    assert min(tokens) < 16 < max(tokens)
    np.testing.assert_allclose(costs.macs[:, 0] / costs.macs[0, 0], tokens / tokens[0])
    whole = tokens >= 16
    a_window_ms = costs.ms[tokens == 16, 0][0]
    np.testing.assert_allclose(costs.ms[whole, 0] / a_window_ms, tokens[whole] / 16)
    assert main([
        "evaluate", str(case.config), "--work-dir", str(steps.workspace.folder), "--all-rows",
        "--json",
    ]) == 0  # fmt: skip
    first, second, third = json.loads(capsys.readouterr().out)["truncation"]
    assert (first["windowed"], first["cut"]) == ((counts > 16).sum(), (counts > 36).sum())
    assert 0 < first["cut"] < first["windowed"] < len(counts)
    assert second["windowed"] == 0
    assert second["cut"] > 0
    assert (third["windowed"], third["cut"]) == ((counts > 24).sum(), (counts > 24 + 7 * 19).sum())


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["unigram", "bytes", "causal", "roberta"])
def test_windows_of_every_kind_of_tokenizer_make_up_the_text(
    kind: str, side: str, tmp_path: Path
) -> None:
    tokenizer = make_tokenizer(kind) if kind == "roberta" else trained_tokenizer(kind)
    path = tmp_path / "tokenizer.json"
    was = tokenizer.truncation_side
    tokenizer.truncation_side = side
    path.write_text(tokenizer_to_json(tokenizer), encoding="utf-8")
    tokenizer.truncation_side = was  # it is shared
    text = " </s> ".join(TEXTS[:9]) + " – déjà vu"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    windows = Windows(MEAN, 5, 40)
    encoder = Encoder(path, 20, windows)
    (row,) = encoder.encode([text])
    whole = tokenizer(text)["input_ids"]
    before = next(i for i in range(2) if whole[i : i + len(ids)] == ids)
    own = [
        window.ids[before : before + encoder.window_size].tolist() for window in windows_of_row(row)
    ]
    starts = windows.starts(len(ids), encoder.window_size)
    if side == "left":
        starts = [len(ids) - encoder.window_size - start for start in starts]
    assert own == [ids[start : start + encoder.window_size] for start in starts]
    assert encoder.window_size == 20 - (len(whole) - len(ids))
    assert not row.truncated
