"""The command line of tritonserver."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .errors import StartError
from .repository import ServedCascade, needs_host_code
from .settings import Settings

# Seconds that a model may take to load. Large ONNX files take longer than the stub's default of 30.
LOAD_TIMEOUT_S = 600

# The header of the key. Over gRPC Triton puts `triton-grpc-protocol-` in front of it.
KEY_HEADER = "cascadebert-key"
GRPC_KEY_HEADER = f"triton-grpc-protocol-{KEY_HEADER}"

# These protocols can load other models, read memory, or switch on logging of requests.
# model-config stays open on purpose: the client reads the batch limit of a cascade from it, and it
# holds nothing that a caller may not know.
RESTRICTED = "model-repository,shared-memory,statistics,trace,logging"

# The probe, the published ports or the checks before the start rely on these flags.
_OURS = (
    "model-repository",
    "model-store",
    "model-control-mode",
    "load-model",
    "allow-http",
    "allow-metrics",
    "http-address",
    "http-port",
    "metrics-address",
    "metrics-port",
    "grpc-port",
    "http-restricted-api",
    "grpc-restricted-protocol",
)

_FLAG = re.compile(r"^\s*--([a-z][a-z0-9-]*)", re.MULTILINE)


def server_flags(
    repository: Path,
    address: str,
    *,
    http: int,
    grpc: int,
    metrics: int,
    exit_timeout_s: float,
    http_address: str = "",
) -> list[str]:
    """Return the flags that the container's server and the embedded one have in common.

    Args:
        repository: The model repository.
        address: The address that the endpoints listen on.
        http: The port of HTTP.
        grpc: The port of gRPC.
        metrics: The port of the metrics.
        exit_timeout_s: Seconds that requests in flight get when the server stops.
        http_address: The address of HTTP, if it is another one.
    """
    return [
        f"--model-repository={repository}",
        # Only models that are named are loaded.
        "--model-control-mode=explicit",
        "--exit-on-error=true",
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={max(1, int(exit_timeout_s))}",
        f"--backend-config=python,stub-timeout-seconds={LOAD_TIMEOUT_S}",
        f"--http-address={http_address or address}",
        f"--grpc-address={address}",
        f"--metrics-address={address}",
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        f"--metrics-port={metrics}",
    ]


def flags_of_server(binary: str) -> frozenset[str]:
    """Return the flags that this server knows, from its --help.

    Raises:
        StartError: There is no such program, or it does not run.
    """
    try:
        # The exit code of --help is 1 or 0, depending on the version.
        ended = subprocess.run(
            [binary, "--help"], capture_output=True, text=True, check=False, timeout=120
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise StartError(
            f"{binary} does not run ({exc}): build the image on NVIDIA's Triton image "
            "(CASCADEBERT_TRITON_IMAGE)"
        ) from exc
    known = frozenset(_FLAG.findall(ended.stdout + ended.stderr))
    if "model-repository" not in known:
        last = (ended.stderr.strip() or "no output").splitlines()[-1]
        raise StartError(
            f"{binary} --help ended with code {ended.returncode} ({last}): build the image on "
            "NVIDIA's Triton image (CASCADEBERT_TRITON_IMAGE)"
        )
    return known


def command_of_server(
    settings: Settings,
    cascades: Sequence[ServedCascade],
    known: frozenset[str],
    extra: Sequence[str] = (),
) -> list[str]:
    """Return the whole command of the container's server.

    Args:
        settings: The settings of the container.
        cascades: The cascades to load.
        known: The flags that the server knows.
        extra: Further flags, from the command of the service. They come last, and tritonserver
            takes the last of two values.

    Raises:
        StartError: `extra` sets a flag that the container relies on, or that does not exist.
    """
    _refuse(extra, known)
    models = dict.fromkeys(
        model
        for cascade in cascades
        for model in (*cascade.stages, *cascade.other_stages, cascade.name)
    )
    command = [
        settings.binary,
        *server_flags(
            settings.repository,
            settings.address,
            http=settings.http_port,
            grpc=settings.grpc_port,
            metrics=settings.metrics_port,
            exit_timeout_s=settings.stop_timeout_s,
            http_address=settings.http_address,
        ),
        *(f"--load-model={model}" for model in models),
        # configs/published.pbtxt, if a model has it, names the versions that were published or
        # loaded last, and lists the operating points.
        "--model-config-name=published",
        "--strict-readiness=true",
        f"--grpc-restricted-protocol={RESTRICTED}:{KEY_HEADER}={settings.key}",
        f"--http-restricted-api={RESTRICTED}:{KEY_HEADER}={settings.key}",
    ]
    # Flags of newer servers; 2.51 refuses to start with a flag that it does not know.
    newer = {
        "http-max-input-size": str(settings.max_request_bytes),
        "grpc-max-response-pool-size": "64",
    }
    command += [f"--{flag}={value}" for flag, value in newer.items() if flag in known]
    if needs_host_code(settings.repository, cascades):
        # Such a plan carries its own runtime, which the backend runs only if it is told to.
        command.append("--backend-config=tensorrt,version-compatible=true")
    return [*command, *extra]


def _refuse(extra: Sequence[str], known: frozenset[str]) -> None:
    for argument in extra:
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and name in _OURS:
            raise StartError(
                f"--{name} is set by the container: leave it out, and see docs/containers.md for "
                "the variable that does what you want"
            )
        if argument.startswith("--") and name not in known:
            raise StartError(
                f"tritonserver has no flag --{name}: see `tritonserver --help` of this image"
            )
