"""The RoBERTa pair: its tokenizer is the family's, its positions suffice, its runs are in order."""

from __future__ import annotations

from pathlib import Path

from benchmarks.studies.accuracy.roberta import base_checkpoint, runs_of
from benchmarks.studies.accuracy.training import MAX_LENGTH, Place
from cascadebert_build.checkpoints.checkpoint import checkpoint_from_source
from cascadebert_build.config.rows import Rows
from tests.support.checkpoints import TEXTS


def test_a_base_is_a_checkpoint_of_the_family(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path / "bases", tmp_path, "fp32")
    rows = Rows(tuple(TEXTS), (0, 1) * (len(TEXTS) // 2), "test")
    base = base_checkpoint("small", 1, rows, place)
    checkpoint = checkpoint_from_source(str(base))
    assert checkpoint.model.config.model_type == "roberta"
    assert checkpoint.inputs == ("input_ids", "attention_mask")
    assert checkpoint.max_positions() == MAX_LENGTH
    tokens = checkpoint.tokenizer(["the film was good", "the plot was \u00e7a"], padding=True)
    ids = tokens["input_ids"]
    assert [row[0] for row in ids] == [0, 0]  # <s>
    assert 1 in ids[0]  # the first is shorter, and is padded
    assert 3 not in ids[0] + ids[1]  # bytes know no unknown token
    assert checkpoint.tokenizer.decode(ids[1], skip_special_tokens=True) == "the plot was \u00e7a"
    weights = (base / "model.safetensors").read_bytes()
    assert base_checkpoint("small", 1, rows, place) == base
    assert (base / "model.safetensors").read_bytes() == weights
    other = base_checkpoint("small", 2, rows, place)
    assert (other / "model.safetensors").read_bytes() != weights


def test_every_run_comes_behind_those_that_it_needs() -> None:
    runs = runs_of([1, 2])
    assert len({run.name for run in runs}) == len(runs) == 9
    assert runs[2].name == "sst2-roberta-plain-1-seed1"
    for i, run in enumerate(runs):
        needed = {other.name for other in run.needs}
        assert needed <= {other.name for other in runs[:i]}
