"""A broken guarantee: what it changes, who is told, and that only an operator ends it."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascadebert_core.batching import StageBatch
from cascadebert_core.cascade import Cascade
from cascadebert_core.drift import GuaranteeWatch
from cascadebert_core.drift_state import DriftState, state_folder
from cascadebert_core.errors import PolicyError
from cascadebert_core.policy import LAST_STAGE, Policy, policy_from_json, policy_to_json
from tests.support.plain_cascade import BAD, GOOD, NOT, Bench, Recorder
from tests.support.policies import make_policy, write_tokenizer
from tests.support.waiting import wait_until

LIMIT = 0.05


def blind_first(stage: int, batch: StageBatch) -> np.ndarray:
    """Count good and bad; only later stages read a "not", and the first one is sure without."""
    ids = batch.tensors["input_ids"]
    score = ((ids == GOOD).sum(axis=1) - (ids == BAD).sum(axis=1)).astype(np.float32) * 4
    if stage:
        score = np.where((ids == NOT).any(axis=1), -score, score)
    return np.stack([-score, score], axis=1)


def promising(on_drift: str = "", audit_rate: float = 1.0, **thresholds: float) -> Policy:
    """A policy whose operating points have a limit on disagreement."""
    points: dict[str, tuple[Any, ...]] = {
        name: (value,) for name, value in (thresholds or {"usual": 0.9}).items()
    }
    guarantee = {"kind": "max_disagreement", "limit": LIMIT, "confidence": 0.95}
    policy = make_policy(0.9).with_operating_points(points, next(iter(points)))
    certificate = {"operating_points": {name: {"promise": guarantee} for name in points}}
    return replace(policy, certificate=certificate, audit_rate=audit_rate, on_drift=on_drift)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Starts a cascade, perhaps again, over the same state."""
    write_tokenizer(tmp_path)
    made: list[Bench] = []

    def build(policy: Policy) -> Bench:
        bench = Bench(tmp_path, policy, blind_first)
        bench.cascade.close()
        bench.lines = []  # pyright: ignore[reportAttributeAccessIssue]
        bench.cascade = Cascade(
            policy, tmp_path, bench._recorded, observer=bench.recorder,
            drift_state=DriftState(state_folder(tmp_path, policy.id)),
            log=bench.lines.append,  # pyright: ignore[reportAttributeAccessIssue]
        )  # fmt: skip
        made.append(bench)
        return bench

    yield build
    for bench in made:
        bench.cascade.close()


def lines(bench: Any) -> list[dict[str, Any]]:
    return bench.lines


def wrong_answers(bench: Bench, texts: list[str]) -> int:
    """Answer texts one by one; return how many answers are not the last stage's."""
    wrong = 0
    for text in texts:
        job = bench.job(text)
        audited = sum(bench.recorder.audits.values())
        drawn = job.route.operating_point is not None
        bench.begin(job)
        drawn = drawn and job.route.operating_point is not None
        wrong += (int(job.probabilities.argmax()) == 1) != (text == "good")
        if drawn:  # its audit decides what the next row gets
            wait_until(lambda n=audited: sum(bench.recorder.audits.values()) > n, "an audit")
    return wrong


CALM = ["good"] * 20
DRIFT = ["good", "not good"] * 20


@pytest.mark.parametrize(("on_drift", "most"), [("", 20), (LAST_STAGE, 12), ("careful", 12)])
def test_a_drifting_stream_with_and_without_the_fallback(
    start: Callable[..., Bench], on_drift: str, most: int
) -> None:
    bench = start(promising(on_drift, usual=0.9, careful=1.0))
    assert wrong_answers(bench, CALM) == 0
    assert bench.recorder.guarantees == {"usual": False, "careful": False}
    before = wrong_answers(bench, DRIFT)
    assert bench.recorder.guarantees["usual"]
    (line,) = lines(bench)
    assert line["event"] == "guarantee_broken"
    assert line["disagreed"] <= 12
    assert line["at_least"] > LIMIT
    assert "good" not in json.dumps(line)
    after = wrong_answers(bench, DRIFT[:20])
    if on_drift:
        assert (before, after) == (line["disagreed"], 0)
    else:
        assert (before, after) == (20, 10)
    assert before <= most
    # Calm again, and still the fallback.
    job = bench.job("good")
    bench.begin(job)
    assert job.exit_stage.tolist() == [1 if on_drift else 0]


def test_what_the_caller_chooses_stays(start: Callable[..., Bench]) -> None:
    bench = start(promising(LAST_STAGE, usual=0.9, other=0.8))
    wrong_answers(bench, DRIFT)
    assert bench.recorder.guarantees == {"usual": True, "other": False}
    chosen: list[dict[str, Any]] = [{"threshold": 0.9}, {"stage": 0}, {"operating_point": "other"}]
    for parameters in chosen:
        job = bench.job("good", **parameters)
        bench.begin(job)
        assert job.exit_stage.tolist() == [0]


def test_a_restart_and_another_instance_know_of_it_until_an_operator_ends_it(
    start: Callable[..., Bench], tmp_path: Path
) -> None:
    policy = promising(LAST_STAGE)
    first, other = start(policy), start(policy)
    wrong_answers(first, DRIFT)
    other.cascade.look_around()
    again = start(policy)
    for bench in (other, again):
        assert bench.recorder.guarantees == {"usual": True}
        assert [line["event"] for line in lines(bench)] == ["guarantee_broken"]
        assert lines(bench)[0]["disagreed"] == lines(first)[0]["disagreed"]
        assert wrong_answers(bench, ["not good"]) == 0
    assert DriftState(state_folder(tmp_path, policy.id)).remove("usual")
    for bench in (first, other, again):
        bench.cascade.look_around()
        assert bench.recorder.guarantees == {"usual": False}
        assert lines(bench)[-1]["event"] == "guarantee_cleared"
        assert wrong_answers(bench, ["not good"]) == 1  # the test starts again
    # A new policy is a new promise.
    assert start(replace(policy, request_timeout_s=7.0)).recorder.guarantees == {"usual": False}


def test_a_state_that_cannot_be_written_is_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, and no folder")
    found: list[dict[str, Any]] = []
    recorder = Recorder()
    watch = GuaranteeWatch(
        promising(LAST_STAGE), recorder, DriftState(tmp_path / "state" / "x"), log=found.append
    )
    watch.audited("usual", 0, 50)
    watch.look()
    assert watch.broken == {"usual"}
    assert recorder.guarantees == {"usual": True}
    unreadable, broken = found
    assert unreadable["event"] == "guarantee_state_unreadable"
    assert broken["event"] == "guarantee_broken"
    assert "cannot be written" in broken["state"]


def test_an_alarm_during_a_look_is_not_cleared(tmp_path: Path) -> None:
    """The look is on another thread than the alarm, which comes after the folder was read."""
    alarms: list[threading.Thread] = []

    class Interrupted(DriftState):
        def points(self) -> frozenset[str]:
            try:
                return super().points()
            finally:
                if hooked:
                    alarm = threading.Thread(target=watch.audited, args=("usual", 0, 50))
                    alarm.start()
                    # Without the lock it ends here; with it, it waits for the look.
                    alarm.join(0.3)
                    alarms.append(alarm)

    hooked = False
    (tmp_path / "state").mkdir()
    found: list[dict[str, Any]] = []
    recorder = Recorder()
    watch = GuaranteeWatch(
        promising(LAST_STAGE), recorder, Interrupted(tmp_path / "state"), log=found.append
    )
    hooked = True
    watch.look()
    hooked = False
    alarms[0].join(10)
    watch.look()
    assert [line["event"] for line in found] == ["guarantee_broken"]
    assert watch.broken == {"usual"}
    assert recorder.guarantees == {"usual": True}
    assert "usual" in watch.routes


@pytest.mark.parametrize("error", [PermissionError(13, "no"), OSError(5, "I/O"), None])
def test_a_state_that_cannot_be_read_clears_nothing(tmp_path: Path, error: OSError | None) -> None:
    class Failing(DriftState):
        def points(self) -> frozenset[str]:
            if fails and error is not None:
                raise error
            return super().points()

    fails = False
    found: list[dict[str, Any]] = []
    state = Failing(tmp_path / "state")
    watch = GuaranteeWatch(promising(LAST_STAGE), Recorder(), state, log=found.append)
    watch.audited("usual", 0, 50)
    fails = True
    if error is None:  # the folder itself goes, as with a volume
        shutil.rmtree(tmp_path / "state")
    for _ in range(3):
        watch.look()
    assert watch.broken == {"usual"}
    assert [line["event"] for line in found] == ["guarantee_broken", "guarantee_state_unreadable"]
    assert found[-1]["broken"] == ["usual"]
    fails = False
    state.add("usual", {})
    watch.look()
    assert watch.broken == {"usual"}
    state.remove("usual")
    watch.look()
    assert not watch.broken
    assert found[-1]["event"] == "guarantee_cleared"


def test_a_full_disk_keeps_the_alarm_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, **__: object) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    found: list[dict[str, Any]] = []
    state = DriftState(tmp_path / "state")
    watch = GuaranteeWatch(promising(LAST_STAGE), Recorder(), state, log=found.append)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        watch.audited("usual", 0, 50)
    watch.look()
    assert list((tmp_path / "state").iterdir()) == []
    assert watch.broken == {"usual"}
    assert "cannot be written" in found[0]["state"]
    # Once another instance has written it, it ends for this one too.
    assert state.add("usual", {})
    watch.look()
    assert state.remove("usual")
    watch.look()
    assert not watch.broken


def test_if_the_fallback_breaks_too_the_last_stage_answers() -> None:
    watch = GuaranteeWatch(promising("careful", usual=0.9, careful=0.99), Recorder(), None)
    watch.audited("usual", 0, 50)
    assert watch.routes["usual"].operating_point == "careful"
    watch.audited("careful", 0, 50)
    assert {route.first for route in watch.routes.values()} == {1}
    assert set(watch.routes) == {"usual", "careful"}


def test_several_instances_share_the_probability_of_a_false_alarm() -> None:
    def rows(instances: int) -> int:
        watch = GuaranteeWatch(promising(), Recorder(), None, instances=instances)
        for n in itertools.count(1):
            watch.audited("usual", 1, 1)
            if watch.broken:
                return n
        raise AssertionError

    assert rows(1) < rows(4)


@pytest.mark.parametrize(
    "certificate",
    [None, {"operating_points": {"usual": {"promise": {"kind": "max_accuracy_drop", "limit": 0.1,
                                                      "confidence": 0.9}}}},
     {"operating_points": {"usual": {"promise": {"kind": "max_disagreement"}}}},
     {"operating_points": {"usual": {"promise": 3}}}],
)  # fmt: skip
def test_without_a_limit_on_disagreement_nothing_is_tested(certificate: Any) -> None:
    watch = GuaranteeWatch(replace(promising(), certificate=certificate), Recorder(), None)
    assert watch.points == ()
    watch.audited("usual", 0, 1000)
    assert not watch.routes


def test_schema_9_has_it_and_no_other() -> None:
    policy = promising("careful", usual=0.9, careful=0.95)
    text = policy_to_json(policy)
    assert json.loads(text)["schema_version"] == 9
    assert policy_from_json(text) == policy
    assert json.loads(policy_to_json(replace(policy, on_drift="")))["schema_version"] == 5
    with pytest.raises(PolicyError, match=r"on_drift is 'nope': give one of"):
        policy_from_json(policy_to_json(replace(policy, on_drift="nope")))


def test_an_operating_point_that_was_not_tuned_gives_way_to_the_last_stage() -> None:
    policy = promising("careful", usual=0.9, careful=0.95)
    assert policy.with_operating_points({"usual": (0.8,)}, "usual").on_drift == LAST_STAGE
    assert promising().with_service_of(policy).on_drift == LAST_STAGE
    assert promising().with_operating_points({"usual": (0.8,)}, "usual").on_drift == ""
