"""Operating points, read from a model's configuration."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cascadebert_build.repository.model_config import config_from_text, describe_policy, parameter
from cascadebert_client._operating_points import OperatingPoint, points_from_parameters
from cascadebert_client._types import ModelStatus, ServerStatus
from cascadebert_client.cli.rendering import status_json, status_text
from cascadebert_client.verdicts import Verdict, verdicts_from_parameters
from cascadebert_core.contract import VERDICTS
from cascadebert_core.guarantee import Guarantee, budget_as_text
from tests.support.policies import make_policy


def test_what_the_build_writes_the_client_reads() -> None:
    policy = make_policy(0.9, 0.8).with_operating_points(
        {"fast": (0.5, (0.25, 0.75)), "slow": (1.0, 1.0)}, "fast"
    )
    config = config_from_text('name: "x"')
    describe_policy(config, policy)
    text = parameter(config, "operating_points")
    assert text is not None
    assert points_from_parameters({"operating_points": text}) == (
        OperatingPoint("fast", default=True, thresholds=(0.5, (0.25, 0.75))),
        OperatingPoint("slow", default=False, thresholds=(1.0, 1.0)),
    )
    assert parameter(config, "policy") == policy.id


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        (
            {"promise": {"kind": "max_accuracy_drop", "limit": 0.005, "confidence": 0.99}},
            f"guarantee: {Guarantee('max_accuracy_drop', 0.005, 0.99)}",
        ),
        (
            {"budget": {"kind": "max_deferral_rate", "limit": [0.25, 0.5]}},
            f"budget: {budget_as_text('max_deferral_rate', [0.25, 0.5])}",
        ),
        (
            {"budget": {"kind": "min_speedup", "limit": 2.0}},
            f"budget: {budget_as_text('min_speedup', [2.0])}",
        ),
        ({"by_hand": True}, "set by hand: guarantees nothing"),
        ({}, None),
    ],
)
def test_goals_are_in_the_words_of_the_core(goal: dict[str, object], words: str | None) -> None:
    raw = {"p": {"thresholds": [0.5], "exits": [0.75, 0.25], "speedup": 1.5, **goal}}
    (point,) = points_from_parameters({"operating_points": json.dumps(raw)})
    assert point.goal == words
    assert point.deferral == 0.25


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": 1}', '{"a": {}}', '{"a": {"thresholds": ["x"]}}']
)
def test_what_is_not_understood_is_left_out(text: str) -> None:
    assert points_from_parameters({"operating_points": text}) == ()
    assert points_from_parameters({}) == ()


def test_speed_is_shown_with_its_spread_and_computations_beside_it() -> None:
    certificate = {"speedup": 1.94, "speedup_spread": [1.75, 2.73], "computations": 0.49}
    policy = make_policy(0.9).with_operating_points({"fast": (0.5,)}, "fast")
    policy = replace(policy, certificate={"operating_points": {"fast": certificate}})
    config = config_from_text('name: "x"')
    describe_policy(config, policy)
    text = parameter(config, "operating_points")
    assert text is not None
    (point,) = points_from_parameters({"operating_points": text})
    assert (point.speedup, point.speedup_spread, point.computations) == (1.94, (1.75, 2.73), 0.49)
    model = ModelStatus("x", ready=True, operating_points=(point,))
    status = ServerStatus("here", live=True, ready=True, name=None, version=None, model=model)
    assert status_text(status).splitlines()[-1].split()[-4:] == ["1.94", "[1.75,", "2.73]", "0.49"]


@pytest.mark.parametrize(
    ("name", "default", "under_load", "shown"),
    [
        ("default", True, False, "default"),
        ("fast", True, False, "fast (default)"),
        ("fast", False, True, "fast (under load)"),
        ("fast", False, False, "fast"),
    ],
)
def test_a_point_is_marked_once(name: str, default: bool, under_load: bool, shown: str) -> None:
    raw = {name: {"thresholds": [0.5], "default": default, "under_load": under_load}}
    points = points_from_parameters({"operating_points": json.dumps(raw)})
    model = ModelStatus("x", ready=True, operating_points=points)
    status = ServerStatus("here", live=True, ready=True, name=None, version=None, model=model)
    assert status_text(status).splitlines()[-1].startswith(f"{shown}  ")


def test_what_does_not_pay_is_in_the_status() -> None:
    verdict = Verdict("costs_more", "fast", "The operating point fast costs more.", "Loosen it.")
    raw = {"kind": "costs_more", "subject": "fast", "text": verdict.text, "help": verdict.help}
    policy = replace(make_policy(0.9), certificate={VERDICTS: [raw]})
    config = config_from_text('name: "x"')
    describe_policy(config, policy)
    text = parameter(config, VERDICTS)
    assert text is not None
    found = verdicts_from_parameters({VERDICTS: text}, ())
    assert found == (verdict,)
    model = ModelStatus("x", ready=True, verdicts=found)
    status = ServerStatus("here", live=True, ready=True, name=None, version=None, model=model)
    assert f"WARNING: {verdict.text} {verdict.help}" in status_text(status)
    assert json.loads(status_json(status))["model"]["verdicts"] == [raw]
    # The next version's policy has nothing to say.
    describe_policy(config, make_policy(0.9))
    assert parameter(config, VERDICTS) is None


def test_an_earlier_release_says_only_how_fast_a_point_is() -> None:
    points = {
        name: OperatingPoint(name, default=False, thresholds=(0.5,), speedup=speedup)
        for name, speedup in (("slow", 0.8), ("fast", 1.5), ("unknown", None))
    }
    (found,) = verdicts_from_parameters({}, tuple(points.values()))
    assert (found.kind, found.subject) == ("costs_more", "slow")
    assert "1.25 times the time" in found.text
    assert verdicts_from_parameters({VERDICTS: "[]"}, tuple(points.values())) == ()


@pytest.mark.parametrize("text", ["", "{", "3", '{"a": 1}', '[{"kind": "x"}]', "[" * 100_000])
def test_verdicts_that_are_not_understood_are_left_out(text: str) -> None:
    assert verdicts_from_parameters({VERDICTS: text}, ()) == ()
