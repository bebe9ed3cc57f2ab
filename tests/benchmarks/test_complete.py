"""Complete members: their weights, rows and runs, and answers within a budget of multiply-adds."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from benchmarks.studies.accuracy import gpu_parts, packed_logits
from benchmarks.studies.accuracy.budgets import (
    best_single,
    cascade_curve,
    held_out_answers,
    three_stage_curve,
)
from benchmarks.studies.accuracy.complete import ORDER, base_of, runs_of_complete
from benchmarks.studies.accuracy.complete_comparisons import (
    Gain,
    answers_at,
    gain_of,
    methods_of,
)
from benchmarks.studies.accuracy.complete_costs import measured_costs
from benchmarks.studies.accuracy.complete_plots import draw_mean, mean_over_tasks
from benchmarks.studies.accuracy.packed_logits import Packed
from benchmarks.studies.accuracy.plan import Run
from benchmarks.studies.accuracy.pretrained import weights_of_graph
from benchmarks.studies.accuracy.training import (
    Place,
    restore_teacher,
    teacher_logits,
    write_run,
)
from benchmarks.studies.shared import TASKS, dev_rows, train_rows
from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.training.glue import accuracy


def test_weights_of_a_graph_without_names_get_them_back() -> None:
    model = BertModel(
        BertConfig(
            vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=12, max_position_embeddings=9,
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    expected = {name: value.numpy() for name, value in model.state_dict().items()}
    graph, number = onnx.GraphProto(), 7
    for name, value in expected.items():
        product = name.startswith("encoder.") and value.ndim == 2
        # The numbers ascend with gaps, and 10 comes after 9.
        number += 3
        stored = f"onnx::MatMul_{number}" if product else f"model.0.auto_model.{name}"
        graph.initializer.append(numpy_helper.from_array(value.T if product else value, stored))
    graph.initializer.reverse()
    found = weights_of_graph(onnx.ModelProto(graph=graph).SerializeToString())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_training_elsewhere_needs_the_packages_that_are_named() -> None:
    listed = (
        "import sys, benchmarks.studies.accuracy.complete, benchmarks.studies.accuracy.gpu_parts\n"
        "files = [getattr(m, '__file__', None) or '' for m in sys.modules.values()]\n"
        "parts = [f.split('site-packages/')[1] for f in files if 'site-packages/' in f]\n"
        "print(*{part.split('/')[0].removesuffix('.py') for part in parts})"
    )
    found = subprocess.run(
        [sys.executable, "-c", listed], check=False, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    named = {"tabulate", "tqdm", "tritonclient", "torch", "transformers", "accelerate"}
    of_those = {"numpy", "grpc", "ml_dtypes", "torchgen", "pynvml", "typing_extensions"}
    of_those |= {"tomli", "coverage"}  # of Python 3.10, and of `make coverage`
    loaded = {name for name in found.stdout.split() if not name.startswith(("_", "distutils"))}
    assert loaded <= named | of_those
    assert all(name in str(gpu_parts.__doc__) for name in named)


def test_every_run_comes_after_those_that_it_needs() -> None:
    for task in ORDER:
        runs = list(runs_of_complete(task, [1, 2]))
        assert len({run.name for run in runs}) == len(runs) == 27
        for i, run in enumerate(runs):
            assert set(run.needs) <= set(runs[:i])
    bases = {run.member: base_of(run) for run in runs_of_complete("rte", [1])}
    assert bases["cut-distilled-2"] == bases["pabee"] == bases["large"] == "mpnet"
    assert (bases["dar-3"], bases["plain-6"], bases["difficulty"]) == ("l3", "l6", "l3")


def test_a_teacher_is_packed_so_that_others_learn_without_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_logits, "FOLDER", tmp_path / "packed")
    student = Run("sst2-complete", 1, "plain", 3, distilled=True)
    (teacher,) = student.needs
    here, there = (Place(tmp_path, tmp_path, tmp_path / name, "fp32") for name in ("a", "b"))
    known = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    write_run(here.result(teacher), time.monotonic(), {}, logits=known)
    packed_logits.pack(student.task, here.result(teacher).parent)
    assert not there.serves(teacher)
    restore_teacher(there, student.task, [1, 2])
    assert there.serves(teacher)
    assert not there.serves(Run(student.task, 2, teacher.kind))
    found = teacher_logits(there, student)
    # Of two labels the difference is kept, in half precision.
    np.testing.assert_allclose(np.diff(found), np.diff(known), rtol=1e-3, atol=1e-3)


def test_rows_of_one_file_train_or_judge(tmp_path: Path) -> None:
    (tmp_path / "MNLI").mkdir()
    lines = [f"{i}\tpremise {i}\thypothesis\tneutral" for i in range(8_100)]
    (tmp_path / TASKS["mnli"].dev).write_text(
        "\n".join(["index\tsentence1\tsentence2\tgold_label", *lines]) + "\n"
    )
    train, dev = train_rows(tmp_path, TASKS["mnli"]), dev_rows(tmp_path, TASKS["mnli"])
    assert (len(train.texts), len(dev.texts)) == (8_000, 100)
    assert len({*train.texts, *dev.texts}) == 8_100


def test_a_file_without_header(tmp_path: Path) -> None:
    (tmp_path / "CoLA").mkdir()
    (tmp_path / TASKS["cola"].dev).write_text('gj04\t1\t\tHe "left.\nks08\t0\t*\tLeft he.\n')
    rows = dev_rows(tmp_path, TASKS["cola"])
    assert rows.texts == ('He "left.', "Left he.")
    assert rows.label_indices(TASKS["cola"].labels).tolist() == [1, 0]


def members(n: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels, and three members that are right more often the later they come."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    found: list[np.ndarray] = []
    for floor in (0.5, 0.75, 1.0):
        sure = rng.uniform(0, 1, n)
        right = rng.uniform(0, 1, n) < floor + (1 - floor) * sure
        found.append(np.eye(2)[np.where(right, labels, 1 - labels)] * (1 + sure[:, None] * 5))
    return labels, found


def test_three_stages_pay_for_what_they_run_and_end_with_the_last() -> None:
    _, (first, second, last) = members(500)
    curve = three_stage_curve([first, second, last], (1, 2, 12))
    assert curve.layers[0] == 1
    np.testing.assert_array_equal(curve.predicted[0], first.argmax(1))
    assert curve.layers[-1] == 15
    np.testing.assert_array_equal(curve.predicted[-1], last.argmax(1))
    assert set(np.unique(curve.layers_of_rows)) == {1, 3, 15}
    assert (np.diff(curve.layers) >= 0).all()


def test_held_out_answers_cost_the_budget_and_are_the_better_ones() -> None:
    labels, (first, second, last) = members(2000)
    curve = three_stage_curve([first, second, last], (1, 2, 12))
    found = held_out_answers(curve, 5.0)
    assert found is not None
    assert found.layers == pytest.approx(5.0, abs=0.3)
    three = np.mean([accuracy(one, labels) for one in found.predicted])
    two = held_out_answers(cascade_curve(first, last, 1, 12), 5.0)
    assert two is not None
    assert three > np.mean([accuracy(one, labels) for one in two.predicted]) > 0.75
    assert held_out_answers(curve, 0.9) is None


def test_the_best_single_member_within_a_budget() -> None:
    labels, found = members(2000)
    for budget, expected in ((2.5, 1), (12.0, 2), (1.0, 0)):
        single = best_single(found, (1, 2, 12), labels, budget=budget, metric=accuracy)
        assert single is not None
        np.testing.assert_array_equal(single.predicted[0], found[expected].argmax(1))
        assert single.layers == (1, 2, 12)[expected]
    assert best_single(found, (1, 2, 12), labels, budget=0.5, metric=accuracy) is None


def test_gains_are_paired_and_their_mean_is_over_tasks() -> None:
    labels, (first, second, last) = members(600)
    name = "sst2-complete"
    logits = {
        f"{name}-{member}-seed1": of
        for member, of in (("plain-3", first), ("plain-6", second), ("large", last))
    }
    answers = answers_at(Packed(name, logits, {}), labels, 4)
    assert {
        "cascade 3→12, plain",
        "cascade 3→6→12, plain",
        "best single member",
    } == answers.keys() - {"cascade 6→12, plain"}
    best = answers["cascade 6→12, plain"]
    none = gain_of(name, best, best, labels)
    assert none is not None
    assert none.values == (0.0,)
    assert not none.draws.any()
    gain = gain_of(name, best, answers["cascade 3→12, plain"], labels)
    assert gain is not None
    assert gain.difference.interval.low > 0
    mean = Gain.mean([gain, none])
    assert mean.difference.interval.value == pytest.approx(gain.values[0] / 2)
    assert not mean.difference.beyond_the_spread


def test_the_mean_picture_shows_what_all_tasks_have(tmp_path: Path) -> None:
    labels, (first, second, last) = members(600)

    def packed(task: str, **logits: NDArray[Any]) -> Packed:
        named = {f"{task}-{m.replace('_', '-')}-seed1": of for m, of in logits.items()}
        return Packed(task, named, {})

    results = {
        "sst2": (packed("sst2-complete", plain_distilled_6=second, large=last), labels),
        "rte": (
            packed("rte-complete", plain_distilled_6=second, plain_distilled_3=first, large=last),
            labels,
        ),
    }
    assert mean_over_tasks(results, "cascade 3→12, plain-distilled") is None
    line = mean_over_tasks(results, "cascade 6→12, plain-distilled")
    assert line is not None
    cost, share = line
    assert cost[0] == pytest.approx(1 / 8)  # everything is answered by 6 layers of half the width
    right = [accuracy(of.argmax(axis=1), labels) for of in (second, last)]
    assert share[0] == pytest.approx(right[0] / right[1])
    assert (cost[-1], share[-1]) == (1.0, pytest.approx(1.0, abs=0.02))
    draw_mean(tmp_path / "mean.png", results)
    assert (tmp_path / "mean.png").stat().st_size


def test_measured_time_takes_the_place_of_multiply_adds() -> None:
    layers = {f"first-{k}": (k + 3) / 15 for k in range(1, 13)}  # a part that no exit saves
    relative = {"l3": 0.05, "l6": 0.1, **layers}
    costs = measured_costs({"tasks": {"sst2": {"1": {"relative": relative}}}}, "sst2", 1)
    assert costs.members == {3: pytest.approx(0.6), 6: pytest.approx(1.2), 12: 12.0}
    assert costs.singles()["cut-distilled-2"] == costs.layers[1] == pytest.approx(4.0)
    _, found = members(400)
    name = "sst2-complete"
    exits = np.stack([found[0]] * 6 + [found[2]] * 6, axis=1)
    logits = {"deebert": exits, "large": found[2], "cut-distilled-2": found[0]}
    packed = Packed(name, {f"{name}-{member}-seed1": of for member, of in logits.items()}, {})
    seeds, curve_of = methods_of(packed, costs)["DeeBERT"]
    assert seeds == [1]
    measured, counted = curve_of(1), methods_of(packed)["DeeBERT"][1](1)
    np.testing.assert_array_equal(measured.predicted, counted.predicted)
    np.testing.assert_allclose(measured.layers, (counted.layers + 3) * 12 / 15)
    cut = methods_of(packed, costs)["cascade cut 2→12"][1](1)
    assert (cut.layers[0], cut.layers[-1]) == (pytest.approx(4.0), pytest.approx(16.0))


def test_models_and_rows_travel_in_parts(tmp_path: Path) -> None:
    glue, models = tmp_path / "glue", tmp_path / "models"
    for task in TASKS.values():
        for name in (task.train, task.dev):
            (glue / name).parent.mkdir(parents=True, exist_ok=True)
            (glue / name).write_text(f"rows of {name}\n" * 50)
    rng = np.random.default_rng(0)
    for name in gpu_parts.MODELS:
        (models / name).mkdir(parents=True)
        weights = {
            "weight": torch.from_numpy(rng.normal(0, 0.1, (64, 32)).astype(np.float32)),
            "position_ids": torch.arange(9),
        }
        save_file(weights, models / name / "model.safetensors", metadata={"format": "pt"})
        (models / name / "config.json").write_text("{}")
    parts, store = tmp_path / "parts", tmp_path / "store"
    names = gpu_parts.split(models, glue, parts, 4096)
    assert len(names) > 2
    for i, name in enumerate(names):
        assert gpu_parts.take(parts / name, store) == names[i + 1 :]
    for task in TASKS.values():
        assert (store / "glue" / task.dev).read_bytes() == (glue / task.dev).read_bytes()
    for name in gpu_parts.MODELS:
        ours, theirs = (
            load_file(folder / name / "model.safetensors") for folder in (store / "models", models)
        )
        assert ours["weight"].dtype == torch.float16
        torch.testing.assert_close(ours["weight"].float(), theirs["weight"], atol=3e-4, rtol=0)
        assert torch.equal(ours["position_ids"], theirs["position_ids"])
        assert (store / "models" / name / "config.json").is_file()
    (parts / names[0]).write_bytes(b"cut off")
    with pytest.raises(CheckFailed, match="copy it again"):
        gpu_parts.take(parts / names[0], store)
    with pytest.raises(UsageError, match="has files"):
        gpu_parts.split(models, glue, parts, 4096)
    (models / "l3" / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"l3.model.safetensors is missing"):
        gpu_parts.split(models, glue, tmp_path / "more", 4096)
