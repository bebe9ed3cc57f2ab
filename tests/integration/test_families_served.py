"""Members of five families serve in one cascade, with special tokens inside the texts.

Another cascade reads the same texts with special tokens as plain text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import CascadeClient
from tests.support.checkpoints import write_config
from tests.support.families import DEFAULT_FAMILIES, save_family
from tests.support.serving import (
    Built,
    assert_congruent,
    build,
    one_row_at_concurrency_16,
    requests_of_mixed_sizes,
    serving,
)

# Other numbers of each special token.
SPECIAL = [
    "good film",
    "x </s> y </s> z",
    "the film </s>",
    "</s> </s> </s> good",
    "<s> a film <mask> <pad>",
    "<pad>",
    "the <unk> was not <pad> good",
    "[SEP] the [CLS] hotel",
]
EXTRA = "[runtime]\ninstances = 1\nbuckets = [16, 32]\n"


def build_families(folder: Path, name: str, families: tuple[str, ...], extra: str) -> Built:
    folder.mkdir()
    members = {f: save_family(folder / f, f) for f in families}
    config = write_config(folder, members, name=name, rate=0.7, extra=EXTRA + extra)
    with (folder / "rows.tsv").open("a", encoding="utf-8") as file:
        file.writelines(f"{text}\t{i % 2}\n" for i, text in enumerate(SPECIAL * 3))
    return build(config, folder.parent / "repository")


@pytest.fixture(scope="module")
def cascades(tmp_path_factory: pytest.TempPathFactory) -> tuple[Built, Built]:
    folder = tmp_path_factory.mktemp("families")
    mixed = build_families(folder / "mixed", "mixed", DEFAULT_FAMILIES, "")
    plain = build_families(
        folder / "plain",
        "plain",
        ("xlm-roberta", "bart"),
        '[tokenizer]\nspecial_tokens = "text"\n',
    )
    return mixed, plain


@pytest.fixture(scope="module")
def families(cascades: tuple[Built, Built]) -> Iterator[TritonServer]:
    with serving(cascades[0].repository) as server:
        yield server


@pytest.mark.parametrize("which", [0, 1], ids=["mixed", "plain"])
def test_server_and_evaluation_agree_on_texts_with_special_tokens(
    which: int, cascades: tuple[Built, Built], families: TritonServer
) -> None:
    built = cascades[which]
    for threshold in (None, 0.6):
        for ask in (requests_of_mixed_sizes, one_row_at_concurrency_16):
            answers = ask(families.url, built.name, built.texts, threshold)
            assert_congruent(built, answers, threshold)
    stages = {answer.exit_stage for answer in answers}
    assert len(stages) > 1, "one stage answers all rows"


@pytest.mark.parametrize("which", [0, 1], ids=["mixed", "plain"])
def test_every_family_answers_a_row_alike_alone_and_beside_others(
    which: int, cascades: tuple[Built, Built], families: TritonServer
) -> None:
    built = cascades[which]
    with CascadeClient(families.url, built.name) as client:
        for stage, policy in enumerate(built.policy.stages):
            together = client.classify(SPECIAL, stage=stage)
            alone = [client.classify(text, stage=stage) for text in SPECIAL]
            np.testing.assert_allclose(
                [answer.probabilities for answer in together],
                [answer.probabilities for answer in alone],
                atol=1e-5,
                err_msg=policy.model,
            )


def test_the_text_setting_changes_only_texts_with_special_tokens(
    cascades: tuple[Built, Built],
) -> None:
    mixed, plain = cascades
    for member in plain.steps.config.members:
        (other,) = (m for m in mixed.steps.config.members if m.name == member.name)
        ours, theirs = (
            steps.exported(m).stage_input.encoder.encode([*SPECIAL, "the film was good"])
            for steps, m in ((plain.steps, member), (mixed.steps, other))
        )
        same = [a.ids.tolist() == b.ids.tolist() for a, b in zip(ours, theirs, strict=True)]
        assert same == [not any(t in text for t in ("<", "</")) for text in
                        [*SPECIAL, "the film was good"]]  # fmt: skip
