"""The check of the TensorRT plans before the server starts."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from . import log
from .errors import StartError
from .repository import ServedCascade
from .settings import Settings

_TIMEOUT_S = 300.0  # it hashes plans of gigabytes and asks the driver


def check_engines(
    settings: Settings, cascades: Sequence[ServedCascade], environment: Mapping[str, str]
) -> None:
    """Run the preflight, which says whether the TensorRT plans fit this machine.

    Raises:
        StartError: They do not, or the check did not run. The message holds its sentences.
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
            timeout=_TIMEOUT_S,
        )
    except OSError as exc:
        raise StartError(
            f"the check of the engines does not run ({exc}): rebuild the image"
        ) from exc
    except subprocess.TimeoutExpired as exc:
        raise StartError(
            f"the check of the engines did not end within {_TIMEOUT_S:g} s: see whether "
            "nvidia-smi answers on this machine"
        ) from exc
    lines = (ended.stdout + ended.stderr).splitlines()
    said = [line.removeprefix("cascadebert_engine: ") for line in lines if line.strip()]
    if ended.returncode == 0:
        for line in said:
            log.info(line)
    elif ended.returncode == 1:
        raise StartError("\n".join(said) or "the check of the engines failed without a message")
    else:
        last = said[-1] if said else "no output"
        raise StartError(
            f"the check of the engines ended with code {ended.returncode} ({last}): rebuild the "
            "image"
        )
