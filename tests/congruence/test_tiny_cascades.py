"""Server and offline evaluation agree, on models made here; this always runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.checkpoints import save_checkpoint, write_config
from tests.support.scoring import check_score
from tests.support.serving import Asked, build, check_congruence, check_tie, serving

THREE = ("negative", "neutral", "positive")


@dataclass(frozen=True)
class Case:
    """A cascade: (family, label order, checkpoint settings) of each member."""

    name: str
    members: tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...]
    pair: bool = False


TWO = ("negative", "positive")
CASES = [
    Case("two-stages", (("bert", TWO, {"num_hidden_layers": 1}), ("bert", TWO, {}))),
    Case(
        "pairs",
        (("bert", TWO, {"num_hidden_layers": 1}), ("electra", TWO, {"seed": 0})), pair=True,
    ),
    Case(
        "three-stages-two-tokenizers",
        (("bert", THREE, {"num_hidden_layers": 1}), ("roberta", THREE[::-1], {}),
         ("bert", (THREE[1], THREE[0], THREE[2]), {"num_hidden_layers": 3})),
    ),
    Case("one-member", (("distilbert", TWO, {}),)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_every_row_gets_the_label_and_exit_stage_of_the_evaluation(
    case: Case, tmp_path: Path
) -> None:
    members: dict[str, Path] = {}
    for i, (family, labels, changes) in enumerate(case.members):
        settings: dict[str, Any] = {"seed": i, **changes}
        folder = tmp_path / f"m{i}"
        members[folder.name] = save_checkpoint(folder, family, labels=labels, **settings)
    config = write_config(tmp_path, members, name=case.name, pair=case.pair, rate=0.4)
    built = build(config, tmp_path / "repository")
    confidences = built_confidences(built)
    with serving(built.repository) as server:
        thresholds: list[Asked] = [None, float(np.quantile(confidences, 0.7)), 0.0]
        if len(members) > 2:
            thresholds.append((float(np.quantile(confidences, 0.3)), 0.9))
        await check_congruence(server.url, built, thresholds)
        if len(members) > 1:
            check_tie(server.url, built)
    check_score(built, tmp_path)


def built_confidences(built: object) -> np.ndarray:
    """The first stage's confidences, which random members spread well enough to gate on."""
    from cascadebert_build.evaluation.simulate import simulate
    from tests.support.serving import Built

    assert isinstance(built, Built)
    confidences = simulate(built.policy, built.logits()).stage_confidence[:, 0]
    assert np.ptp(confidences) > 0.05, "the members are too unsure of everything to test a gate"
    return confidences
