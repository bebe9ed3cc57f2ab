"""policy.json: read whole, refused with the key and the value."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cascadebert_core.errors import PolicyError
from cascadebert_core.policy import policy_from_file, policy_from_json, policy_to_json
from cascadebert_core.task import MULTI_LABEL, SINGLE_LABEL
from tests.support.policies import make_multi_label_policy, make_policy, make_windows_policy


def written(**changes: Any) -> str:
    """Return the text of a two-stage policy with changed top-level keys and a matching id."""
    raw = json.loads(policy_to_json(make_policy(0.9)))
    raw.update(changes)
    return with_id(raw)


def with_id(raw: dict[str, Any]) -> str:
    raw.pop("id", None)
    canonical = json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps({**raw, "id": hashlib.sha256(canonical.encode()).hexdigest()})


@pytest.mark.parametrize("thresholds", [(), (0.9,), (0.5, 0.25)])
def test_a_policy_survives_the_file(thresholds: tuple[float, ...]) -> None:
    policy = make_policy(*thresholds, labels=("a", "b", "ü"))
    assert policy_from_json(policy_to_json(policy)) == policy


def test_the_id_is_the_hash_of_the_canonical_json_without_it() -> None:
    policy = make_policy(0.9)
    raw = json.loads(policy_to_json(policy))
    assert json.loads(with_id(raw))["id"] == policy.id
    assert make_policy(0.91).id != policy.id


def test_a_file_edited_by_hand_is_refused() -> None:
    text = policy_to_json(make_policy(0.9)).replace("0.9", "0.8")
    with pytest.raises(PolicyError, match="was edited"):
        policy_from_json(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 1}, "schema_version is 1 and this reader knows 5, 6, 7, 8"),
        ({"labels": ["a"]}, "two or more"),
        ({"labels": ["a", "a"]}, "distinct"),
        ({"pair": "no"}, "pair is 'no'"),
        ({"stages": []}, "stages is"),
        ({"surprise": 1}, "unknown keys"),
        ({"operating_points": {"default": [0.9, 0.9]}}, "give 1 thresholds"),
        ({"operating_points": {"default": [1.5]}}, "from 0 to 1"),
        ({"operating_points": {"default": [True]}}, "finite number"),
        ({"operating_points": {"default": [0.8]}}, "are not those of the default"),
        ({"operating_points": {"fast": [0.9]}}, "is not one of"),
        ({"certificate": 3}, "give an object or null"),
        ({"audit_rate": 1.5}, "audit_rate is 1.5: give a number from 0 to 1"),
        ({"audit_rate": -0.1}, "from 0 to 1"),
        ({"audit_rate": None}, "finite number"),
        ({"audit_rate": True}, "finite number"),
    ],
)
def test_a_wrong_top_level_key_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        policy_from_json(written(**changes))


@pytest.mark.parametrize(
    ("index", "changes", "message"),
    [
        (0, {"threshold": None}, "only the last stage has none"),
        (0, {"threshold": -0.1}, "from 0 to 1"),
        (1, {"threshold": 0.5}, "last stage always answers"),
        (0, {"temperature": 0}, "above 0"),
        (0, {"signal": "hunch"}, "one of max_probability, margin, entropy, energy"),
        (0, {"version": 0}, "integer >= 1"),
        (0, {"max_batch_size": True}, "integer >= 1"),
        (0, {"buckets": [16, 8]}, "ascending"),
        (0, {"buckets": [4, 8]}, "must be max_length = 16"),
        (0, {"inputs": ["input_ids"]}, "attention_mask"),
        (0, {"inputs": ["input_ids", "attention_mask", "pixels"]}, "pixels"),
        (0, {"label_indices": [0, 0]}, "each of 0 to 1 once"),
        (0, {"label_indices": [0, 1, 2]}, "each of 0 to 1 once"),
        (0, {"tokenizer": "../../etc"}, "must match"),
        (0, {"model": "a/b"}, "must match"),
        (1, {"extra": 1}, "unknown keys"),
    ],
)
def test_a_wrong_stage_key_is_named(index: int, changes: dict[str, Any], message: str) -> None:
    raw = json.loads(policy_to_json(make_policy(0.9)))
    raw["stages"][index].update(changes)
    with pytest.raises(PolicyError, match=message) as caught:
        policy_from_json(with_id(raw))
    assert f"stages[{index}]" in str(caught.value) or "thresholds" in message


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ({"pool": "median"}, "pool is 'median': give one of mean, max"),
        ({"overlap": -1}, "overlap is -1: give an integer >= 0"),
        ({"most": 1}, "most is 1: give an integer >= 2"),
        ({"size": 3}, r"unknown keys \['size'\]"),
        (3, "is 3: give a JSON object"),
    ],
)
def test_a_wrong_key_of_windows_is_named(windows: Any, message: str) -> None:
    raw = json.loads(policy_to_json(make_windows_policy(0.9)))
    own = raw["stages"][1]["windows"]
    raw["stages"][1]["windows"] = {**own, **windows} if isinstance(windows, dict) else windows
    with pytest.raises(PolicyError, match=rf"stages\[1\]\.windows.*{message}"):
        policy_from_json(with_id(raw))


@pytest.mark.parametrize("version", [5, 6])
def test_windows_need_their_schema(version: int) -> None:
    raw = json.loads(policy_to_json(make_windows_policy(0.9)))
    del raw["task"]
    if version == 6:
        raw["task"] = MULTI_LABEL
        raw["stages"][0]["signal"] = raw["stages"][1]["signal"] = "least_sure"
    with pytest.raises(PolicyError, match=r"unknown keys \['windows'\]"):
        policy_from_json(with_id({**raw, "schema_version": version}))


def test_a_missing_key_is_named() -> None:
    raw = json.loads(policy_to_json(make_policy(0.9)))
    del raw["stages"][1]["buckets"]
    with pytest.raises(PolicyError, match=r"stages\[1\]\.buckets is missing"):
        policy_from_json(with_id(raw))


def test_the_audit_rate_is_part_of_the_policy_and_survives_new_thresholds() -> None:
    plain = make_policy(0.9)
    assert plain.audit_rate == 0
    audited = replace(plain, audit_rate=0.25)
    assert audited.id != plain.id
    assert policy_from_json(policy_to_json(audited)) == audited
    assert audited.with_thresholds((0.5,)).with_signal("margin").audit_rate == 0.25
    raw = json.loads(policy_to_json(audited))
    del raw["audit_rate"]
    with pytest.raises(PolicyError, match=r"policy\.audit_rate is missing"):
        policy_from_json(with_id(raw))


def test_how_a_policy_is_served_can_change_without_what_it_decides() -> None:
    plain = make_policy(0.9)
    assert [stage.max_queued_rows for stage in plain.stages] == [1024, 1024]
    assert replace(plain.stages[0], max_batch_size=128, max_queued_rows=0).max_queued_rows == 2048
    stages = tuple(replace(stage, max_queued_rows=5) for stage in plain.stages)
    served = replace(plain, stages=stages, degrade=True, request_timeout_s=7.5, audit_rate=0.1)
    assert policy_from_json(policy_to_json(served)) == served
    tuned = plain.with_thresholds((0.7,))
    assert tuned.with_service_of(served).with_service_of(plain) == tuned
    both = tuned.with_service_of(served)
    assert (both.degrade, both.request_timeout_s, both.audit_rate) == (True, 7.5, 0.1)
    assert both.stages[1].max_queued_rows == 5
    assert both.thresholds == (0.7,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"degrade": "yes"}, "policy.degrade is 'yes': give true or false"),
        ({"degrade": None}, "policy.degrade is None"),
        ({"request_timeout_s": 0}, "policy.request_timeout_s is 0.0: give seconds above 0"),
        ({"request_timeout_s": "5"}, "policy.request_timeout_s is '5'"),
        ({"request_timeout_s": 1e10}, "give seconds above 0, at most 1e.06"),
    ],
)
def test_limits_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        policy_from_json(written(**changes))
    raw = json.loads(policy_to_json(make_policy(0.9)))
    raw["stages"][1]["max_queued_rows"] = 0
    with pytest.raises(PolicyError, match="max_queued_rows is 0: give an integer >= 1"):
        policy_from_json(with_id(raw))


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(PolicyError):
        policy_from_json(text)


def test_a_missing_or_undecodable_file_is_a_policy_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="does not exist"):
        policy_from_file(tmp_path / "policy.json")
    (tmp_path / "policy.json").write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="cannot be read"):
        policy_from_file(tmp_path / "policy.json")


def test_a_single_label_policy_is_written_as_older_servers_read_it() -> None:
    raw = json.loads(policy_to_json(make_policy(0.9)))
    assert raw["schema_version"] == 5
    assert "task" not in raw
    assert policy_from_json(json.dumps(raw)).task == SINGLE_LABEL


@pytest.mark.parametrize("labels", [("toxic",), ("a", "b", "ü")])
def test_a_multi_label_policy_has_a_schema_that_older_servers_refuse(
    labels: tuple[str, ...],
) -> None:
    policy = make_multi_label_policy(0.9, 0.7, labels=labels)
    text = policy_to_json(policy)
    assert (json.loads(text)["schema_version"], json.loads(text)["task"]) == (6, MULTI_LABEL)
    assert policy_from_json(text) == policy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": SINGLE_LABEL}, "policy.task is 'single_label': a policy of schema 6"),
        ({"task": "ranking"}, "policy.task is 'ranking'"),
        ({"task": None}, "policy.task is None"),
        ({"schema_version": 5}, "signal is 'least_sure'"),
        ({"labels": []}, "labels is"),
        ({"operating_points": {"default": [[0.9, 0.9, 0.9]]}}, "the answers are sets of labels"),
    ],
)
def test_a_wrong_multi_label_policy_is_refused(changes: dict[str, Any], message: str) -> None:
    raw = json.loads(policy_to_json(make_multi_label_policy(0.9)))
    with pytest.raises(PolicyError, match=message):
        policy_from_json(with_id({**raw, **changes}))


def test_signals_belong_to_a_task() -> None:
    for policy, signal in (
        (make_multi_label_policy(0.9), "margin"),
        (make_policy(0.9), "least_sure"),
    ):
        with pytest.raises(PolicyError, match=f"signal is '{signal}': give one of"):
            policy_from_json(policy_to_json(policy.with_signal(signal)))
