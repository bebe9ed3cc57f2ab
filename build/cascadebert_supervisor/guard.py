"""A process beside an embedded server that ends it if the program that started it is killed.

The kernel can send a signal to the children of a dead process (PR_SET_PDEATHSIG), but it looks at
the *thread* that started them, and a library does not choose its threads. A pipe has no such trap:
it closes when the last process that holds its end is gone, whatever ended it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

from .leftovers import remove

_DISMISSED = b"stopped"
_END_S = 5.0
# No environment, site packages or working folder of the program: it must outlive all of that.
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from cascadebert_supervisor.guard import watch; watch(sys.argv[2])"
)


class Guard:
    """The guard of one temporary folder. It lives until `dismiss`, or until this process ends."""

    def __init__(self, folder: Path) -> None:
        """Start it."""
        package = Path(__file__).resolve().parent
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, str(package.parent), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # what kills this process's group must not kill the guard
        )
        self.pid = self._process.pid

    def dismiss(self) -> None:
        """End it; the server was stopped. A second call does nothing."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it was killed, or is dismissed already
            self._process.stdin.write(_DISMISSED)
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def watch(folder: str) -> None:
    """Wait until stdin closes, and remove the folder's server unless it was stopped."""
    if sys.stdin.buffer.read() != _DISMISSED:
        remove(Path(folder))
