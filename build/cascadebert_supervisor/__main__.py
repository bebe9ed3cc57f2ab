"""`python3 -m cascadebert_supervisor [healthcheck | FLAGS OF TRITONSERVER]`."""

from __future__ import annotations

import os
import sys

from . import log
from .errors import StartError
from .served import served_cascades
from .settings import Settings, settings_from_environment
from .supervisor import NOTHING_TO_SERVE, UNHEALTHY, probe_of, run


def main(arguments: list[str]) -> int:
    """Run the server, or check the one that runs. Returns the exit code."""
    try:
        settings = settings_from_environment(os.environ)
        if arguments[:1] == ["healthcheck"]:
            return _healthcheck(settings)
        return run(settings, os.environ, arguments)
    except StartError as exc:
        for sentence in str(exc).splitlines():
            log.error(sentence)
        return NOTHING_TO_SERVE


def _healthcheck(settings: Settings) -> int:
    """Probe each cascade once, for Docker's health check."""
    cascades = served_cascades(settings.served_file)
    if not cascades:
        sys.stdout.write("not ready: the models are being loaded, or the server stops\n")
        return UNHEALTHY
    probe = probe_of(settings)
    results = {cascade.name: probe.classify(cascade) for cascade in cascades}
    for name, result in results.items():
        state = "answers" if result.ok else "does not answer"
        detail = f" ({result.detail})" if result.detail else ""
        sys.stdout.write(f"{name} {state}{detail}\n")
    return 0 if all(result.ok for result in results.values()) else UNHEALTHY


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
