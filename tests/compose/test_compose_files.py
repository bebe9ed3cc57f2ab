"""The compose files, read by docker-compose if it is installed."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from cascadebert_core.drift_state import STATE_VARIABLE
from tests.compose.conftest import ROOT

BASE, CPU, GPU = "docker-compose.yml", "docker-compose.cpu.yml", "docker-compose.override.yml"
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")

Config = Callable[..., dict[str, Any]]


@pytest.fixture(params=["docker-compose", "docker compose"])
def config(request: pytest.FixtureRequest) -> Config:
    """Reads compose files as one generation of Compose does; gives the services."""
    command: list[str] = request.param.split()
    if not shutil.which(command[0]) or run([*command, "version"]).returncode:
        pytest.skip(f"there is no {request.param!r}")

    def read(*files: str, **variables: str) -> dict[str, Any]:
        arguments = [part for name in files for part in ("-f", name)]
        profiles = [f"--profile={name}" for name in ("tools", "monitoring", "gateway")]
        ended = run([*command, *arguments, *profiles, "config"], **variables)
        assert ended.returncode == 0, ended.stderr
        return yaml.safe_load(ended.stdout)["services"]

    return read


def run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CASCADEBERT")}
    return subprocess.run(
        command, cwd=ROOT, env={**kept, **variables}, capture_output=True, text=True, check=False
    )


def test_every_variable_is_documented_with_its_default() -> None:
    text = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in (BASE, CPU, GPU))
    used = dict(_VARIABLE.findall(text))
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE))
    assert documented == used


def test_the_gpu_is_reserved_by_default_and_not_in_the_cpu_override(config: Config) -> None:
    (device,) = config(BASE, GPU)["triton"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["count"] in ("all", -1)
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert config(BASE, GPU)["builder"]["deploy"] == config(BASE, GPU)["triton"]["deploy"]
    without = config(BASE, CPU)["triton"]
    assert "deploy" not in without
    assert without["build"]["target"] == "cpu"
    # Without -f docker-compose reads the base and the override.
    assert config() == config(BASE, GPU)


def test_only_triton_starts_by_itself(config: Config) -> None:
    services = config(BASE)
    assert {name for name, service in services.items() if not service.get("profiles")} == {"triton"}
    assert set(services) == {"triton", "builder", "bench", "prometheus", "grafana", "gateway"}


def test_services_are_hardened_and_listen_on_loopback(config: Config) -> None:
    for name, service in config(BASE).items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"].partition(":")[0] not in ("", "0", "root"), name
        # The builder installs nothing, but a user's own pip or compiler writes.
        assert service.get("read_only") or name == "builder", name
        assert not service.get("privileged"), name
        for port in service.get("ports", []):
            assert "127.0.0.1" in str(port), name
    models, _ = config(BASE)["triton"]["volumes"]
    assert str(models).endswith("/models:ro") or models["read_only"]


def test_a_broken_guarantee_outlasts_the_container() -> None:
    """Read from the files themselves, so it needs no Compose."""
    compose = yaml.safe_load((ROOT / BASE).read_text(encoding="utf-8"))
    triton = compose["services"]["triton"]
    folder = triton["environment"][STATE_VARIABLE]
    (volume,) = (each for each in triton["volumes"] if each.endswith(f":{folder}"))
    name = _VARIABLE.sub(r"\2", volume).partition(":")[0]
    assert name in compose["volumes"], "a folder of the container's own, or of the host"
    assert not any(folder.startswith(each.partition(":")[0]) for each in triton["tmpfs"])
    # A named volume takes over the owner of the image's folder; otherwise root has it.
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    image = dockerfile.partition(" AS triton\n")[2].partition("\nFROM ")[0]
    assert triton["user"].endswith(":-1000:1000}")
    assert f"chown 1000:1000 {folder}" in image
    assert image.index(f"mkdir -p {folder}") < image.index("USER 1000:1000")


def test_the_gateway_starts_with_the_options_that_the_command_has() -> None:
    """Read from the file itself, so it needs no Compose."""
    from cascadebert_client.cli.server_arguments import Subparsers
    from cascadebert_gateway.parser import add_gateway_parser

    gateway = yaml.safe_load((ROOT / BASE).read_text(encoding="utf-8"))["services"]["gateway"]
    (port,) = gateway["ports"]
    assert port.startswith("${CASCADEBERT_BIND:-127.0.0.1}:")
    assert port.endswith(":8080")
    assert gateway["profiles"] == ["gateway"]
    assert gateway["read_only"]
    parser = argparse.ArgumentParser()
    subparsers: Subparsers = parser.add_subparsers()
    add_gateway_parser(subparsers)
    command = [_VARIABLE.sub(r"\2", word) for word in gateway["command"]]
    args = parser.parse_args(["gateway", *command])
    assert (args.url, args.model, args.host, args.port) == (
        "triton:8001",
        "cascade",
        "0.0.0.0",
        8080,
    )
    assert args.open
    assert set(gateway["environment"]) == {"CASCADEBERT_GATEWAY_KEYS"}
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    image = dockerfile.partition("FROM triton AS gateway")[2].partition("\nFROM ")[0]
    assert 'pip install ".[gateway]"' in image
    assert 'ENTRYPOINT ["cascadebert", "gateway"]' in image


def test_one_variable_holds_the_tag(config: Config) -> None:
    args = config(BASE, CASCADEBERT_TAG="27.01")["triton"]["build"]["args"]
    assert args["TAG"] == "27.01"
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert dockerfile.count("26.11") == 1
    for image in (
        "tritonserver:${TAG}-py3}",
        "tensorrt:${TAG}-py3}",
        "tritonserver:${TAG}-py3-sdk}",
    ):
        assert f"nvcr.io/nvidia/{image}" in dockerfile
