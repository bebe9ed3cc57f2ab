"""A repository that an earlier release published: it is read, and the next version goes beside it.

`tests/support/published_before` has the text files of what the release before the module
`model_repository` wrote; artefacts, tokenizers and code are left out.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cascadebert_build.config.schema import RuntimeConfig
from cascadebert_build.repository.deployment import PlacementOverrides, deployment_of
from cascadebert_build.repository.model_config import read_config, versions_of_config
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_build.repository.publish import StageFiles, publish_cascade
from tests.support.policies import write_tokenizer

BEFORE = Path(__file__).parents[1] / "support" / "published_before"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    shutil.copytree(BEFORE, tmp_path / "repository")
    (tmp_path / "repository" / "tiny" / "1" / "cascadebert_core").mkdir()
    (tmp_path / "repository" / "tiny" / "1" / "model.py").write_text("# of an earlier release\n")
    return tmp_path / "repository"


def test_it_is_read(repository: Path) -> None:
    cascade = ModelRepository.read(repository).cascade("tiny")
    assert (cascade.versions, cascade.served, cascade.newest) == ((1,), (1,), 1)
    assert cascade.stages() == {"tiny_small": {1}, "tiny_large": {1}}
    deployed = deployment_of(cascade, cascade.served, PlacementOverrides({"": 1}))
    assert set(deployed.stages) == {"tiny_small", "tiny_large"}
    assert deployed.policies[1].thresholds == cascade.policy().thresholds


def test_the_next_version_goes_beside_it(repository: Path, tmp_path: Path) -> None:
    policy = ModelRepository.read(repository).cascade("tiny").policy()
    before = (repository / "tiny" / "1" / "policy.json").read_bytes()
    tokenizer = write_tokenizer(tmp_path / "source")
    onnx = tmp_path / "model.onnx"
    onnx.write_bytes(b"new")
    files = [StageFiles(stage, onnx, tokenizer) for stage in policy.stages]
    published = publish_cascade(repository, "tiny", policy, files, RuntimeConfig())
    assert (published.version, published.written) == (2, ("tiny_small", "tiny_large", "tiny"))
    cascade = ModelRepository.read(repository).cascade("tiny")
    assert (cascade.versions, cascade.served) == ((1, 2), (2,))
    assert cascade.stages([1]) == {"tiny_small": {1}, "tiny_large": {1}}
    assert cascade.stages([2]) == {"tiny_small": {2}, "tiny_large": {2}}
    assert versions_of_config(read_config(repository / "tiny_small")) == [1, 2]
    assert (repository / "tiny" / "1" / "policy.json").read_bytes() == before
