"""What the environment of the container may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascadebert_supervisor.errors import StartError
from cascadebert_supervisor.settings import Settings, settings_from_environment


def test_without_a_key_each_start_has_one_of_its_own() -> None:
    keys = {settings_from_environment({"CASCADEBERT_KEY": ""}).key for _ in range(3)}
    assert len(keys) == 3
    assert min(map(len, keys)) >= 32


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("0123456789abcdef\n")
    settings = settings_from_environment(
        {
            "CASCADEBERT_KEY_FILE": str(tmp_path / "key"),
            "CASCADEBERT_MODELS": " one, two,",
            "CASCADEBERT_PROBE_TIMEOUT_S": "2.5",
            "CASCADEBERT_PROBE_FAILURES": "7",
            "CASCADEBERT_STOP_TIMEOUT_S": "",
            "CASCADEBERT_REPOSITORY_PATH": "/mnt/models",
            "CASCADEBERT_HTTP_ADDRESS": "127.0.0.1",
            "CASCADEBERT_PLACEMENT": "published",
            "CASCADEBERT_CORES": "6",
        }
    )
    assert settings == Settings(
        key="0123456789abcdef",
        models=("one", "two"),
        repository=Path("/mnt/models"),
        probe_timeout_s=2.5,
        probe_failures=7,
        http_address="127.0.0.1",
        published_placement=True,
        cores=6,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CASCADEBERT_PROBE_INTERVAL_S", "often"),
        ("CASCADEBERT_PROBE_TIMEOUT_S", "0"),
        ("CASCADEBERT_START_TIMEOUT_S", "inf"),
        ("CASCADEBERT_STOP_TIMEOUT_S", "-1"),
        ("CASCADEBERT_PROBE_FAILURES", "0"),
        ("CASCADEBERT_MAX_REQUEST_BYTES", "1.5"),
        ("CASCADEBERT_PLACEMENT", "inline"),
        ("CASCADEBERT_CORES", "0"),
        ("CASCADEBERT_HTTP_ADDRESS", "10.1.2.3"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(StartError, match=f"{name} is '{value}': give "):
        settings_from_environment({name: value})


@pytest.mark.parametrize(
    "key", ["short", "with spaces in between", "comma,separated,words", "x" * 15]
)
def test_a_key_that_cannot_be_used_is_refused_and_not_quoted(key: str) -> None:
    with pytest.raises(StartError, match=f"a key of {len(key)} characters") as caught:
        settings_from_environment({"CASCADEBERT_KEY": key})
    assert key not in str(caught.value)


def test_a_key_file_that_is_not_there_or_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be read"):
        settings_from_environment({"CASCADEBERT_KEY_FILE": str(tmp_path / "no")})
    with pytest.raises(StartError, match="both set"):
        settings_from_environment({"CASCADEBERT_KEY_FILE": "/x", "CASCADEBERT_KEY": "y" * 20})
