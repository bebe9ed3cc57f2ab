"""The study of gates: scores that no judged row has fitted, measures, promises, the blend."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.studies.accuracy import packed_logits
from benchmarks.studies.early_exit.exit_curves import patience_curve
from benchmarks.studies.gates.blends import blended, fit_weights
from benchmarks.studies.gates.comparisons import (
    AREA,
    AUROC,
    Effort,
    Ratio,
    figures_of,
    mean_over_tasks,
    promised_by_label,
)
from benchmarks.studies.gates.gates import AGREEMENT, gates_of, gates_of_twins
from benchmarks.studies.gates.measures import HeldOut, Judged, Population
from benchmarks.studies.gates.pairs import Group, Pair, log_softmax
from benchmarks.studies.gates.plots import draw_ratios
from benchmarks.studies.gates.pooled import outputs_of
from benchmarks.studies.gates.results import NOT_RUN, Results, body_of
from benchmarks.studies.gates.scores import (
    BY_LABEL,
    LEARNED,
    MONOTONE,
    columns_of,
    fit_logistic,
    halves_of,
    out_of_half,
)
from cascadebert_build.config.rows import Rows
from tests.support.checkpoints import save_checkpoint

_EFFORT = Effort(splits=2, resamples=4, held_out=HeldOut.of(1000))


def _pair(n: int = 600, seed: int = 0, n_labels: int = 2, *, harder: int | None = None) -> Pair:
    """A small member that is less sure where it differs; of one answer it is too sure."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n_labels, n)
    large = 4 * np.eye(n_labels)[truth] + rng.normal(0, 1, (n, n_labels))
    small = large + rng.normal(0, 2, (n, n_labels))
    if harder is not None:
        small[:, harder] += 3
    return Pair(small, large, truth, rng.integers(1, 40, n).astype(np.float64))


def _judged(pair: Pair, score: NDArray[np.float64]) -> Judged:
    return Judged(score, pair.small.argmax(axis=1), pair.large.argmax(axis=1), pair.truth)


def test_a_regression_finds_the_direction_and_may_be_kept_from_falling() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 2))
    positive = values[:, 0] - values[:, 1] + rng.normal(0, 0.3, 400) > 0
    up, down, _ = fit_logistic(values, positive)
    assert up > 1
    assert down < -1
    assert fit_logistic(values, positive, n_rising=2)[1] == 0


def test_no_row_is_scored_by_a_fit_on_itself() -> None:
    halves = halves_of(101, 3)
    assert sorted(np.concatenate(halves)) == list(range(101))

    def own_rows(fitting: NDArray[np.intp]) -> NDArray[np.float64]:
        return np.isin(np.arange(101), fitting).astype(np.float64)

    assert not out_of_half(101, halves, own_rows).any()


@pytest.mark.parametrize("n_labels", [2, 3])
def test_columns_of_every_gate_are_finite_even_for_certain_rows(n_labels: int) -> None:
    pair = _pair(20, n_labels=n_labels)
    pair.small[0] = 0
    pair.small[0, 0] = 500
    widths = [columns_of(pair, gate).values.shape[1] for gate in (BY_LABEL, MONOTONE, LEARNED)]
    assert widths == [2 * n_labels, 2 * n_labels + 1, 3 * n_labels + 4]
    assert np.isfinite(columns_of(pair, LEARNED).values).all()
    assert np.isfinite(log_softmax(pair.small)).all()


def test_a_gate_by_label_wins_where_one_answer_is_too_sure() -> None:
    group = Group("sst2", "plain-distilled-1", (0.1,), ((_pair(3000, harder=1),),))
    base, by_label, *_ = figures_of(group, gates_of(group), _EFFORT)
    assert by_label.gate == BY_LABEL
    assert by_label.of(AUROC) > base.of(AUROC) + 3
    assert by_label.gain(base, AREA).value > 0


def test_thresholds_by_label_in_hindsight_are_the_best_of_all() -> None:
    pair = _pair(60, harder=0)
    judged = _judged(pair, np.abs(pair.small[:, 0] - pair.small[:, 1]))
    cuts = np.append(judged.score, [-1.0, np.inf])
    least = min(
        100 * (1 - float(exits.mean()))
        for first, second in itertools.product(cuts, cuts)
        if (exits := judged.score > np.where(judged.answers == 0, first, second)).any()
        and (exits & (judged.answers != judged.large)).sum() <= 0.05 * len(exits)
    )
    assert judged.deferral_by_label_at(0.05) == pytest.approx(least)
    assert judged.deferral_by_label_at(0.05) <= judged.deferral_at(0.05)
    assert judged.deferral_by_label_at(1.0) == judged.deferral_at(1.0) == 0


def test_a_promise_is_tuned_on_the_rows_that_the_gate_has_left() -> None:
    held_out = HeldOut.of(1000)
    whole, rest = (held_out.left_for(fitted=fitted).thresholds for fitted in (False, True))
    assert (len(whole), len(rest)) == (600, 400)
    pair = _pair(4000)
    population = Population(_judged(pair, np.abs(pair.small[:, 0] - pair.small[:, 1])))
    rng = np.random.default_rng(1)
    tuned = [
        population.promised(population.draw(1000, rng), held_out.split, 0.05) for _ in range(40)
    ]
    assert 0 < np.mean([one.deferral for one in tuned]) < 100
    assert sum(one.broken for one in tuned) <= 8  # 2 are expected at the most


def test_rows_on_which_two_members_agree_exit_first() -> None:
    first, second = _pair(200, seed=1), _pair(200, seed=1, harder=1)
    group = Group("sst2", "two", (0.1, 0.2), ((first, second),))
    gate = next(gate for gate in gates_of_twins(group) if gate.name == AGREEMENT)
    judged = gate.judge(0, halves_of(200, 0))
    apart = first.small.argmax(axis=1) != second.small.argmax(axis=1)
    assert 0 < apart.sum() < 200
    assert judged.score[apart].max() < judged.score[~apart].min()
    base, agreeing, _ = figures_of(group, gates_of_twins(group), _EFFORT)
    # The cost has both members in it, so it is above the deferral's ratio.
    deferral = agreeing.ratio(base, "promised 1%").value
    assert agreeing.cost_ratio(base, "promised 1%").value == pytest.approx(
        (30 + agreeing.of("promised 1%")) / (20 + base.of("promised 1%"))
    )
    assert deferral > 0


def test_a_blend_takes_what_the_small_member_knows_and_no_noise() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, 2000)
    views = [np.eye(2)[truth] * 2 + rng.normal(0, 1.5, (2000, 2)) for _ in range(2)]
    words = np.ones(2000)
    helpful = Group("sst2", "helpful", (0.1,), ((Pair(views[0], views[1], truth, words),),))
    found = blended(helpful, _EFFORT)
    assert 0.3 < found.weight < 0.7
    assert found.alone.low > 0
    noise = rng.normal(0, 1, (2000, 2))
    logs = np.stack([log_softmax(views[1]), log_softmax(noise)])
    large, small = fit_weights(logs, truth)
    assert small < 0.1 * large


def test_a_mean_over_tasks_counts_each_task_once() -> None:
    ratios = [(task, Ratio(value, np.array([value]))) for task, value in
              (("a", 1.0), ("a", 2.0), ("b", 0.5))]  # fmt: skip
    assert mean_over_tasks(ratios).value == 1.0


def test_results_have_every_table(tmp_path: Path) -> None:
    pairs = [_pair(300, seed=seed) for seed in range(2)]
    groups = [
        Group("sst2", "plain-distilled-1", (0.1,), tuple((pair,) for pair in pairs)),
        Group("mnli-complete", "plain-distilled-3", (0.1,), ((_pair(300, n_labels=3),),)),
    ]
    twins = Group("sst2", "two", (0.1, 0.2), (tuple(pairs),))
    once = Effort(splits=1, resamples=1, held_out=HeldOut.of(1000))
    results = Results(
        [figures_of(group, gates_of(group), _EFFORT) for group in groups],
        [figures_of(twins, gates_of_twins(twins), _EFFORT)],
        [promised_by_label(group, gates_of(group)[0], once) for group in groups],
        [blended(group, _EFFORT) for group in groups],
    )
    body = body_of(results)
    assert body.count("\n## ") + body.startswith("## ") == 8
    for name in (BY_LABEL, MONOTONE, LEARNED, AGREEMENT, "margin", "entropy"):
        assert f"| {name} " in body
    # With two labels, margin and entropy order the rows as the largest probability does.
    by_task = [one for one in body.splitlines() if one.startswith("| sst2 ") and "| 300 " in one]
    assert [line.count(NOT_RUN) for line in by_task] == [2, 2]
    draw_ratios(tmp_path / "gates.png", results)
    assert (tmp_path / "gates.png").stat().st_size > 10_000


def test_packed_exits_of_pabee_keep_their_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.setattr(packed_logits, "FOLDER", tmp_path / "packed")
    logits = {
        ("rte", "pabee"): rng.normal(size=(50, 6, 2)),
        ("rte", "deebert"): rng.normal(size=(50, 6, 2)),
        ("mnli", "pabee"): rng.normal(size=(50, 6, 3)),
    }
    for (task, member), values in logits.items():
        name = tmp_path / f"{task}-{member}-seed1.npz"
        np.savez(name, logits=values.astype(np.float32), record=np.array("{}"))
    for task in ("rte", "mnli"):
        packed_logits.pack(task, tmp_path)
    for (task, member), values in logits.items():
        found = packed_logits.load_packed(task).of(member, 1)
        whole, packed = (patience_curve(of.astype(np.float16)) for of in (values, found))
        np.testing.assert_array_equal(packed.predicted, whole.predicted)
        np.testing.assert_array_equal(packed.layers_of_rows, whole.layers_of_rows)
        assert (len(np.unique(found)) == 2) == (member == "pabee")


@pytest.mark.parametrize("pair", [False, True])
def test_outputs_of_a_member_are_in_the_order_of_the_rows(tmp_path: Path, pair: bool) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = save_checkpoint(tmp_path / "member")
    singles = ("a b c d e", "f", "g h", "i j k")
    texts = tuple((text, "z") for text in singles) if pair else singles
    logits, vectors = outputs_of(folder, Rows(texts, None, "made"))
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, found in zip(texts, logits, strict=True):
        parts = (text,) if isinstance(text, str) else text
        with torch.inference_mode():
            expected = model(**tokenizer(*parts, return_tensors="pt")).logits[0]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    head = model.classifier
    own = vectors @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(own, logits, atol=1e-4)
