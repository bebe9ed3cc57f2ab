"""Stages that run in the cascade's own process."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from cascadebert_core import contract
from cascadebert_core.batching import StageBatch
from cascadebert_core.errors import PolicyError, Unavailable
from cascadebert_core.inline import InlineStages
from cascadebert_core.policy import Policy
from tests.support.policies import make_policy

SESSION = """
import numpy as np


class Session:
    def __init__(self, folder, threads):
        self.of = (folder.parent.name, threads)

    def logits(self, feeds):
        if feeds["input_ids"][0, 0] == 0:
            raise RuntimeError("no memory")
        assert sorted(feeds) == {inputs}
        return np.full((len(feeds["input_ids"]), 2), int(self.of[1]), np.float32)


def open_session(folder, device, parameters):
    assert device is None
    return Session(folder, parameters["threads"])
"""


@pytest.fixture
def policy() -> Policy:
    return make_policy(0.9)


@pytest.fixture
def repository(tmp_path: Path, policy: Policy) -> Path:
    for stage in policy.stages:
        folder = tmp_path / stage.model / str(stage.version)
        folder.mkdir(parents=True)
        text = SESSION.replace("{inputs}", repr(sorted(stage.inputs)))
        (folder / "session.py").write_text(text)
    return tmp_path


def batch_of(token: int) -> StageBatch:
    tensors = {name: np.full((3, 4), token, np.int32) for name in contract.STAGE_INPUTS}
    return StageBatch(tensors)


@pytest.mark.parametrize(
    ("which", "inline"), [("none", [False, False]), ("first", [True, False]), ("all", [True, True])]
)
def test_which_stages_run_here(
    policy: Policy, repository: Path, which: str, inline: list[bool]
) -> None:
    stages = InlineStages(policy, repository, which, {})
    assert [stage in stages for stage in range(2)] == inline


def test_a_session_gets_its_inputs_and_threads(policy: Policy, repository: Path) -> None:
    stages = InlineStages(policy, repository, "all", {contract.INLINE_THREADS: "3"})
    assert stages.logits(1, batch_of(7)).tolist() == [[3, 3]] * 3


def test_a_session_that_fails_makes_the_stage_unavailable(policy: Policy, repository: Path) -> None:
    stages = InlineStages(policy, repository, "first", {})
    with pytest.raises(Unavailable, match="no memory"):
        stages.logits(0, batch_of(0))


def test_threads_of_later_stages_are_nicer(policy: Policy, repository: Path) -> None:
    stages = InlineStages(policy, repository, "all", {contract.INLINE_NICENESS: "4"})
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    found: list[int] = []

    def run(stage: int) -> None:
        for _ in range(2):  # once more changes nothing
            stages.logits(stage, batch_of(7))
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    for stage in range(2):
        thread = threading.Thread(target=run, args=(stage,))
        thread.start()
        thread.join()
    assert found == [ours, min(19, ours + 4)]


def test_an_unknown_choice_is_refused(policy: Policy, repository: Path) -> None:
    with pytest.raises(PolicyError, match="'some'"):
        InlineStages(policy, repository, "some", {})


def test_a_stage_without_a_session_is_named(policy: Policy, repository: Path) -> None:
    path = repository / policy.stages[1].model / str(policy.stages[1].version) / "session.py"
    path.write_text("raise ImportError('no engine')")
    with pytest.raises(PolicyError, match="no engine"):
        InlineStages(policy, repository, "all", {})
    path.unlink()
    with pytest.raises(PolicyError, match="placement"):
        InlineStages(policy, repository, "all", {})
    InlineStages(policy, repository, "first", {})
