"""The curve of quality against cost: swept by `tune`, published, and read by the client."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cascadebert_build.evaluation.costs import RowCosts
from cascadebert_build.repository.model_config import config_from_text, describe_policy
from cascadebert_build.tuning.cost_curve import cost_curve
from cascadebert_build.tuning.guarantee import Predictions
from cascadebert_client._cost_curve import cost_curve_from_parameters
from cascadebert_core.contract import COST_CURVE
from tests.support.policies import make_policy

# The first stage is right about the rows of which it is confident.
CONFIDENCE = np.array([[0.9], [0.8], [0.7], [0.6], [0.55]], np.float32)
LABELS = np.array([[0, 0], [1, 1], [0, 0], [1, 0], [0, 1]])
COSTS = RowCosts(np.tile([1.0, 4.0], (5, 1)))


def predictions(*, labelled: bool = True) -> Predictions:
    truth = np.array([0, 1, 0, 1, 1]) if labelled else None
    return Predictions(LABELS, CONFIDENCE, truth)


def test_it_goes_from_the_first_stage_alone_to_all_rows_deferred() -> None:
    found = cost_curve(predictions(), COSTS, {"balanced": (0.65,), "none": (0.0,)})
    assert found["quality"] == "accuracy"
    assert found["curve"][0] == [0.25, 0.8], "no row is deferred: a quarter of the cost"
    assert found["curve"][-1] == [1.25, 0.8], "all rows pay for both stages"
    assert max(quality for _, quality in found["curve"]) == 1.0
    assert found["last"] == [1.0, 0.8]
    # Two of five rows are deferred.
    assert found["points"] == {"balanced": [0.65, 0.8], "none": [0.25, 0.8]}


def test_without_labels_it_is_agreement_with_the_last_stage() -> None:
    found = cost_curve(predictions(labelled=False), COSTS, {"balanced": (0.65,)})
    assert (found["quality"], found["last"][1]) == ("agreement", 1.0)
    assert found["points"]["balanced"] == [0.65, 1.0]


def test_rows_without_a_finite_confidence_pass_every_gate() -> None:
    broken = replace(predictions(), confidence=np.full((5, 1), np.nan, np.float32))
    assert cost_curve(broken, COSTS, {})["curve"] == [[1.25, 0.8]]


def test_it_is_published_and_read() -> None:
    curve = cost_curve(predictions(), COSTS, {"fast": (0.65,)})
    policy = replace(make_policy(), certificate={COST_CURVE: curve})
    config = config_from_text('name: "tiny"')
    describe_policy(config, policy)
    text = config.parameters[COST_CURVE].string_value
    found = cost_curve_from_parameters({COST_CURVE: text})
    assert found is not None
    assert (found.quality, found.rows, found.last) == ("accuracy", 5, (1.0, 0.8))
    assert found.points == {"fast": (0.65, 0.8)}
    describe_policy(config, replace(policy, certificate=None))
    assert COST_CURVE not in config.parameters, "it was another policy's"


@pytest.mark.parametrize("text", ["", "3", "[]", "{}", json.dumps({"quality": 1}), "[" * 10_000])
def test_what_cannot_be_read_is_no_curve(text: str) -> None:
    assert cost_curve_from_parameters({COST_CURVE: text}) is None
    assert cost_curve_from_parameters({}) is None
