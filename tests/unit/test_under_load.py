"""The operating point under load: the limits, the hysteresis, and who is left alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cascadebert_core
from cascadebert_build.errors import UsageError
from cascadebert_build.pipeline.under_load import require_faster
from cascadebert_build.repository.model_config import config_from_text, describe_served
from cascadebert_client._operating_points import points_from_parameters
from cascadebert_core.answer import AnswerWriter
from cascadebert_core.batching import StageBatch
from cascadebert_core.contract import DECIDED_BY, OUTPUTS
from cascadebert_core.errors import PolicyError
from cascadebert_core.metrics import Metrics, series
from cascadebert_core.policy import Policy, policy_from_json, policy_to_json
from cascadebert_core.published_points import points_to_json
from cascadebert_core.under_load import LoadSwitch, UnderLoad
from tests.support.plain_cascade import Bench, by_words
from tests.support.policies import make_policy, make_under_load_policy, write_tokenizer
from tests.unit.test_policy import with_id

BLS = Path(cascadebert_core.__file__).parents[2]


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def replay(switch: LoadSwitch, clock: Clock, loads: dict[float, float]) -> list[bool]:
    found: list[bool] = []
    for clock.now_s, load in loads.items():
        found.append(switch.is_active(load))
    return found


def test_the_timeline_of_the_docstring() -> None:
    clock, switches = Clock(), list[bool]()
    switch = LoadSwitch(5.0, switches.append, clock)
    loads = {0.0: 0.9, 0.1: 1.1, 2.0: 0.4, 4.0: 0.6, 4.5: 0.3, 9.5: 0.2, 12.0: 1.2}
    assert replay(switch, clock, loads) == [False, True, True, True, True, False, True]
    # The return lasted 2.5 s, so the next hold is 10 s.
    assert replay(switch, clock, {13.0: 0.1, 18.5: 0.1, 23.0: 0.1}) == [True, True, False]
    # This one lasted longer than the hold: the next hold is the policy's again.
    assert replay(switch, clock, {40.0: 2.0, 41.0: 0.1, 46.0: 0.1}) == [True, True, False]
    assert switches == [True, False, True, False, True, False]


def test_a_load_that_never_goes_switches_ever_more_rarely_up_to_a_limit() -> None:
    clock, switches = Clock(), list[bool]()
    switch = LoadSwitch(1.0, switches.append, clock)
    # Whenever the default applies the load is high, whenever the faster point does it is low.
    active = False
    for clock.now_s in np.arange(0, 100, 0.25).tolist():
        active = switch.is_active(0.1 if active else 2.0)
    # Holds of 1, 2, 4, 8, 16, 16 … seconds.
    assert sum(switches) == 1 + 5 + (100 - 31) // 17


@pytest.mark.parametrize("load", [0.51, 0.99, 1.0])
def test_between_the_limits_nothing_changes(load: float) -> None:
    clock = Clock()
    switch = LoadSwitch(1.0, clock=clock)
    assert not switch.is_active(load)
    assert switch.is_active(1.01)
    clock.now_s = 100.0
    assert switch.is_active(load)


def test_the_load_is_relative_to_the_nearest_limit() -> None:
    def never() -> float:
        raise AssertionError("the latency has no limit")

    assert UnderLoad("fast", 100, 0.0, 1.0).load(50, never) == 0.5
    # Each of four instances has a quarter of the rows.
    assert UnderLoad("fast", 100, 0.0, 1.0).load(50, never, instances=4) == 2.0
    assert UnderLoad("fast", 0, 0.2, 1.0).load(10**6, lambda: 0.1) == 0.5
    assert UnderLoad("fast", 100, 0.2, 1.0).load(50, lambda: 0.3) == pytest.approx(1.5)


def test_it_is_in_a_schema_that_older_servers_refuse() -> None:
    policy = make_under_load_policy(0.9, 0.5)
    raw = json.loads(policy_to_json(policy))
    assert raw["schema_version"] == 8
    assert policy_from_json(policy_to_json(policy)) == policy
    assert json.loads(policy_to_json(make_policy(0.9)))["schema_version"] == 5
    # Other thresholds have no such point.
    assert policy.with_thresholds((0.9,)).under_load is None
    assert policy.with_operating_points({"fast": (0.5,), "x": (0.9,)}, "x").under_load is not None
    assert policy.with_operating_points({"fast": (0.5,), "x": (0.9,)}, "fast").under_load is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operating_point": "usual"}, "is 'usual': give one of .'fast'."),
        ({"operating_point": "none"}, "is 'none': give one of .'fast'."),
        ({"queued_rows": 0}, "has no limit"),
        ({"queued_rows": -1}, "queued_rows is -1"),
        ({"latency_s": -1.0}, "latency_s is -1.0: give seconds"),
        ({"hold_s": None}, "hold_s is None"),
        ({"surprise": 1}, "unknown keys"),
    ],
)
def test_a_wrong_key_is_named(changes: dict[str, Any], message: str) -> None:
    raw = json.loads(policy_to_json(make_under_load_policy(0.9, 0.5)))
    raw["under_load"].update(changes)
    with pytest.raises(PolicyError, match=rf"policy\.under_load.*{message}"):
        policy_from_json(with_id(raw))


@pytest.mark.parametrize("certificate", [None, {}, {"operating_points": []}])
def test_the_point_needs_a_certificate(certificate: object) -> None:
    raw = json.loads(policy_to_json(make_under_load_policy(0.9, 0.5)))
    with pytest.raises(PolicyError, match="no certificate"):
        policy_from_json(with_id({**raw, "certificate": certificate}))


def test_an_earlier_schema_has_no_such_key() -> None:
    raw = json.loads(policy_to_json(make_under_load_policy(0.9, 0.5)))
    with pytest.raises(PolicyError, match="under_load"):
        policy_from_json(with_id({**raw, "schema_version": 7}))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    write_tokenizer(tmp_path)
    made: list[Bench] = []

    def build(run: Any, **settings: Any) -> Bench:
        # "not" has the confidence 0.69 at the first stage.
        made.append(Bench(tmp_path, make_under_load_policy(0.9, 0.5, **settings), run))
        return made[-1]

    yield build
    for bench in made:
        bench.cascade.close()


def point(job: Any) -> str:
    outputs = AnswerWriter(make_policy(0.9)).outputs_from_job(job, [DECIDED_BY])
    assert outputs[DECIDED_BY].shape == (len(job.texts), 1)
    return outputs[DECIDED_BY][0, 0].decode()


def test_requests_that_chose_nothing_get_the_faster_point_while_rows_wait(
    make: Callable[..., Bench],
) -> None:
    release, running = threading.Event(), threading.Event()

    def run(stage: int, batch: StageBatch) -> np.ndarray:
        if stage == 1:
            running.set()
            assert release.wait(10)
        return by_words(stage, batch)

    bench = make(run, hold_s=0.0)
    waiting = [bench.job("not good") for _ in range(3)]
    bench.cascade.begin(waiting[:1], lambda job: lambda _: None)
    assert running.wait(10)
    bench.cascade.begin(waiting[1:], lambda job: lambda _: None)
    # Two rows wait, and the limit is one.
    plain, own, number, alone = (
        bench.job("not good"),
        bench.job("not good", operating_point="usual"),
        bench.job("not good", threshold=0.9),
        bench.job("not good", stage=0),
    )
    bench.cascade.begin([plain, own, number, alone], lambda job: lambda _: None)
    assert bench.recorder.switches == ["fast"]
    release.set()
    bench.begin(bench.job("very good", operating_point="usual"))
    assert [job.route.operating_point for job in waiting] == ["usual"] * 3
    assert plain.exit_stage.tolist() == [0]
    assert not plain.degraded.any()
    assert point(plain) == "fast"
    assert point(own) == "usual"
    assert point(number) == point(alone) == ""
    for job in (*waiting, own, number):
        while not job.ended:
            pass
        assert job.exit_stage.tolist() == [1]
    # Nothing waits: the default returns, also without a request.
    while bench.cascade.is_under_load():
        pass
    assert bench.recorder.switches == ["fast", "usual"]
    after = bench.job("not good")
    bench.begin(after)
    assert point(after) == "usual"


def test_the_expected_latency_is_a_limit_too(make: Callable[..., Bench]) -> None:
    bench = make(by_words, queued_rows=0, latency_s=1e-9)
    assert not bench.cascade.is_under_load()  # nothing was measured yet
    bench.begin(bench.job("not good"))
    assert bench.cascade.is_under_load()


def test_the_metrics_say_which_point_applies() -> None:
    metrics = Metrics(make_under_load_policy(0.9, 0.5))

    def shown() -> list[float]:
        lines = metrics.fetch()
        return [
            lines.get(series(family, operating_point=point), 0)
            for family in (
                "cascadebert_operating_point_active",
                "cascadebert_operating_point_switches_total",
            )
            for point in ("usual", "fast")
        ]

    assert shown() == [1, 0, 0, 0]
    metrics.switched("fast")
    assert shown() == [0, 1, 0, 1]
    metrics.switched("usual")
    assert (
        metrics.fetch()[series("cascadebert_operating_point_active", operating_point="fast")] == 0
    )


def test_the_point_must_be_tuned_and_defer_fewer_rows() -> None:
    policy = make_under_load_policy(0.9, 0.5)

    def with_exits(usual: float, fast: float) -> Policy:
        points = {"usual": {"exits": [usual, 1 - usual]}, "fast": {"exits": [fast, 1 - fast]}}
        return replace(policy, certificate={"operating_points": points})

    require_faster(with_exits(0.6, 0.8), "fast")
    with pytest.raises(UsageError, match=r"defers 40\.0% of the rows, and the default 'usual'"):
        require_faster(with_exits(0.6, 0.6), "fast")
    with pytest.raises(UsageError, match="'quick', which was not tuned"):
        require_faster(policy, "quick")


def test_the_output_is_declared_if_every_served_version_has_it() -> None:
    config = config_from_text((BLS / "config.pbtxt").read_text(encoding="utf-8"))
    plain, switching = make_policy(0.9), make_under_load_policy(0.9, 0.5)
    for policies, declared in (
        ({1: switching}, True),
        ({1: plain, 2: switching}, False),
        ({1: switching, 2: switching}, True),
        ({1: plain}, False),
    ):
        describe_served(config, policies, None, timeline=False)
        names = [output.name for output in config.output]
        assert names == [*OUTPUTS, *([DECIDED_BY] if declared else [])]


def test_the_status_marks_the_point() -> None:
    shown = points_from_parameters(
        {"operating_points": points_to_json(make_under_load_policy(0.9, 0.5))}
    )
    assert {point.name: (point.default, point.under_load) for point in shown} == {
        "usual": (True, False),
        "fast": (False, True),
    }
    assert "under_load" not in points_to_json(make_policy(0.9))
