"""`score` with real members: the answers of the evaluation, and processes that are killed.

The rows through a server are in tests/integration/test_score_served.py, a million of them in
tests/reliability/test_score_million.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

if importlib.util.find_spec("ray") is None:  # its import takes seconds
    pytest.skip("the extra `score` is not installed", allow_module_level=True)

from cascadebert_build.evaluation.evaluate import NEAR
from cascadebert_build.evaluation.simulate import simulate
from cascadebert_build.scoring.engine import in_process
from cascadebert_build.scoring.ray_workers import RayWorkers, ray_workers
from cascadebert_build.scoring.tasks import OneProcess
from tests.support.scoring import assert_every_row_once, check_score, run_score, write_corpus
from tests.support.serving import Built
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def ray_here() -> Iterator[RayWorkers]:
    """Ray with two workers, started once."""
    with ray_workers(2, None, 2) as workers:
        yield workers


def texts_of(built: Built) -> list[str]:
    return [text for text in built.texts if isinstance(text, str)]


@pytest.mark.parametrize("asked", [None, 0.7, 0.95])
def test_the_answers_are_those_of_the_evaluation(
    built: Built, asked: float | None, tmp_path: Path
) -> None:
    check_score(built, tmp_path, asked)


def test_one_stage_alone(built: Built, tmp_path: Path) -> None:
    texts = texts_of(built)
    corpus = write_corpus(tmp_path / "rows.jsonl", texts, len(texts))
    rows = run_score(built, corpus, tmp_path / "out", OneProcess(), parameters={"stage": 1})
    assert {row["exit_stage"] for row in rows} == {1}
    outcome = simulate(built.policy, built.logits(), [1.0])
    found = np.array([row["probabilities"] for row in rows])
    np.testing.assert_allclose(found, outcome.probabilities, atol=1e-4)


def test_an_operating_point_that_is_not_there(built: Built) -> None:
    from cascadebert_build.errors import UsageError

    with pytest.raises(UsageError, match="unknown operating point 'fast': this policy has default"):
        in_process(built.repository, None, None, {"operating_point": "fast"})


def test_stages_that_no_worker_can_run_are_refused(built: Built, tmp_path: Path) -> None:
    import shutil

    from cascadebert_build.errors import UsageError

    repository = shutil.copytree(built.repository, tmp_path / "repository")
    (repository / "tiny_large" / "1" / "session.py").unlink()
    with pytest.raises(UsageError, match=r"has no session.py.*--url"):
        in_process(repository, None, None, {})
    in_process(repository, None, None, {"stage": 0})


def kill_the_first_worker(output: Path, killed: list[int]) -> None:
    """Kill the worker of the first task of the members that is under way."""
    folder = output / "_work" / "under-way"

    def note() -> Path | None:
        return next(folder.glob("_work-stage0-*/*.json"), None)

    wait_until(lambda: note() is not None, timeout_s=120, every_s=0.002)
    found = note()
    if found is not None:
        pid = int(json.loads(found.read_text())["pid"])
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)


def test_ray_workers_of_which_one_is_killed_answer_every_row_once(
    built: Built, ray_here: RayWorkers, tmp_path: Path
) -> None:
    texts = texts_of(built)
    corpus = write_corpus(tmp_path / "rows.tsv", texts, 12_000)
    killed: list[int] = []
    killer = threading.Thread(target=kill_the_first_worker, args=(tmp_path / "out", killed))
    killer.start()
    run_score(built, corpus, tmp_path / "out", ray_here, block_rows=2000)
    killer.join()
    assert killed
    rows = assert_every_row_once(tmp_path / "out", "rows.tsv", 12_000)
    # Equal texts have equal answers, whichever worker and block they were in.
    stages = [[row["exit_stage"] for row in rows[i :: len(texts)]] for i in range(len(texts))]
    outcome = simulate(built.policy, built.logits())
    near = outcome.near_threshold(built.policy.thresholds, NEAR)
    expected = outcome.exit_stage.tolist()
    assert all(set(stages[i]) == {expected[i]} for i in np.flatnonzero(~near))


def test_an_error_in_a_worker_is_one_sentence(
    built: Built, ray_here: RayWorkers, tmp_path: Path
) -> None:
    from cascadebert_client.errors import InvalidRequest

    corpus = tmp_path / "rows.jsonl"
    corpus.write_text('{"text": "good"}\n{"text": ""}\n')
    with pytest.raises(InvalidRequest, match=r"rows.jsonl:2: 'text' is empty"):
        run_score(built, corpus, tmp_path / "out", ray_here)


def start(built: Built, corpus: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    """The command in a process of its own, without Ray."""
    command = [
        sys.executable, "-m", "cascadebert_build.cli", "score", str(corpus),
        "--output", str(output), "--model-repository", str(built.repository),
        "--block-rows", "500", "--workers", "0", *more,
    ]  # fmt: skip
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM"])
def test_a_run_that_is_killed_goes_on(built: Built, number: int, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "rows.tsv", texts_of(built), 10_000)
    output = tmp_path / "out"
    first = start(built, corpus, output)
    stage = output / "_work" / "stage0"
    done: Callable[[], list[Path]] = lambda: sorted(stage.glob("*0.arrow"))  # noqa: E731
    wait_until(lambda: len(done()) > 0 or first.poll() is not None, timeout_s=60, every_s=0.005)
    first.send_signal(number)
    _, stderr = first.communicate(timeout=60)
    assert first.returncode == (-number if number == signal.SIGKILL else 130), stderr
    if number == signal.SIGTERM:
        assert "the same command with --resume goes on" in stderr
        assert "Traceback" not in stderr
    before = {path.name: path.stat().st_mtime_ns for path in done()}
    assert before
    began_ns = time.time_ns()
    second = start(built, corpus, output, "--resume", "--json")
    stdout, stderr = second.communicate(timeout=120)
    assert second.returncode == 0, stderr
    assert json.loads(stdout)["rows"] == 10_000
    assert "were there already" in stderr
    assert all(mtime < began_ns for mtime in before.values())
    assert_every_row_once(output, "rows.tsv", 10_000)
