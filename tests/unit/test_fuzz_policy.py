"""policy.json, changed in every way that JSON allows: it is read, or a PolicyError."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascadebert_core.errors import PolicyError
from cascadebert_core.policy import policy_from_json, policy_to_json
from cascadebert_core.windows import POOLS
from tests.support.fuzzing import json_values, mutated
from tests.support.policies import make_policy, make_under_load_policy, make_windows_policy
from tests.support.sizes import sized

EXAMPLES = settings(max_examples=sized(150, 5_000), deadline=None, derandomize=True)

POLICIES = [
    json.loads(policy_to_json(make_policy(*thresholds, labels=labels)))
    for thresholds in ((), (0.9,), (0.5, 0.25))
    for labels in (("a", "b"), ("a", "b", "ü"))
]
POLICIES.append(json.loads(policy_to_json(make_windows_policy(0.5))))
POLICIES.append(json.loads(policy_to_json(make_under_load_policy(0.9, 0.5))))


def parse(text: str) -> None:
    """Read a text: the policy survives writing and reading, or the text is refused."""
    try:
        policy = policy_from_json(text)
    except PolicyError as exc:
        assert str(exc)
        return
    written = policy_to_json(policy)
    again = policy_from_json(written)
    # As text, since a certificate may hold NaN.
    assert policy_to_json(again) == written
    assert again.id == policy.id
    check(json.loads(written))


def check(raw: dict[str, Any]) -> None:
    """Check what the server relies on without checking."""
    assert raw["default_operating_point"] in raw["operating_points"]
    for index, stage in enumerate(raw["stages"]):
        last = index == len(raw["stages"]) - 1
        assert (stage["threshold"] is None) == last
        assert math.isfinite(stage["temperature"])
        assert stage["temperature"] > 0
        assert stage["buckets"][-1] == stage["max_length"] >= 3
        assert sorted(stage["label_indices"]) == list(range(len(raw["labels"])))
        assert "/" not in stage["tokenizer"]
        assert ".." not in stage["tokenizer"]
        if windows := stage.get("windows"):
            assert windows["pool"] in POOLS
            assert windows["overlap"] >= 0
            assert windows["most"] >= 2
    for thresholds in raw["operating_points"].values():
        assert len(thresholds) == len(raw["stages"]) - 1


def signed(raw: Any) -> str:
    """Return the text with the id of its content, so that the error is about another key."""
    if isinstance(raw, dict) and "id" in raw:
        rest = {key: value for key, value in raw.items() if key != "id"}
        text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        raw = {**rest, "id": hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()}
    return json.dumps(raw)


@EXAMPLES
@given(st.sampled_from(POLICIES).flatmap(lambda raw: mutated(copy.deepcopy(raw))))
def test_a_changed_policy_is_read_or_refused(raw: Any) -> None:
    parse(signed(raw))


@EXAMPLES
@given(json_values())
def test_any_json_is_refused_in_words(raw: Any) -> None:
    with pytest.raises(PolicyError):
        policy_from_json(json.dumps(raw))


@EXAMPLES
@given(st.sampled_from(POLICIES), st.data())
def test_a_damaged_text_is_refused_in_words(raw: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(raw)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    parse(text[:start] + data.draw(st.text(st.characters(), max_size=20)) + text[end:])


@pytest.mark.parametrize(
    "value",
    [
        "[" * 100_000,
        "[" * 900 + "]" * 900,
        '{"a":' * 900 + "1" + "}" * 900,
        "1" * 400,
        "1" * 5000,
        "1e400",
        "-1e400",
        "NaN",
        "Infinity",
        '"\\ud800"',
        '"\\u0000"',
        '"' + "x" * 1_000_000 + '"',
    ],
    ids=lambda value: f"{value[:12]}…{len(value)}",
)
def test_each_value_is_too_much_for_some_reader(value: str) -> None:
    raw = POLICIES[2]
    for key in raw:
        text = json.dumps({**raw, key: "HERE"}).replace('"HERE"', value)
        parse(text)
    for key in raw["stages"][0]:
        stages = [{**raw["stages"][0], key: "HERE"}, *raw["stages"][1:]]
        parse(json.dumps({**raw, "stages": stages}).replace('"HERE"', value))
    parse(value)
