"""The settings of the container, read from its environment before anything starts."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import StartError

# The key is part of a flag, after ":", and of an HTTP header.
_KEY = re.compile(r"[A-Za-z0-9._~-]{16,}")


@dataclass(frozen=True, slots=True)
class Settings:
    """How one server is run.

    Attributes:
        key: The key of the restricted protocols.
        models: The cascades to serve; none means all that are published.
        repository: The model repository.
        poll_s: Seconds between two looks at the stubs and at the verdict of the probes.
        probe_interval_s: Seconds from the end of one probe to the next.
        probe_timeout_s: Seconds that a probe waits for its answer.
        probe_failures: Failed probes in a row that end the container.
        start_timeout_s: Seconds that the server may take to load its models.
        stop_timeout_s: Seconds that requests in flight get when the container stops.
        stop_margin_s: Seconds after these until a server that did not stop is killed.
        max_request_bytes: The largest HTTP request, if the server knows the limit.
        binary: The server.
        preflight: The command that checks the TensorRT plans of a repository.
        published_placement: Whether the models get the instances and threads that were published,
            and not those that fit the machine.
        cores: The cores that these are chosen for; None: those that this process may use.
        overlay: The folder for the repository of links that has these numbers.
        served_file: Where the supervisor tells the health check what it serves.
        address: The address that the server listens on.
        http_address: The address of HTTP, if it is another one.
        http_port: The HTTP port. The container's three ports are fixed.
        grpc_port: The gRPC port.
        metrics_port: The metrics port.
    """

    key: str
    models: tuple[str, ...] = ()
    repository: Path = Path("/models")
    poll_s: float = 0.5
    probe_interval_s: float = 10.0
    probe_timeout_s: float = 30.0
    probe_failures: int = 3
    start_timeout_s: float = 1800.0
    stop_timeout_s: float = 30.0
    stop_margin_s: float = 5.0
    max_request_bytes: int = 16 * 2**20
    binary: str = "tritonserver"
    preflight: tuple[str, ...] = ("python3", "-m", "cascadebert_engine", "check")
    published_placement: bool = False
    cores: int | None = None
    overlay: Path = Path("/tmp/cascadebert-models")
    served_file: Path = Path("/tmp/cascadebert-served.json")
    address: str = "0.0.0.0"
    http_address: str = ""
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002


def settings_from_environment(environment: Mapping[str, str]) -> Settings:
    """Read the variables CASCADEBERT_*. An empty variable counts as absent, as Compose passes it.

    Raises:
        StartError: A value is not allowed.
    """
    default = Settings(key="")
    return Settings(
        key=_key(environment),
        models=tuple(
            name
            for part in environment.get("CASCADEBERT_MODELS", "").split(",")
            if (name := part.strip())
        ),
        repository=Path(environment.get("CASCADEBERT_REPOSITORY_PATH") or default.repository),
        probe_interval_s=_seconds(
            environment, "CASCADEBERT_PROBE_INTERVAL_S", default.probe_interval_s
        ),
        probe_timeout_s=_seconds(
            environment, "CASCADEBERT_PROBE_TIMEOUT_S", default.probe_timeout_s
        ),
        probe_failures=_count(environment, "CASCADEBERT_PROBE_FAILURES", default.probe_failures),
        start_timeout_s=_seconds(
            environment, "CASCADEBERT_START_TIMEOUT_S", default.start_timeout_s
        ),
        stop_timeout_s=_seconds(environment, "CASCADEBERT_STOP_TIMEOUT_S", default.stop_timeout_s),
        http_address=_http_address(environment),
        max_request_bytes=_count(
            environment, "CASCADEBERT_MAX_REQUEST_BYTES", default.max_request_bytes
        ),
        published_placement=_published_placement(environment),
        cores=_count(environment, "CASCADEBERT_CORES", 0) or None,
    )


def _key(environment: Mapping[str, str]) -> str:
    """The given key, or a random one: without a key the protocols are closed."""
    key = environment.get("CASCADEBERT_KEY", "")
    where = "CASCADEBERT_KEY"
    path = environment.get("CASCADEBERT_KEY_FILE", "")
    if path:
        if key:
            raise StartError("CASCADEBERT_KEY and CASCADEBERT_KEY_FILE are both set: set one")
        where = f"the file {path} of CASCADEBERT_KEY_FILE"
        try:
            key = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise StartError(f"{where} cannot be read ({exc}): mount it readable") from exc
    if not key and not path:
        return secrets.token_urlsafe(32)
    if not _KEY.fullmatch(key):
        # The message goes to the log, so it does not hold the key.
        raise StartError(
            f"{where} holds a key of {len(key)} characters that cannot be used: give 16 or more "
            "of letters, digits, '.', '_', '~' and '-' (openssl rand -hex 32)"
        )
    return key


def _http_address(environment: Mapping[str, str]) -> str:
    """The address of HTTP: the probes of the container need it on loopback."""
    name = "CASCADEBERT_HTTP_ADDRESS"
    address = environment.get(name, "")
    if address not in ("", "127.0.0.1", "0.0.0.0"):
        raise StartError(
            f"{name} is {address!r}: give 127.0.0.1, for the health check alone, or 0.0.0.0"
        )
    return address


def _published_placement(environment: Mapping[str, str]) -> bool:
    name = "CASCADEBERT_PLACEMENT"
    text = environment.get(name, "")
    if text not in ("", "machine", "published"):
        raise StartError(
            f"{name} is {text!r}: give machine, for instances and threads that fit the machine, or "
            "published, for those of the repository"
        )
    return text == "published"


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise StartError(f"{name} is {text!r}: give a number of seconds above 0")
    return value


def _count(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise StartError(f"{name} is {text!r}: give a whole number above 0")
    return int(text)
