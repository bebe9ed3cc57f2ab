"""Stages that fail when they are told to."""

from __future__ import annotations

import shutil
from pathlib import Path

# Kinds of faults.
ERROR = "error"  # every call raises
NAN = "nan"  # logits that are no numbers
GARBAGE = "garbage"  # logits of a shape that no cascade can take
HANG = "hang"  # calls that do not come back while the fault lasts

_CONTROL = "fault"
_SESSION = '''"""The stage's session, and what a test makes of it."""

import time

import numpy as np

from .sound_session import open_session as open_sound_session


class Session:
    """Does what the file `fault` beside it says."""

    def __init__(self, control, sound):
        self._control = control
        self._sound = sound

    def logits(self, feeds):
        kind = self._kind()
        while kind == "hang":
            time.sleep(0.02)
            kind = self._kind()
        if kind == "error":
            raise RuntimeError("a fault that a test has injected")
        logits = self._sound.logits(feeds)
        if kind == "nan":
            return np.full_like(logits, np.nan)
        if kind == "garbage":
            return np.concatenate([logits, logits], axis=1)
        return logits

    def close(self):
        self._sound.close()

    def _kind(self):
        try:
            return self._control.read_text()
        except OSError:
            return ""


def open_session(folder, device, parameters):
    return Session(folder / "fault", open_sound_session(folder, device, parameters))
'''


class FaultyStage:
    """A published stage with a switch for faults."""

    def __init__(self, repository: Path, stage: str) -> None:
        """Change the stage's files in `repository`; the server must not have loaded it yet."""
        (self._folder,) = (path.parent for path in (repository / stage).glob("*/session.py"))
        shutil.move(self._folder / "session.py", self._folder / "sound_session.py")
        (self._folder / "session.py").write_text(_SESSION)

    def begin(self, kind: str) -> None:
        """From now on calls have this fault."""
        aside = self._folder / f"{_CONTROL}.new"
        aside.write_text(kind)
        aside.replace(self._folder / _CONTROL)

    def end(self) -> None:
        """The stage is sound again; calls that hang go on."""
        (self._folder / _CONTROL).unlink(missing_ok=True)
