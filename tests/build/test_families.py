"""The family matrix: tiny random members of many families are exported as transformers has them.

Each must agree with its checkpoint to the last digits, and answer a row alike whatever shares its
call. CASCADEBERT_LONG=1 tries all families; the others run in any case. The names of the families
are the table in docs/support.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.graphs import export
from cascadebert_build.graphs.end_of_sequence import logits_at_last_end
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.pipeline.workspace import workspace_of
from cascadebert_build.verification.comparison import FEW_ROWS
from cascadebert_engine.files import sha256_of_file
from tests.support.checkpoints import write_config
from tests.support.exports import export_members
from tests.support.families import DEFAULT_FAMILIES, FAMILIES, save_family, trained_tokenizer
from tests.support.sizes import sized

SUPPORT_PAGE = Path(__file__).parents[2] / "docs" / "support.md"


def steps_of(folder: Path, family: str, extra: str = "") -> CascadeBuild:
    checkpoint = save_family(folder / family, family)
    config = config_from_file(write_config(folder, {"only": checkpoint}, extra=extra))
    return CascadeBuild(config, workspace_of(config, None))


@pytest.mark.parametrize("family", FAMILIES if sized(0, 1) else DEFAULT_FAMILIES)
def test_a_family_agrees_with_transformers_and_answers_rows_alone(
    family: str, tmp_path: Path
) -> None:
    steps = steps_of(tmp_path, family)
    export_members(steps)
    (member,) = steps.config.members
    report = steps.verify(member)
    assert report is not None
    assert report, report.failures()
    scale = np.abs(steps.reference_logits(member)).max()
    assert report.max_difference <= 1e-6 * max(1, scale)
    assert all(case.rows == 2 * FEW_ROWS for case in report.calls if case.batch > 1)
    sampled = steps.exported(member).stage_input.sampled_buckets
    # No text of some families has as few as 4 tokens.
    assert {4, *(case.length for case in report.calls)} == {4, *sampled}
    assert max(case.batch_difference for case in report.calls) <= 1e-6 * max(1, scale)


def test_the_support_page_has_every_family() -> None:
    page = SUPPORT_PAGE.read_text(encoding="utf-8")
    for family in FAMILIES:
        assert f"`{family}`" in page, family


def test_a_graph_that_pools_over_the_batch_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BART with transformers' mistake in a milder form: the ends of the whole batch count.

    With special tokens as plain text each row has one end, so the same graph is right.
    """

    def pooled(model: Any, *, input_ids: Any, attention_mask: Any) -> Any:
        logits = logits_at_last_end(model, input_ids=input_ids, attention_mask=attention_mask)
        ends = (input_ids == model.config.eos_token_id).sum(dim=1, keepdim=True).float()
        return logits + (ends.mean() - ends)

    monkeypatch.setattr(export, "logits_at_last_end", pooled)
    steps = steps_of(tmp_path, "bart")
    (member,) = steps.config.members
    steps.export(member)  # by hand: the shared exports have the right graph
    with pytest.raises(
        CheckFailed, match=r"graph of 'only' .* depends on the rest of its batch, .*special_tokens"
    ):
        steps.build(tmp_path / "repository")
    assert not (tmp_path / "repository").exists()

    graph = sha256_of_file(steps.workspace.onnx(member))
    steps = steps_of(tmp_path, "bart", '[tokenizer]\nspecial_tokens = "text"')
    assert steps.build(tmp_path / "repository").written == ("cascade_only", "cascade")
    assert sha256_of_file(steps.workspace.onnx(member)) == graph, "only the tokenizer is new"
    ids = steps.exported(member).stage_input.encoder.encode(["good </s> film", "film"])
    assert [(row.ids == steps.exported(member).stage_input.encoder.encode([""])[0].ids[-1]).sum()
            for row in ids] == [1, 1]  # fmt: skip


def test_a_tokenizer_that_adds_no_end_is_refused(tmp_path: Path) -> None:
    folder = save_family(tmp_path / "bart", "bart")
    trained_tokenizer("causal").save_pretrained(folder)
    config = config_from_file(write_config(tmp_path, {"only": folder}))
    steps = CascadeBuild(config, workspace_of(config, None))
    with pytest.raises(UsageError, match="reads its end-of-sequence token"):
        steps.export(steps.config.members[0])
