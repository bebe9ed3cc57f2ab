"""The processes in which a server's python backend runs its models, read from /proc."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

_PROC = Path("/proc")
PROGRAM = "triton_python_backend_stub"
_SEARCH_EVERY_S = 5.0
STUCK_AFTER_S = 5.0
_REGION = "/dev/shm/triton_python_backend_shm_region_"


@dataclass(frozen=True, slots=True)
class Stub:
    """The process of one instance of a model.

    Attributes:
        pid: The process id.
        model: The model's name; None if the process died before it was seen alive.
        death: How it died; None while it runs, and if it ended with code 0.
    """

    pid: int
    model: str | None
    death: str | None = None


class Stubs:
    """The stubs of one server, with the models of those that died.

    tritonserver 2.51 leaves a dead stub as a zombie, which no longer tells its model. Servers from
    26.01 on collect it. Then it is only gone, as after its model was unloaded, and probes must tell
    the difference.
    """

    def __init__(self, server_pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Look at nothing yet.

        Args:
            server_pid: The process id of the server.
            clock: Returns seconds and never runs backwards.
        """
        self._server_pid = server_pid
        self._clock = clock
        self._searched_s = -math.inf
        self._known: set[int] = set()
        self._models: dict[int, str] = {}
        self._suspects: set[int] = set()
        self._reported: set[int] = set()
        self._living: set[int] = set()
        self._gone: list[Stub] = []

    def now(self) -> list[Stub]:
        """Return all stubs, dead ones too."""
        self._searched_s = self._clock()
        found = self._with_models(stubs_of(self._server_pid))
        self._known = {stub.pid for stub in found}
        self._note_gone(found)
        return found

    def newly_dead(self) -> list[Stub]:
        """Return the stubs that have died, each once.

        A stub must be dead in two calls in a row: the server collects one whose model failed to
        load a moment later. New stubs are searched for every `_SEARCH_EVERY_S`
        seconds, because that costs milliseconds: the server has hundreds of threads, and each has
        its own list of children.
        """
        is_due = self._clock() - self._searched_s >= _SEARCH_EVERY_S
        if is_due:
            found = self.now()
        else:
            found = self._with_models(map(_stub, sorted(self._known)))
            self._note_gone(found)
        dead = [stub for stub in found if stub.death and stub.pid not in self._reported]
        found = [stub for stub in dead if stub.pid in self._suspects]
        self._suspects = {stub.pid for stub in dead}
        self._reported |= {stub.pid for stub in found}
        return found

    def newly_gone(self) -> list[Stub]:
        """Return the stubs that were alive and are gone without a trace, each once."""
        gone, self._gone = self._gone, []
        return gone

    def _note_gone(self, found: Iterable[Stub]) -> None:
        found = list(found)
        gone = self._living - {stub.pid for stub in found}
        self._gone += [Stub(pid, self._models.get(pid)) for pid in sorted(gone)]
        self._living = {stub.pid for stub in found if stub.death is None}

    def _with_models(self, stubs: Iterable[Stub | None]) -> list[Stub]:
        """Learn the models of the living, and name those of the dead."""
        found = [stub for stub in stubs if stub is not None]
        self._models |= {stub.pid: stub.model for stub in found if stub.model is not None}
        return [replace(stub, model=self._models.get(stub.pid)) for stub in found]


class StuckStubs:
    """Tells the stubs that died while a model loads, and left the server waiting for them.

    A server collects a stub whose model failed to load a moment later, and says why it failed. If
    the stub dies before it can report, it stays, and the server waits as long as a load may take.
    """

    def __init__(
        self, known: Iterable[Stub] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Look at nothing yet.

        Args:
            known: Stubs that were dead before the load.
            clock: Returns seconds and never runs backwards.
        """
        self._known = {stub.pid for stub in known if stub.death}
        self._clock = clock
        self._dead_since_s: dict[int, float] = {}

    def among(self, stubs: Iterable[Stub]) -> list[Stub]:
        """Return those of the present stubs that have been dead for `STUCK_AFTER_S` seconds."""
        now_s = self._clock()
        dead = [stub for stub in stubs if stub.death and stub.pid not in self._known]
        self._dead_since_s = {stub.pid: self._dead_since_s.get(stub.pid, now_s) for stub in dead}
        return [stub for stub in dead if now_s - self._dead_since_s[stub.pid] >= STUCK_AFTER_S]


def stubs_of(server_pid: int) -> list[Stub]:
    """Return the stubs of a server, dead ones too; those have no model."""
    found = (_stub(pid) for pid in _children(server_pid))
    return [stub for stub in found if stub is not None]


def deaths(stubs: Iterable[Stub]) -> str:
    """Say how stubs died, one clause for each model."""
    by_model = {stub.model: stub.death for stub in stubs}
    return "; ".join(f"a stub of {model or 'a model'} {how}" for model, how in by_model.items())


def regions_of(pid: int) -> set[Path]:
    """Return the shared memory of the python backend that a process has mapped."""
    try:
        maps = (_PROC / str(pid) / "maps").read_text()
    except OSError:
        return set()
    # 7f0c…-7f0d… rw-s 00000000 00:1a 42    /dev/shm/triton_python_backend_shm_region_…
    paths = (Path(line.split(maxsplit=5)[5]) for line in maps.splitlines() if _REGION in line)
    # A region that is already unlinked ends in " (deleted)".
    return {path for path in paths if not path.name.endswith(")")}


def remove_regions(regions: Iterable[Path]) -> None:
    """Free the shared memory that a killed server has left behind."""
    for region in regions:
        region.unlink(missing_ok=True)


def _children(pid: int) -> list[int]:
    """Children of all threads of a process. A thread that ends meanwhile has none."""
    children: list[int] = []
    for thread in (_PROC / str(pid)).glob("task/*/children"):
        try:
            children += [int(child) for child in thread.read_text().split()]
        except OSError:
            continue
    return children


def _stub(pid: int) -> Stub | None:
    """The process as a stub; None if it is another program, or gone."""
    folder = _PROC / str(pid)
    try:
        # pid (name) state …; the name is cut to 15 bytes and may hold any character.
        name, _, fields = (folder / "stat").read_text().partition("(")[2].rpartition(") ")
        if not PROGRAM.startswith(name):
            return None
        if fields.startswith("Z"):
            return Stub(pid, None, _death(int(fields.split()[-1])))
        # stub, …/<model>/<version>/model.py, shared memory, …
        arguments = (folder / "cmdline").read_text().split("\0")
    except (OSError, ValueError):
        return None
    if len(arguments) < 2:  # between fork and exec, or between exit and zombie
        return None
    return Stub(pid, Path(arguments[1]).parent.parent.name)


def _death(status: int) -> str | None:
    """How a process died, by its wait status; None for exit code 0."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}" if code else None
