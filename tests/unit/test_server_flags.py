"""The command line of the container's tritonserver."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cascadebert_supervisor.errors import StartError
from cascadebert_supervisor.flags import command_of_server, flags_of_server
from cascadebert_supervisor.repository import ServedCascade
from cascadebert_supervisor.settings import Settings

TINY = ServedCascade("tiny", ("tiny_small", "tiny_large"), pair=False)
SETTINGS = Settings(key="k" * 20)


def test_stages_are_loaded_once_and_before_their_cascades() -> None:
    cascades = [TINY, ServedCascade("twin", ("tiny_small",), pair=False)]
    command = command_of_server(SETTINGS, cascades, frozenset())
    loads = [flag.partition("=")[2] for flag in command if flag.startswith("--load-model")]
    assert loads == ["tiny_small", "tiny_large", "tiny", "twin"]
    assert "--model-control-mode=explicit" in command


def test_protocols_are_restricted_and_model_config_is_not() -> None:
    command = command_of_server(SETTINGS, [TINY], frozenset())
    restricted = [flag for flag in command if "restricted" in flag]
    protocols = "model-repository,shared-memory,statistics,trace,logging"
    assert restricted == [
        f"--grpc-restricted-protocol={protocols}:cascadebert-key={SETTINGS.key}",
        f"--http-restricted-api={protocols}:cascadebert-key={SETTINGS.key}",
    ]


def test_flags_of_newer_servers_are_left_out_for_older_ones() -> None:
    def has_limit(known: frozenset[str]) -> bool:
        command = command_of_server(SETTINGS, [TINY], known)
        return "--http-max-input-size=16777216" in command

    assert has_limit(frozenset({"http-max-input-size"}))
    assert not has_limit(frozenset({"http-port"}))


def test_further_flags_come_last_and_may_not_undo_what_is_relied_on() -> None:
    known = frozenset({"log-verbose"})
    assert command_of_server(SETTINGS, [TINY], known, ["--log-verbose=1"])[-1] == (
        "--log-verbose=1"
    )
    for flag in ("--http-port=1", "--load-model", "--grpc-restricted-protocol=x", "-model-store=/"):
        with pytest.raises(StartError, match="is set by the container"):
            command_of_server(SETTINGS, [TINY], frozenset(), [flag])


def test_a_program_that_is_no_tritonserver_is_refused() -> None:
    for binary in ("/nowhere/tritonserver", "true"):
        with pytest.raises(StartError, match="build the image on NVIDIA's Triton image"):
            flags_of_server(binary)


def test_a_flag_that_the_server_does_not_have_is_named() -> None:
    known = frozenset({"log-verbose"})
    assert command_of_server(SETTINGS, [TINY], known, ["--log-verbose", "1"])[-2:] == [
        "--log-verbose", "1",
    ]  # fmt: skip
    with pytest.raises(StartError, match="tritonserver has no flag --nonsense"):
        command_of_server(SETTINGS, [TINY], known, ["--nonsense=1"])


def test_version_compatible_plans_are_announced_to_their_backend(tmp_path: Path) -> None:
    settings = replace(SETTINGS, repository=tmp_path)
    flag = "--backend-config=tensorrt,version-compatible=true"
    assert flag not in command_of_server(settings, [TINY], frozenset())
    manifest = tmp_path / "tiny_large" / "1" / "engine.json"
    manifest.parent.mkdir(parents=True)
    for compatible in (False, True):
        manifest.write_text(json.dumps({"options": {"version_compatible": compatible}}))
        assert (flag in command_of_server(settings, [TINY], frozenset())) == compatible
