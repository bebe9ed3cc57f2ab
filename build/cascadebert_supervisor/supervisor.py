"""The container's server, from the checks before its start to the exit code.

Exit codes: 0 stopped on request; 1 the server no longer answered, or a stub died; 2 there was
nothing to serve; otherwise the server's own.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from . import log
from .cores import cores
from .drain import drain
from .errors import StartError
from .fitted import described, fitted_configs
from .flags import KEY_HEADER, command_of_server, flags_of_server
from .overlay import Overlay
from .preflight import check_engines
from .probe import Probe, ProbeResult
from .process import SIGNALS, STOP_SIGNALS, ServerProcess
from .repository import ServedCascade, cascades_of_repository
from .served import write_served
from .settings import Settings
from .stubs import Stubs, StuckStubs, deaths
from .watch import Watch

UNHEALTHY = 1
NOTHING_TO_SERVE = 2

_BROKEN_STOP_S = 10.0  # a server that does not answer gets no longer to stop
# The server has the key in its flags, and its models need none.
_SECRETS = ("CASCADEBERT_KEY", "CASCADEBERT_KEY_FILE")


def run(settings: Settings, environment: Mapping[str, str], extra: Sequence[str] = ()) -> int:
    """Serve until the container is stopped or the server fails.

    Args:
        settings: The settings of the container.
        environment: The environment of the server.
        extra: Further flags of tritonserver.

    Returns:
        The exit code.

    Raises:
        StartError: There is nothing that can be served.
    """
    # From here on a signal waits for the loop: the kernel drops what process 1 does not handle.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    cascades = cascades_of_repository(settings.repository, settings.models)
    environment = {name: value for name, value in environment.items() if name not in _SECRETS}
    check_engines(settings, cascades, environment)
    known = flags_of_server(settings.binary)
    overlay = _overlay(settings, cascades)
    served = settings if overlay is None else replace(settings, repository=overlay.folder)
    command = command_of_server(served, cascades, known, extra)
    if signal.sigpending() & STOP_SIGNALS:
        log.info("stopped before the server started")
        return 0
    start_s = time.monotonic()
    server = ServerProcess(command, environment)
    names = ",".join(cascade.name for cascade in cascades)
    log.info("tritonserver starts", pid=server.pid, cascades=names)
    watch = Watch(
        probe_of(settings),
        lambda: cascades,
        interval_s=settings.probe_interval_s,
        failures=settings.probe_failures,
        start_timeout_s=settings.start_timeout_s,
        on_ready=lambda: _ready(settings, cascades, time.monotonic() - start_s),
        on_result=_log_result,
    )
    watch.start()
    try:
        return _loop(settings, server, watch, [cascade.name for cascade in cascades], overlay)
    finally:
        watch.stop()
        settings.served_file.unlink(missing_ok=True)


def probe_of(settings: Settings) -> Probe:
    """Return the probe of this container's server."""
    return Probe(settings.http_port, settings.metrics_port, settings.probe_timeout_s)


def _overlay(settings: Settings, cascades: Sequence[ServedCascade]) -> Overlay | None:
    """Give the models the instances and threads that fit the machine; None leaves them as they are.

    Without them the cascade answers the same, so no failure here ends the container.
    """
    if settings.published_placement:
        return None
    n_cores = settings.cores or cores()
    try:
        configs = fitted_configs(settings.repository, cascades, n_cores)
        if not configs:
            return None
        overlay = Overlay(settings.repository, settings.overlay, configs)
    except (OSError, ValueError, LookupError, TypeError, StartError) as exc:
        log.warning(f"the models get the instances that were published: {exc}")
        return None
    log.info("instances x threads for this machine", cores=n_cores, **described(configs))
    return overlay


def _follow(overlay: Overlay | None) -> None:
    if overlay is None:
        return
    try:
        overlay.follow()
    except OSError as exc:
        log.warning(f"what was published since cannot be linked: {exc}")


def _loop(
    settings: Settings,
    server: ServerProcess,
    watch: Watch,
    cascades: Sequence[str],
    overlay: Overlay | None,
) -> int:
    stubs = Stubs(server.pid)
    stuck = StuckStubs()
    while True:
        received = signal.sigtimedwait(SIGNALS, settings.poll_s)
        code = server.reap()
        if code is not None:
            return _ended(code, ready=watch.ready)
        if received is not None and received.si_signo in STOP_SIGNALS:
            log.info("stopping", signal=signal.Signals(received.si_signo).name)
            watch.stop()
            # From here on the health check fails, and balancers send no more requests.
            settings.served_file.unlink(missing_ok=True)
            return _stop(settings, server, cascades if watch.ready else ())
        _follow(overlay)
        # While models load, a stub may die a moment before the server ends, and the server's own
        # code says more. So only those count that the server goes on waiting for.
        found = stubs.now()
        dead = stubs.newly_dead() if watch.ready else stuck.among(found)
        if stubs.newly_gone() and watch.ready:
            watch.hurry()
        problem = deaths(dead) if dead else watch.verdict
        if problem is not None:
            hint = "" if watch.ready else "; give it longer with CASCADEBERT_START_TIMEOUT_S"
            hint = " while it loaded" if dead and not watch.ready else hint
            log.error(f"{problem}{hint}: the container ends, for Docker to restart it")
            watch.stop()
            server.stop(min(_BROKEN_STOP_S, settings.stop_timeout_s))
            return UNHEALTHY


def _stop(settings: Settings, server: ServerProcess, cascades: Sequence[str]) -> int:
    """Stop a server that works, once the cascades have answered the requests that they have."""
    deadline_s = time.monotonic() + settings.stop_timeout_s
    headers = {KEY_HEADER: settings.key}
    problem = drain(settings.http_port, cascades, settings.stop_timeout_s, headers)
    if problem:
        log.warning(f"requests may be lost: {problem}; CASCADEBERT_STOP_TIMEOUT_S limits the wait")
    left_s = max(0.0, deadline_s - time.monotonic())
    code = server.stop(left_s + settings.stop_margin_s)
    log.info("stopped", code=code)
    return code


def _ended(code: int, *, ready: bool) -> int:
    if ready:
        log.error("tritonserver ended by itself", code=code)
    else:
        log.error(
            "tritonserver ended while it started: see its lines above; if they name a model that "
            "does not load, publish that cascade again",
            code=code,
        )
    # Nothing asked it to end, so exit code 0 is a failure too.
    return code or UNHEALTHY


def _ready(settings: Settings, cascades: Sequence[ServedCascade], seconds: float) -> None:
    write_served(settings.served_file, cascades)
    policies = ",".join(f"{cascade.name}@{cascade.policy[:12]}" for cascade in cascades)
    log.info("ready", after=f"{seconds:.1f}s", policies=policies)


def _log_result(cascade: str, failures: int, result: ProbeResult) -> None:
    took = f"{result.seconds:.1f}s"
    if not result.ok:
        log.warning(
            "probe failed", cascade=cascade, in_a_row=failures, took=took, reason=result.detail
        )
    elif result.detail:
        log.warning("probe waited", cascade=cascade, took=took, reason=result.detail)
