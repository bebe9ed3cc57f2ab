"""From the checks before the start to the exit code.

Exit codes: 0 stopped on request; 1 the server did not answer any more; 2 there was nothing that
could be served; otherwise the server's own.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from . import log
from .errors import StartError
from .flags import command_of_server, flags_of_server
from .probe import Probe
from .process import SIGNALS, STOP_SIGNALS, ServerProcess
from .repository import ServedCascade, cascades_of_repository
from .settings import Settings
from .watch import Watch

UNHEALTHY = 1
NOTHING_TO_SERVE = 2

_POLL_S = 0.5
_CHECK_TIMEOUT_S = 300.0  # it hashes plans of gigabytes and asks the driver
_BROKEN_STOP_S = 10.0  # what does not answer is not given long to stop
_STOP_MARGIN_S = 5.0  # the server's own limit comes first
# The server has the key in its flags, and its models need none.
_SECRETS = ("CASCADEBERT_KEY", "CASCADEBERT_KEY_FILE")


def run(settings: Settings, environment: Mapping[str, str], extra: Sequence[str] = ()) -> int:
    """Serve until the container is stopped or the server fails; the exit code.

    Args:
        settings: of this container.
        environment: for the server.
        extra: further flags of tritonserver.

    Raises:
        StartError: there is nothing that could be served.
    """
    # From here on a signal waits for the loop: the kernel drops what process 1 does not handle.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    cascades = cascades_of_repository(settings.repository, settings.models)
    environment = {name: value for name, value in environment.items() if name not in _SECRETS}
    _check_engines(settings, cascades, environment)
    command = command_of_server(settings, cascades, flags_of_server(settings.binary), extra)
    if signal.sigpending() & STOP_SIGNALS:
        log.info("stopped before the server started")
        return 0
    start_s = time.monotonic()
    server = ServerProcess(command, environment)
    log.info("tritonserver starts", pid=server.pid, cascades=_names(cascades))
    watch = Watch(
        probe_of(settings),
        cascades,
        interval_s=settings.probe_interval_s,
        failures=settings.probe_failures,
        start_timeout_s=settings.start_timeout_s,
        on_ready=lambda: _ready(settings, cascades, time.monotonic() - start_s),
    )
    watch.start()
    try:
        return _loop(settings, server, watch)
    finally:
        watch.stop()
        settings.served_file.unlink(missing_ok=True)


def probe_of(settings: Settings) -> Probe:
    """The probe of this container's server."""
    return Probe(settings.http_port, settings.metrics_port, settings.probe_timeout_s)


def served_cascades(path: Path) -> list[ServedCascade]:
    """What the running supervisor serves; nothing until its server is ready."""
    try:
        raw = cast("list[dict[str, Any]]", json.loads(path.read_text(encoding="utf-8")))
    except OSError:
        return []
    return [ServedCascade(each["name"], tuple(each["stages"]), each["pair"]) for each in raw]


def _loop(settings: Settings, server: ServerProcess, watch: Watch) -> int:
    while True:
        received = signal.sigtimedwait(SIGNALS, _POLL_S)
        code = server.reap()
        if code is not None:
            return _ended(code, ready=watch.ready)
        if watch.verdict is not None:
            log.error(watch.verdict)
            server.stop(min(_BROKEN_STOP_S, settings.stop_timeout_s))
            return UNHEALTHY
        if received is not None and received.si_signo != signal.SIGCHLD:
            log.info("stopping", signal=signal.Signals(received.si_signo).name)
            watch.stop()
            code = server.stop(settings.stop_timeout_s + _STOP_MARGIN_S)
            log.info("stopped", code=code)
            return code


def _ended(code: int, *, ready: bool) -> int:
    if ready:
        log.error("tritonserver ended by itself", code=code)
    else:
        log.error(
            "tritonserver ended while it started: see its lines above; where they name a model "
            "that does not load, publish that cascade again",
            code=code,
        )
    # Nobody asked for it: a server that ends well without being told has failed too.
    return code or UNHEALTHY


def _ready(settings: Settings, cascades: Sequence[ServedCascade], seconds: float) -> None:
    content = [{"name": c.name, "stages": c.stages, "pair": c.pair} for c in cascades]
    aside = settings.served_file.with_suffix(".new")
    aside.write_text(json.dumps(content), encoding="utf-8")
    aside.replace(settings.served_file)
    policies = ",".join(f"{cascade.name}@{cascade.policy[:12]}" for cascade in cascades)
    log.info("ready", after=f"{seconds:.1f}s", policies=policies)


def _check_engines(
    settings: Settings, cascades: Sequence[ServedCascade], environment: Mapping[str, str]
) -> None:
    """Ask the preflight whether the TensorRT plans fit this machine.

    Raises:
        StartError: with its sentences.
    """
    command = [*settings.preflight, str(settings.repository)]
    for cascade in cascades:
        command += ["--model", cascade.name]
        command += ["--versions", f"{cascade.name}={','.join(map(str, cascade.versions))}"]
    try:
        ended = subprocess.run(
            command,
            env=dict(environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=_CHECK_TIMEOUT_S,
        )
    except OSError as exc:
        raise StartError(
            f"the check of the engines does not run ({exc}): rebuild the image"
        ) from exc
    except subprocess.TimeoutExpired as exc:
        raise StartError(
            f"the check of the engines did not end within {_CHECK_TIMEOUT_S:g} s: see whether "
            "nvidia-smi answers on this machine"
        ) from exc
    lines = (ended.stdout + ended.stderr).splitlines()
    said = [line.removeprefix("cascadebert_engine: ") for line in lines if line.strip()]
    if ended.returncode == 0:
        for line in said:
            log.info(line)
    elif ended.returncode == 1:
        raise StartError("\n".join(said) or "the check of the engines failed without a word")
    else:
        last = said[-1] if said else "no output"
        raise StartError(
            f"the check of the engines ended with code {ended.returncode} ({last}): rebuild the "
            "image"
        )


def _names(cascades: Sequence[ServedCascade]) -> str:
    return ",".join(cascade.name for cascade in cascades)
