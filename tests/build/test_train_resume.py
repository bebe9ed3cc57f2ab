"""An interrupted training resumes bit for bit, or is refused and loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from cascadebert_build.checkpoints.checkpoint import checkpoint_from_source
from cascadebert_build.cli import main
from cascadebert_build.config.rows import rows_from_source
from cascadebert_build.config.schema import DataConfig
from cascadebert_build.training import member as train
from cascadebert_build.training import objectives
from cascadebert_build.training.difficulty import Difficulty, difficulty_path
from cascadebert_build.training.resume import interrupted_checkpoint, last_checkpoint
from tests.support.checkpoints import MOODS, TOPICS, save_checkpoint

# Several processes on a CPU have the device "cpu:0"; transformers 4 cannot load optimizers to it.
RESUMES_CPU_PROCESSES = int(transformers.__version__.partition(".")[0]) >= 5
EPOCHS = 6
STEPS_PER_EPOCH = 12  # 400 rows without a tenth, 32 in a step
TOTAL = EPOCHS * STEPS_PER_EPOCH


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows that can be learnt, with their difficulty."""
    path = tmp_path_factory.mktemp("data") / "rows.tsv"
    lines = [
        f"the {topic} was {mood}{' really' * (i + j)}\t{'good' if j % 2 == 0 else 'bad'}"
        for i, topic in enumerate(TOPICS)
        for j, mood in enumerate(MOODS)
    ]
    path.write_text("\n".join(["text\tlabel", *(lines * 4)]) + "\n")
    rows = rows_from_source(DataConfig(str(path)))
    wrong = (np.arange(400) % 7 == 0).astype(np.int64)
    Difficulty(rows.sha256(), {}, wrong, 1).write(difficulty_path(str(path)))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("base") / "base", labels=("bad", "good"))


def command(data: Path, base: Path, output: Path, *more: str) -> list[str]:
    settings = ["--epochs", str(EPOCHS), "--patience", "0", "--learning-rate", "1e-3"]
    settings += ["--max-length", "32", "--precision", "fp32"]
    return ["train", str(data), "--base", str(base), "--output", str(output), *settings, *more]


class Losses:
    """Counts the steps of trainings, and interrupts one before a given step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        self.end_before: int | None = None
        made = objectives.objective_from_name

        def watched(*args: Any, **kwargs: Any) -> objectives.Objective:
            objective = made(*args, **kwargs)

            def loss(logits: torch.Tensor, targets: objectives.Targets) -> torch.Tensor:
                if self.n == self.end_before:
                    raise KeyboardInterrupt
                self.n += 1
                return objective(logits, targets)

            return loss

        monkeypatch.setattr(train, "objective_from_name", watched)


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> Losses:
    return Losses(monkeypatch)


def assert_same(output: Path, uninterrupted: Path) -> None:
    """The weights are equal bit for bit, and so are the validations."""
    weights, expected = (load_file(f / "model.safetensors") for f in (output, uninterrupted))
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, expected[name]), name
    record, other = (json.loads((f / "training.json").read_text()) for f in (output, uninterrupted))
    assert record["result"]["accuracies"] == other["result"]["accuracies"]
    assert not output.with_name(f"{output.name}.partial").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "more",
    [[], ["--checkpoint-steps", "5", "--objective", "dar"]],
    ids=["after an epoch", "within an epoch"],
)
def test_a_killed_training_goes_on(
    more: list[str],
    data: Path,
    base: Path,
    tmp_path: Path,
    losses: Losses,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    partial = tmp_path / "out.partial"
    arguments = command(data, base, output, *more)
    process = subprocess.Popen(
        [sys.executable, "-m", "cascadebert_build.cli", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while last_checkpoint(partial) is None:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    assert not output.exists()
    last = last_checkpoint(partial)
    assert last is not None
    done = int(last.name.partition("-")[2])
    assert 0 < done < TOTAL
    assert not more or done % STEPS_PER_EPOCH

    before = contents(partial)
    assert main([*arguments, "--seed", "1"]) == 2
    message = capsys.readouterr().err
    assert "holds an interrupted training with other settings" in message
    assert "delete it, or give another output folder" in message
    assert contents(partial) == before

    incomplete = partial / f"checkpoint-{TOTAL + 1}"  # being written when the process died
    incomplete.mkdir()
    (incomplete / "model.safetensors").write_bytes(b"half")
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert f"resume   checkpoint-{done} of an interrupted training" in told.err
    assert losses.n == TOTAL - done
    assert "out: validation accuracy" in told.out
    assert checkpoint_from_source(str(output)).labels == ("bad", "good")

    uninterrupted = tmp_path / "uninterrupted"
    assert main(command(data, base, uninterrupted, *more)) == 0
    assert_same(output, uninterrupted)


def test_patience_counts_validations_before_the_interruption(
    data: Path, base: Path, tmp_path: Path, losses: Losses
) -> None:
    patient = ["--patience", "3", "--learning-rate", "1e-12"]  # nothing gets better
    uninterrupted = tmp_path / "uninterrupted"
    assert main(command(data, base, uninterrupted, *patient)) == 0
    assert losses.n == 4 * STEPS_PER_EPOCH
    output = tmp_path / "out"
    losses.n, losses.end_before = 0, 3 * STEPS_PER_EPOCH + 1
    assert main(command(data, base, output, *patient)) == 130
    losses.n, losses.end_before = 0, None
    assert main(command(data, base, output, *patient)) == 0
    assert losses.n == STEPS_PER_EPOCH
    assert_same(output, uninterrupted)


@pytest.mark.parametrize("patience", ["0", "1"])
def test_a_finished_training_is_only_saved(
    patience: str,
    data: Path,
    base: Path,
    tmp_path: Path,
    losses: Losses,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(*_: Any) -> None:
        raise KeyboardInterrupt

    arguments = command(data, base, tmp_path / "out", "--patience", patience)
    with monkeypatch.context() as patched:
        patched.setattr(train, "_move_folder", lost)
        assert main(arguments) == 130
    assert not (tmp_path / "out").exists()
    n = losses.n
    assert main(arguments) == 0
    assert losses.n == n
    losses.n = 0
    assert main(command(data, base, tmp_path / "other", "--patience", patience)) == 0
    assert losses.n == n
    assert_same(tmp_path / "out", tmp_path / "other")


def test_the_folder_may_move_before_a_resume(
    data: Path, base: Path, tmp_path: Path, losses: Losses
) -> None:
    """The best weights are found in the new place."""
    more = ["--learning-rate", "1e-12"]  # the first epoch is the best
    losses.end_before = 3 * STEPS_PER_EPOCH
    assert main(command(data, base, tmp_path / "here" / "out", *more)) == 130
    losses.end_before = None
    (tmp_path / "here").rename(tmp_path / "there")
    assert main(command(data, base, tmp_path / "there" / "out", *more)) == 0
    assert main(command(data, base, tmp_path / "uninterrupted", *more)) == 0
    assert_same(tmp_path / "there" / "out", tmp_path / "uninterrupted")


def test_without_a_checkpoint_the_training_starts_again(
    data: Path, base: Path, tmp_path: Path, losses: Losses
) -> None:
    losses.end_before = 3
    assert main(command(data, base, tmp_path / "out")) == 130
    losses.n, losses.end_before = 0, None
    assert main(command(data, base, tmp_path / "out", "--epochs", "1")) == 0
    assert losses.n == STEPS_PER_EPOCH


def test_other_files_stay(
    data: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partial = tmp_path / "out.partial"
    partial.mkdir()
    assert interrupted_checkpoint(partial, "key") is None
    (partial / "notes.txt").write_text("mine")
    assert main(command(data, base, tmp_path / "out")) == 2
    assert "move them away, or give another output folder" in capsys.readouterr().err
    assert contents(partial) == {"notes.txt": b"mine"}


def test_an_empty_output_folder_is_filled(data: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert main(command(data, base, tmp_path / "out", "--epochs", "1")) == 0
    assert checkpoint_from_source(str(tmp_path / "out")).labels == ("bad", "good")


def test_checkpoints_farther_apart_than_the_training_is_long(
    data: Path, base: Path, tmp_path: Path
) -> None:
    more = ["--epochs", "1", "--checkpoint-steps", "500"]
    assert main(command(data, base, tmp_path / "out", *more)) == 0
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert len(record["result"]["accuracies"]) == 1


def test_two_processes_train_together(data: Path, base: Path, tmp_path: Path) -> None:
    """Only one process writes and reports; an interruption within an epoch is resumed."""
    script = tmp_path / "script.py"
    more = ["--epochs", "2", "--checkpoint-steps", "4", "--json"]
    commands = [command(data, base, tmp_path / name, *more) for name in ("out", "uninterrupted")]
    script.write_text(
        "import pytest\n"
        "from cascadebert_build.cli import main\n"
        "from tests.build.test_train_resume import Losses\n"
        "losses = Losses(pytest.MonkeyPatch())\n"
        f"losses.end_before = {11 if RESUMES_CPU_PROCESSES else None}\n"  # epoch 2 is steps 7 to 12
        f"assert main({commands[0]!r}) == {130 if RESUMES_CPU_PROCESSES else 0}\n"
        "if losses.end_before:\n"
        "    losses.end_before = None\n"
        f"    assert main({commands[0]!r}) == 0\n"
        "    assert losses.n == 11 + 12 - 8, losses.n\n"
        f"assert main({commands[1]!r}) == 0\n"
    )
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    ended = subprocess.run(
        [sys.executable, *launcher, str(script)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ended.returncode == 0, ended.stderr
    results = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [len(result["accuracies"]) for result in results] == [3, 3]
    lines = [line for line in ended.stderr.splitlines() if line.startswith(("epoch", "resume"))]
    resumed = ["resume   checkpoint-8"] if RESUMES_CPU_PROCESSES else []
    assert [line.split(":")[0].split(" of")[0] for line in lines] == [
        *("epoch 0.666667", "epoch 1.33333", *resumed, "epoch 2"),
        *("epoch 0.666667", "epoch 1.33333", "epoch 2"),
    ]
    assert checkpoint_from_source(str(tmp_path / "out")).labels == ("bad", "good")
    assert json.loads((tmp_path / "out" / "training.json").read_text())["processes"] == 2
    assert_same(tmp_path / "out", tmp_path / "uninterrupted")
