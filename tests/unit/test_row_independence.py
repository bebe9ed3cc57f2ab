"""The checks of graphs and plans find a row whose answer depends on the rest of its call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from cascadebert_build.errors import CheckFailed
from cascadebert_build.graphs.logits import Run, StageInput
from cascadebert_build.verification.engine import verify_engine
from cascadebert_build.verification.optimized import verify_graph
from cascadebert_build.verification.reference import Reference, reference_of_texts
from cascadebert_build.verification.sample import sample_of_texts
from cascadebert_core.batching import StageBatch
from cascadebert_core.tokenization import Encoder
from tests.unit.test_engine_machine import MANIFEST

BUCKETS = (8, 32, 128)
WORDS = ["good", "bad", "film", "plot", "the"]
TEXTS = [" ".join(WORDS[(i + j) % 5] for j in range(1 + 7 * i % 60)) for i in range(40)]
PAD, END, UNKNOWN = 0, 1, 3


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> StageInput:
    """A tokenizer of words that ends each text with </s>."""
    vocabulary = {t: i for i, t in enumerate(["<pad>", "</s>", "<mask>", "<unk>", *WORDS])}
    rust = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rust.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", END)])
    rust.add_special_tokens(["<pad>", "</s>", "<mask>", "<unk>"])
    rust.enable_padding(pad_id=PAD, pad_token="<pad>")
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    rust.save(str(path))
    return StageInput(Encoder(path, 128), ("input_ids", "attention_mask"), BUCKETS)


def honest(batch: StageBatch) -> NDArray[np.float32]:
    """Logits of a row's own tokens: the mean of their ids."""
    ids, mask = batch.tensors["input_ids"], batch.tensors["attention_mask"]
    value = (ids * mask).sum(axis=1) / mask.sum(axis=1)
    return np.stack([-value, value], axis=1).astype(np.float32)


def by_ends(batch: StageBatch) -> NDArray[np.float32]:
    """BART's way: the ends of all rows in one list, which is cut into as many parts as rows."""
    ids = batch.tensors["input_ids"]
    positions = np.nonzero(ids == END)[1]
    value = positions.reshape(len(ids), -1)[:, -1].astype(np.float32)
    return np.stack([-value, value], axis=1)


def by_mean_of_batch(batch: StageBatch) -> NDArray[np.float32]:
    logits = honest(batch)
    return logits + np.float32(0.1) * logits.mean(axis=0)


def by_padding(batch: StageBatch) -> NDArray[np.float32]:
    return honest(batch) + np.float32(batch.shape[1] / 100)


def by_ends_modulo(batch: StageBatch) -> NDArray[np.float32]:
    """The same mistake in a form that always runs: the number of ends in the whole batch."""
    ids = batch.tensors["input_ids"]
    extra = (ids == END).sum() - len(ids)
    return honest(batch) + np.float32(0.01) * np.float32(extra if len(ids) > 1 else 0)


def graph_failures(run: Run, stage: StageInput, most: int = 16) -> list[str]:
    reference = reference_of_texts(run, stage, TEXTS)
    return verify_graph(
        run, reference, stage, member="small", precision="fp32", max_batch_size=most
    ).failures()


def plan_failures(run: Run, stage: StageInput) -> list[str]:
    def single(batch: StageBatch) -> NDArray[np.float32]:
        return np.concatenate([run(batch_of(batch, row)) for row in range(batch.shape[0])])

    reference = reference_of_texts(single, stage, TEXTS)
    fitting = [i for i, row in enumerate(reference.rows) if len(row) <= 128]
    assert len(fitting) == len(reference.rows)
    return verify_engine(run, MANIFEST, reference, pad_id=PAD).failures()


def batch_of(batch: StageBatch, row: int) -> StageBatch:
    return StageBatch({name: tensor[row : row + 1] for name, tensor in batch.tensors.items()})


BOTH = pytest.mark.parametrize("failures", [graph_failures, plan_failures])
Failures = Callable[[Run, StageInput], list[str]]


@BOTH
def test_rows_on_their_own_pass(failures: Failures, stage: StageInput) -> None:
    assert failures(honest, stage) == []


@BOTH
@pytest.mark.parametrize(
    ("run", "kinds", "remedy"),
    [
        (by_mean_of_batch, ["rows of other lengths", "rows with special"], "max_batch_size = 1"),
        (by_ends_modulo, ["rows with special"], 'special_tokens = "text"'),
    ],
)
def test_a_row_that_depends_on_its_batch_is_named(
    failures: Failures, run: Run, kinds: list[str], remedy: str, stage: StageInput
) -> None:
    found = [f for f in failures(run, stage) if "the rest of its batch" in f]
    assert len(found) == len(kinds)
    for failure, kind in zip(found, kinds, strict=True):
        assert f"beside {kind}" in failure
        assert "row" in failure.partition("tolerance")[2], "the row is named"
    assert remedy in found[0]
    assert not any("depends on padding" in f for f in failures(run, stage))


def test_padding_that_changes_an_answer_is_told_from_other_rows(stage: StageInput) -> None:
    found = graph_failures(by_padding, stage)
    assert any("depends on padding, by 1.2e+00" in f and "another checkpoint" in f for f in found)


@BOTH
def test_a_call_that_cannot_run_is_a_failed_check(failures: Failures, stage: StageInput) -> None:
    with pytest.raises(
        CheckFailed,
        match=r'cannot run a call .* beside rows with special .*special_tokens = "text"',
    ):
        failures(by_ends, stage)


def test_calls_of_one_row_need_no_independence(stage: StageInput) -> None:
    """max_batch_size = 1 is the remedy that the messages name."""
    assert graph_failures(by_mean_of_batch, stage, most=1) == []
    assert graph_failures(by_ends_modulo, stage, most=1) == []


def test_the_sample_has_every_special_token_in_several_counts(stage: StageInput) -> None:
    sample = sample_of_texts(TEXTS, stage)
    assert len(sample.texts) == len(sample.names) == len(set(sample.names))
    plain, special = sample.texts[: -sample.special], sample.texts[-sample.special :]
    tokens = ("</s>", "<pad>", "<mask>", "<unk>")
    assert not any(token in text for text in plain for token in tokens)
    assert all(any(token in text for text in special) for token in tokens)
    ends = {(row.ids == END).sum() for row in stage.encoder.encode(sample.texts)}
    assert len(ends) > 2, "a model that counts ends sees other counts in one batch"
    assert any(len(row) <= BUCKETS[0] for row in stage.encoder.encode(special))


def test_pairs_have_special_tokens_in_their_first_text(stage: StageInput) -> None:
    sample = sample_of_texts([(text, "the film") for text in TEXTS], stage)
    assert all(isinstance(text, tuple) and len(text) == 2 for text in sample.texts)
    assert sum("</s>" in text[0] for text in sample.texts) >= 2


def test_a_reference_keeps_the_names_of_its_rows(stage: StageInput, tmp_path: Path) -> None:
    from cascadebert_build.verification.reference import reference_from_file

    written = reference_of_texts(honest, stage, TEXTS)
    written.save(tmp_path / "reference.npz")
    read: Reference = reference_from_file(tmp_path / "reference.npz")
    assert (read.names, read.special, read.plain) == (
        written.names, written.special, len(read.rows) - read.special,
    )  # fmt: skip
    assert read.special > 0
