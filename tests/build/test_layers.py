"""Layers taken from a deeper model, in every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cascadebert_build.checkpoints.checkpoint import checkpoint_from_source
from cascadebert_build.cli import main
from cascadebert_build.errors import UsageError
from cascadebert_build.training.base import model_from_base
from cascadebert_build.training.layers import take_layers
from tests.support.checkpoints import FAMILIES, save_checkpoint, write_rows
from tests.support.families import save_family

DEPTH = {"distilbert": "n_layers"}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_what_is_left_is_a_complete_checkpoint(family: str, tmp_path: Path) -> None:
    deep: Any = {DEPTH.get(family, "num_hidden_layers"): 4}
    source = save_checkpoint(tmp_path / "deep", family, **deep)
    checkpoint = checkpoint_from_source(str(source))
    weights = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    take_layers(checkpoint.model, [0, 3])
    checkpoint.model.save_pretrained(tmp_path / "taken")
    checkpoint.tokenizer.save_pretrained(str(tmp_path / "taken"))
    taken = checkpoint_from_source(str(tmp_path / "taken"))
    assert taken.model.config.num_hidden_layers == 2
    state = taken.model.state_dict()
    kept = {name for name in state if ".layer." in name}
    assert {name.split(".layer.")[1].split(".")[0] for name in kept} == {"0", "1"}
    for name in kept:
        head, _, tail = name.partition(".layer.")
        index, _, rest = tail.partition(".")
        source_name = f"{head}.layer.{ {'0': '0', '1': '3'}[index] }.{rest}"
        assert torch.equal(state[name], weights[source_name])
    tokens = taken.tokenizer("the film was good", return_tensors="pt")
    logits = taken.model(**{name: tokens[name] for name in taken.inputs}).logits
    assert logits.shape == (1, 2)


@pytest.mark.parametrize("family", ["modernbert", "qwen2"])
def test_layers_that_attend_in_different_ways_keep_theirs(family: str, tmp_path: Path) -> None:
    changes: Any = {"num_hidden_layers": 4}
    if family == "qwen2":
        changes |= {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}
    source = save_family(tmp_path / "deep", family, **changes)
    checkpoint = checkpoint_from_source(str(source))
    config: Any = checkpoint.model.config
    types = list(config.layer_types)
    assert len(set(types)) == 2
    take_layers(checkpoint.model, [0, 3])
    checkpoint.model.save_pretrained(tmp_path / "taken")
    checkpoint.tokenizer.save_pretrained(str(tmp_path / "taken"))
    taken: Any = checkpoint_from_source(str(tmp_path / "taken")).model
    assert taken.config.layer_types == [types[0], types[3]]
    tokens = checkpoint.tokenizer("the film was good", return_tensors="pt")
    inputs = {name: tokens[name] for name in checkpoint.inputs}
    with torch.no_grad():
        assert torch.equal(taken.eval()(**inputs).logits, checkpoint.model.eval()(**inputs).logits)


def test_the_first_layer_of_modernbert_stays_the_first(tmp_path: Path) -> None:
    checkpoint = checkpoint_from_source(str(save_family(tmp_path / "c", "modernbert")))
    with pytest.raises(UsageError, match="layer 0 must stay the first"):
        take_layers(checkpoint.model, [1])


@pytest.mark.parametrize("indices", [[], [0, 0], [2], [-1]])
def test_layers_that_there_are_not(indices: list[int], tmp_path: Path) -> None:
    checkpoint = checkpoint_from_source(str(save_checkpoint(tmp_path / "c")))
    with pytest.raises(UsageError, match="from 0 to 1; the base has 2 layers"):
        take_layers(checkpoint.model, indices)


def test_a_small_member_from_a_large_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = str(save_checkpoint(tmp_path / "large", num_hidden_layers=3))
    data = str(write_rows(tmp_path / "rows.tsv"))
    out = tmp_path / "small"
    command = ["train", data, "--text", "sentence", "--base", large, "--teacher", large]
    command += ["--labels", "negative,positive", "--epochs", "1", "--max-length", "16"]
    assert main([*command, "--layers", "0,2", "--output", str(out)]) == 0
    assert checkpoint_from_source(str(out)).model.config.num_hidden_layers == 2
    assert "| layers of the base | 0, 2 |" in (out / "README.md").read_text()
    assert main([*command, "--layers", "0,7", "--output", str(tmp_path / "no")]) == 2
    assert "the base has 3" in capsys.readouterr().err
    assert main([*command, "--layers", "two", "--output", str(tmp_path / "no")]) == 2
    assert "--layers 'two'" in capsys.readouterr().err


def test_a_multi_label_base_trains_members_that_give_one_label(tmp_path: Path) -> None:
    labels = ("toxic", "insult", "threat")
    source = save_checkpoint(
        tmp_path / "a", labels=labels, problem_type="multi_label_classification"
    )
    model: Any = model_from_base(str(source), ("no", "yes"))
    assert model.config.problem_type is None
    model.save_pretrained(tmp_path / "b")
    assert '"multi_label' not in (tmp_path / "b" / "config.json").read_text()


def test_a_new_head_is_one_line_and_a_head_that_fits_is_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = str(save_checkpoint(tmp_path / "deep_base"))
    capfd.readouterr()
    model_from_base(source, ("a", "b", "c", "d"))
    said = capfd.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("base     deep_base")
    assert line.endswith("new head for 4 labels: its weights start at random")
    model_from_base(source, ("no", "yes"))
    assert capfd.readouterr() == ("", "")
