"""Both members compiled, inspected, verified, served and compared with the offline evaluator."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_build.verification.decisions import MAX_FLIPPED
from cascadebert_build.verification.engine import MAX_DIFFERENCE
from cascadebert_engine.machine import version_numbers
from cascadebert_engine.manifest import ENGINE_MANIFEST, PLAN
from tests.support.gpu import Project
from tests.support.pretend_gpu import OLDEST

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]

# FP16 kernels for other numbers of rows round otherwise: rows this near to a threshold may go
# either way.
NEAR = 5e-3


def test_the_engines_compute_in_fp16(project: Project) -> None:
    for member in project.steps().config.members:
        manifest = project.engine(member)
        if version_numbers(manifest.tensorrt) >= (10, 12, 0):
            assert manifest.strongly_typed
            assert manifest.graph == "fp16"
            assert manifest.precision.verdict(1.0) == "fp16"
            assert manifest.precision.half > 0
        else:
            assert manifest.graph == "fp32"  # with the FP16 flag; types are hints
            assert manifest.precision.verdict(0.75) != "fp32"


def test_every_profile_is_verified_with_one_row_and_with_full_batches(project: Project) -> None:
    steps = project.steps()
    for member in steps.config.members:
        folder = steps.workspace.engine(member)
        report = json.loads((folder / "verify.json").read_text())
        assert report["passed"]
        assert report["failures"] == []
        wanted = {(p.length, batch) for p in steps.config.profiles(member) for batch in p.batches}
        cases = report["cases"]
        assert {(case["length"], case["batch"]) for case in cases} == wanted
        assert all(case["non_finite"] == 0 for case in cases)
        assert all(case["max_difference"] <= MAX_DIFFERENCE for case in cases)
        # FP16 leaves traces; an engine without any computed something else than FP16.
        assert max(case["mean_difference"] for case in cases) > 0
        longest = [case for case in cases if case["length"] == member.max_length]
        assert all(case["truncated_rows"] > 0 for case in longest)
        assert "passed" in (folder / "verify.md").read_text()


def test_the_gate_decides_as_in_fp32(project: Project) -> None:
    report = json.loads(project.steps().workspace.decisions.read_text())
    assert report["passed"]
    assert report["rows"] == len(project.steps().rows.texts)
    allowed = max(1, MAX_FLIPPED * report["rows"])
    assert max(report["flipped_exits"], report["flipped_labels"]) <= allowed


def test_accuracy_is_that_of_fp32(project: Project) -> None:
    if project.is_random:
        pytest.skip("random weights have no accuracy: name a cascade in CASCADEBERT_GPU_CONFIG")
    steps = project.steps()
    labels = steps.rows.label_indices(steps.policy().labels)
    for i, member in enumerate(steps.config.members):
        indices = list(steps.policy().stages[i].label_indices)
        accuracies = [
            float((logits[:, indices].argmax(axis=1) == labels).mean())
            for logits in (steps.reference_logits(member), steps.kept_logits(member))
        ]
        print(f"{member.name}: FP32 {accuracies[0]:.2%}, engine {accuracies[1]:.2%}")
        assert abs(accuracies[0] - accuracies[1]) <= max(0.005, 1 / len(labels))


def test_nothing_is_done_twice(project: Project) -> None:
    done = project.command("compile", "--step", "engine")
    assert done.returncode == 0
    assert done.stderr.count("up to date") == 2
    done = project.command("verify")
    assert done.stderr.count("up to date") == 5  # two graphs, two plans, the decisions


def test_the_certificate_names_the_plans(project: Project) -> None:
    steps = project.steps()
    artefacts = (steps.policy().certificate or {})["artefacts"]
    for member in steps.config.members:
        folder = project.repository / steps.config.model_name(member) / "1"
        published = json.loads((folder / ENGINE_MANIFEST).read_text())
        assert artefacts[member.name]["plan_sha256"] == published["plan_sha256"]
        assert (folder / PLAN).stat().st_size == published["plan_bytes"]
        assert not list(folder.glob("*.onnx"))


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_the_server_answers_as_the_offline_evaluator(
    project: Project, cuda_graphs: bool, tmp_path: Path
) -> None:
    """The whole data set through the embedded server, in requests of many rows and of one."""
    if cuda_graphs and getattr(project.machine, "version", None) == OLDEST:
        pytest.skip("the pretended CUDA is the same for both versions: the newest is tested")
    steps = project.steps()
    if cuda_graphs:
        text = project.config.read_text()
        with_graphs = project.config.with_name("graphs.toml")
        with_graphs.write_text(text.replace("[runtime]\n", "[runtime]\ncuda_graphs = true\n"))
        project = Project(project.machine, with_graphs, tmp_path / "repository", project.is_random)
        for command in ("verify", "tune", "verify"):
            done = project.command(command)
            assert done.returncode == 0, done.stderr
        assert (
            project.command("publish", "--model-repository", str(project.repository)).returncode
            == 0
        )
    policy = ModelRepository.read(project.repository).cascade(steps.config.name).policy()
    offline = tmp_path / "offline.jsonl"
    done = project.command("evaluate", "--all-rows", "--predictions", str(offline))
    assert done.returncode == 0, done.stderr
    expected = [json.loads(line) for line in offline.read_text().splitlines()]
    data = steps.config.data_source()
    for rows in ("1", "64"):
        answers = _served(
            project, steps.config.name, data, rows, tmp_path / f"answers-{rows}.jsonl"
        )
        thresholds = [threshold for threshold in policy.thresholds if isinstance(threshold, float)]
        _assert_same(answers, expected, thresholds)


def _served(project: Project, model: str, data: Any, rows: str, output: Path) -> list[Any]:
    run = ["-m", "cascadebert_build.cli"]
    server = subprocess.Popen(
        [str(project.machine.python), *run, "serve", "--json", "--model-repository",
         str(project.repository), "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"],
        env=project.machine.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert server.stdout is not None
    assert server.stderr is not None
    try:
        line = server.stdout.readline()
        assert line, server.stderr.read()
        done = project.machine.run(
            *run, "classify", "--file", data.path, "--text", data.text,
            *(["--text-pair", data.text_pair] if data.text_pair else []),
            "--model", model, "--url", json.loads(line)["grpc"], "--output", str(output),
            "--rows-per-request", rows,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


def _assert_same(answers: list[Any], expected: list[Any], thresholds: list[float]) -> None:
    assert len(answers) == len(expected)
    wrong: list[Any] = []
    near = 0
    for answer, row in zip(answers, expected, strict=True):
        confidences = [c for c in row["stage_confidence"][: len(thresholds)] if c is not None]
        if any(abs(c - t) <= NEAR for c, t in zip(confidences, thresholds, strict=False)):
            near += 1
            continue
        if (answer["label"], answer["exit_stage"]) != (row["label"], row["exit_stage"]):
            wrong.append((answer, row))
        assert np.isclose(answer["confidence"], row["confidence"], atol=2e-2)
    assert not wrong, f"{len(wrong)} rows differ, the first: {wrong[0]}"
    assert near <= 0.1 * len(expected)


def test_the_builder_needs_nothing_of_the_project(project: Project) -> None:
    """The engine step of another machine: TensorRT, Polygraphy, numpy, and one JSON file."""
    member = project.steps().config.members[0]
    request = project.steps().workspace.engine(member) / "engine-request.json"
    code = (
        "import sys\nfrom cascadebert_engine.__main__ import main\n"
        f"code = main(['build', {str(request)!r}])\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'cascadebert_build', 'cascadebert_core', 'torch', 'tritonclient',"
        " 'transformers', 'tokenizers', 'tqdm'}))\nsys.exit(code)"
    )
    before = project.engine(member)
    done = project.machine.run("-c", code)
    assert done.returncode == 0, done.stderr
    assert re.search(r"MiB for .*, TensorRT .*, lengths", done.stdout)
    assert done.stdout.splitlines()[-1] == "[]"
    assert project.engine(member).graph_sha256 == before.graph_sha256
