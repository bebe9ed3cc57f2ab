"""A cascade built, evaluated and served through the Python API."""

from __future__ import annotations

from pathlib import Path

import pytest

import cascadebert_build as cascadebert
from cascadebert_build.errors import UsageError
from cascadebert_client import CascadeClient
from tests.support.checkpoints import TEXTS, save_checkpoint, write_config
from tests.support.exports import export_config


def test_a_cascade_is_built_evaluated_and_served(tmp_path: Path) -> None:
    members = {
        "small": save_checkpoint(tmp_path / "a", num_hidden_layers=1),
        "large": save_checkpoint(tmp_path / "b", seed=1),
    }
    path = write_config(tmp_path, members, name="tiny", rate=0.4)
    config = cascadebert.load_config(path)
    with pytest.raises(UsageError, match="not exported"):
        cascadebert.tune(config)
    export_config(path)
    repository = tmp_path / "repository"
    built = cascadebert.build(config, repository)
    assert (built.version, built.written) == (1, ("tiny_small", "tiny_large", "tiny"))
    assert cascadebert.tune(config).id == built.policy.id
    assert cascadebert.publish(config, repository).written == ()
    evaluated = cascadebert.evaluate(config, all_rows=True)
    assert evaluated.policy.id == built.policy.id
    assert evaluated.evaluation.rows == len(evaluated.rows.texts) == len(evaluated.outcome.labels)
    with (
        cascadebert.serve(repository, ["tiny"]) as server,
        CascadeClient(server.url, "tiny") as client,
    ):
        answers = client.classify(TEXTS, timeout_s=60)
    assert {answer.policy for answer in answers} == {built.policy.id}
