"""Request parameters to routes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cascadebert_core.errors import InvalidArgument
from cascadebert_core.gate import ALWAYS_EXIT
from cascadebert_core.route import Router
from tests.support.policies import make_policy

POLICY = replace(
    make_policy(0.9, 0.8), operating_points={"default": (0.9, 0.8), "fast": (0.6, 0.5)}
)
ROUTER = Router(POLICY)


def test_without_parameters_the_default_operating_point_holds() -> None:
    route = ROUTER.route_from_parameters({})
    assert route.thresholds == (np.float32(0.9), np.float32(0.8), ALWAYS_EXIT)
    assert (route.first, route.last) == (0, 2)
    assert route.operating_point == "default"


def test_parameters_of_tritons_own_are_left_alone() -> None:
    own = {"timeout": 5, "priority": 1, "triton_enable_empty_final_response": True}
    assert ROUTER.route_from_parameters(own) == ROUTER.default


def test_an_operating_point_is_chosen_by_name() -> None:
    route = ROUTER.route_from_parameters({"operating_point": "fast"})
    assert route.thresholds[:2] == (np.float32(0.6), np.float32(0.5))
    assert route.operating_point == "fast"


@pytest.mark.parametrize("parameters", [{"threshold": 0.9}, {"stage": 0}])
def test_what_the_caller_chooses_is_no_operating_point(parameters: dict[str, object]) -> None:
    assert ROUTER.route_from_parameters(parameters).operating_point is None


@pytest.mark.parametrize("value", ["0.75", 0.75, "7.5e-1"])
def test_a_threshold_holds_for_every_stage_but_the_last(value: object) -> None:
    route = ROUTER.route_from_parameters({"threshold": value})
    assert route.thresholds == (np.float32(0.75), np.float32(0.75), ALWAYS_EXIT)


@pytest.mark.parametrize("value", ["0.75,0.5", "0.75, 0.50"])
def test_each_stage_may_have_a_threshold_of_its_own(value: str) -> None:
    route = ROUTER.route_from_parameters({"threshold": value})
    assert route.thresholds == (np.float32(0.75), np.float32(0.5), ALWAYS_EXIT)
    assert route.operating_point is None


@pytest.mark.parametrize("value", [0, 1, "0", "1.0"])
def test_the_ends_of_the_range_are_allowed(value: object) -> None:
    assert ROUTER.route_from_parameters({"threshold": value}).thresholds[0] == np.float32(
        float(str(value))
    )


@pytest.mark.parametrize("value", [1, "1", 1.0])
def test_a_forced_stage_answers_alone(value: object) -> None:
    route = ROUTER.route_from_parameters({"stage": value})
    assert (route.first, route.last) == (1, 1)
    assert route.thresholds[1] == ALWAYS_EXIT


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"threshold": "1.01"}, "from 0 to 1"),
        ({"threshold": -0.0001}, "from 0 to 1"),
        ({"threshold": "nan"}, "from 0 to 1"),
        ({"threshold": "0.5,0.5,0.5"}, "3 numbers, .* or one for each of the 2"),
        ({"threshold": "0.5,"}, "from 0 to 1"),
        ({"threshold": "0.5,1.5"}, "from 0 to 1"),
        ({"threshold": [0.5, 0.5]}, "from 0 to 1"),
        ({"threshold": "inf"}, "from 0 to 1"),
        ({"threshold": "high"}, "'high'"),
        ({"threshold": True}, "True"),
        ({"threshold": 10**400}, "from 0 to 1"),
        ({"stage": "9" * 5000}, "from 0 to 2"),
        ({"stage": 3}, "stage is '3': give an integer from 0 to 2"),
        ({"stage": -1}, "from 0 to 2"),
        ({"stage": 0.5}, "from 0 to 2"),
        ({"stage": True}, "from 0 to 2"),
        ({"stage": "two"}, "from 0 to 2"),
        ({"stage": "²"}, "from 0 to 2"),
        ({"operating_point": "slow"}, "this policy has default, fast"),
        ({"operating_point": 1}, "unknown operating point 1"),
        ({"stage": 1, "threshold": 0.5}, "exclude each other"),
        ({"treshold": 0.5}, "unknown request parameter 'treshold'"),
    ],
)
def test_what_cannot_be_served_is_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        ROUTER.route_from_parameters(parameters)
