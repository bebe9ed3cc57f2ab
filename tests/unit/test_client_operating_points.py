"""Operating points, read from a model's configuration."""

from __future__ import annotations

import json

import pytest

from cascadebert_build.repository.model_config import config_from_text, describe_policy, parameter
from cascadebert_client._operating_points import OperatingPoint, points_from_parameters
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
