"""The command line of tritonserver."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

from .errors import StartError
from .repository import ServedCascade, needs_host_code
from .settings import Settings

# The name of the key. Over gRPC Triton puts `triton-grpc-protocol-` in front of it.
KEY_HEADER = "cascadebert-key"
GRPC_KEY_HEADER = f"triton-grpc-protocol-{KEY_HEADER}"

# Who may ask for these could load other models, read memory, or switch on logging of requests.
# model-config is left open on purpose: the client reads the batch limit of a cascade from it, and
# it says nothing that a caller may not know.
_RESTRICTED = "model-repository,shared-memory,statistics,trace,logging"

# Set here, and relied on by the probe, the published ports or the checks before the start.
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

_LOAD_TIMEOUT_S = 600  # of one python model; large ONNX files take longer than the stub's 30 s
_FLAG = re.compile(r"^\s*--([a-z][a-z0-9-]*)", re.MULTILINE)


def flags_of_server(binary: str) -> frozenset[str]:
    """The flags that this server knows, from its --help.

    Raises:
        StartError: there is no such program, or it does not run.
    """
    try:
        # It prints the help and exits with 1 or 0, as the version pleases.
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
    """The whole command; `extra` comes last, and tritonserver takes the last of two values.

    Args:
        settings: of this container.
        cascades: to load.
        known: flags that the server knows.
        extra: further flags, from the command of the service.

    Raises:
        StartError: `extra` sets what the container relies on, or a flag that there is not.
    """
    _require_foreign(extra, known)
    models = dict.fromkeys(
        model
        for cascade in cascades
        for model in (*cascade.stages, *cascade.other_stages, cascade.name)
    )
    command = [
        settings.binary,
        f"--model-repository={settings.repository}",
        # Only the cascades and their stages, and nothing more at run time without the key.
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        # configs/published.pbtxt where there is one: it names the versions that were published or
        # loaded last, and lists the operating points.
        "--model-config-name=published",
        "--exit-on-error=true",
        "--strict-readiness=true",
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={max(1, int(settings.stop_timeout_s))}",
        f"--backend-config=python,stub-timeout-seconds={_LOAD_TIMEOUT_S}",
        *(f"--{name}-address={settings.address}" for name in ("http", "grpc", "metrics")),
        f"--http-port={settings.http_port}",
        f"--grpc-port={settings.grpc_port}",
        f"--metrics-port={settings.metrics_port}",
        f"--grpc-restricted-protocol={_RESTRICTED}:{KEY_HEADER}={settings.key}",
        f"--http-restricted-api={_RESTRICTED}:{KEY_HEADER}={settings.key}",
    ]
    # Flags of newer servers; 2.51 ends upon one that it does not know.
    newer = {
        "http-max-input-size": str(settings.max_request_bytes),
        "grpc-max-response-pool-size": "64",
    }
    command += [f"--{flag}={value}" for flag, value in newer.items() if flag in known]
    if needs_host_code(settings.repository, cascades):
        # Such a plan carries its own runtime, which the backend runs only if it is told to.
        command.append("--backend-config=tensorrt,version-compatible=true")
    return [*command, *extra]


def _require_foreign(extra: Sequence[str], known: frozenset[str]) -> None:
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
