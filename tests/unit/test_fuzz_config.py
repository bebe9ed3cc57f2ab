"""cascade.toml, changed in every way that TOML allows: a configuration, or one UsageError."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_build.config.schema import CascadeConfig
from cascadebert_build.errors import UsageError
from tests.support.fuzzing import mutated
from tests.support.sizes import sized

EXAMPLES = settings(max_examples=sized(100, 5_000), deadline=None, derandomize=True)

MEMBERS = [
    {"name": "small", "checkpoint": "checkpoints/small", "max_length": 64, "max_batch_size": 16},
    {"name": "large", "checkpoint": "checkpoints/large", "opt_batch_size": 4},
]
CONFIGS: list[dict[str, Any]] = [
    {
        "name": "news",
        "labels": ["a", "b"],
        "members": MEMBERS,
        "data": {"path": "rows.tsv", "text": "s", "text_pair": "", "label": "y"},
        "runtime": {
            **{"device": "cpu", "buckets": [16, 32], "threads": 1, "audit_rate": 0.01},
            **{"degrade": True, "max_queued_rows": 8, "request_timeout_s": 5},
        },
        "compile": {"workspace_mib": 1, "optimization_level": 3, "fp32_ops": ["Pow"]},
        "tune": {"max_deferral_rate": [0.5], "per_label": True, "signal": "entropy"},
    },
    {
        "members": MEMBERS[:1],
        "runtime": {"backend": "tensorrt", "cuda_graphs": True},
        "tune": {"default": "fast", "confidence": 0.9},
        "operating_points": {
            "fast": {"max_disagreement": 0.05},
            "cheap": {"min_speedup": 2.5},
            "careful": {"max_accuracy_drop": 0.01, "confidence": 0.99},
        },
    },
]


def toml(raw: Any) -> str:
    """The value as TOML, tables inline. TOML has no null: a word in its place is no TOML at all."""
    if isinstance(raw, dict):
        return (
            "{" + ", ".join(f"{_string(key)} = {toml(value)}" for key, value in raw.items()) + "}"
        )
    if isinstance(raw, list):
        return "[" + ", ".join(map(toml, raw)) + "]"
    if isinstance(raw, bool):
        return "true" if raw else "false"
    return _string(raw) if isinstance(raw, str) else repr(raw)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def document(raw: Any) -> str:
    """A whole file."""
    pairs = raw.items() if isinstance(raw, dict) else [("value", raw)]
    return "".join(f"{_string(key)} = {toml(value)}\n" for key, value in pairs)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "cascade.toml"


def parse(path: Path, text: str) -> None:
    """Whatever the text is: a configuration whose every part can be asked for, or a no."""
    path.write_bytes(text.encode(errors="surrogatepass"))
    try:
        config = config_from_file(path)
    except UsageError as exc:
        assert str(path) in str(exc)
        return
    check(config)


def check(config: CascadeConfig) -> None:
    """What the build steps take for granted."""
    assert config.default_point() in config.goals()
    for member in config.members:
        assert config.model_name(member).count("_") == 1
        buckets = config.buckets(member)
        assert buckets[-1] == member.max_length >= 3
        assert list(buckets) == sorted(set(buckets))
        assert config.profiles(member)
        for goal in config.goals().values():
            assert str(goal)


def test_the_configurations_are_read_as_they_are(path: Path) -> None:
    for raw in CONFIGS:
        path.write_text(document(raw), encoding="utf-8")
        config = config_from_file(path)
        check(config)
        assert [member.name for member in config.members] == [m["name"] for m in raw["members"]]


@EXAMPLES
@given(raw=st.sampled_from(CONFIGS).flatmap(lambda raw: mutated(copy.deepcopy(raw))))
def test_a_changed_configuration_is_read_or_refused(path: Path, raw: Any) -> None:
    parse(path, document(raw))


@EXAMPLES
@given(raw=st.sampled_from(CONFIGS), data=st.data())
def test_a_damaged_file_is_refused_in_words(
    path: Path, raw: dict[str, Any], data: st.DataObject
) -> None:
    text = document(raw)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    parse(path, text[:start] + data.draw(st.text(st.characters(), max_size=20)) + text[end:])


@pytest.mark.parametrize(
    "value",
    [
        "[" * 100_000,
        "[" * 900 + "]" * 900,
        "{a = " * 900 + "1" + "}" * 900,
        "1" * 400,
        "-" + "1" * 400,
        "1" * 5000,
        "1e400",
        "nan",
        "-inf",
        "1979-05-27T07:32:00Z",
        "0x7fffffffffffffffffff",
        '"\\u0000"',
        '""',
        '"' + "x" * 10_000 + '"',
    ],
    ids=lambda value: f"{value[:12]}…{len(value)}",
)
def test_each_value_is_too_much_for_some_reader(path: Path, value: str) -> None:
    for raw in CONFIGS:
        for key, table in raw.items():
            parse(path, document({**raw, key: "HERE"}).replace('"HERE"', value))
            inner = table[0] if key == "members" else table
            for name in inner if isinstance(inner, dict) else ():
                changed: Any = {**inner, name: "HERE"}
                changed = [changed, *table[1:]] if key == "members" else changed
                parse(path, document({**raw, key: changed}).replace('"HERE"', value))
    parse(path, value)
