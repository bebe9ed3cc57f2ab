"""One run for each output folder."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Generator
from pathlib import Path

from ..errors import UsageError
from .store import Store

_LOCK = ".cascadebert-score.lock"
# A store has no locks. A run writes there until when the folder is its own, again and again.
_VALID_S = 120.0
_AGAIN_S = 30.0
# Two runs that begin within this time find out which of them wrote last.
_SETTLED_S = 1.0

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def claimed(store: Store) -> Generator[None, None, None]:
    """Keep other runs away from a folder while the block runs.

    Raises:
        UsageError: Another run has it.
    """
    store.make_folder()
    with _locked(store) if store.is_local and fcntl is not None else _leased(store):
        yield


@contextlib.contextmanager
def _locked(store: Store) -> Generator[None, None, None]:
    """A lock of the system, which ends with the process, however that ends."""
    assert fcntl is not None
    path = Path(store.path(_LOCK))
    try:
        stream = path.open("ab")
    except OSError as exc:
        raise UsageError(f"{store.url}: {exc.strerror}") from exc
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise _in_use(store) from exc
        yield
        # The file stays: if it were removed, a run that has opened it would lock another file than
        # the next one.


@contextlib.contextmanager
def _leased(store: Store) -> Generator[None, None, None]:
    own = uuid.uuid4().hex
    if _lease_ends(store) > time.time():
        raise _in_use(store, f" until its lease ends, {_VALID_S:.0f} s after its end")
    ended = threading.Event()

    def say() -> None:
        text = {"run": own, "host": socket.gethostname(), "until": time.time() + _VALID_S}
        store.write(_LOCK, json.dumps(text).encode())

    def keep_saying() -> None:
        while not ended.wait(_AGAIN_S):
            with contextlib.suppress(UsageError):  # the run itself finds out that the store is gone
                say()

    say()
    time.sleep(_SETTLED_S)
    if json.loads(store.read(_LOCK))["run"] != own:  # two began at once, and the other wrote last
        raise _in_use(store)
    thread = threading.Thread(target=keep_saying, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(UsageError):
            store.remove(_LOCK)


def _lease_ends(store: Store) -> float:
    """When the lease of another run ends, in seconds since the epoch; 0 without one."""
    if _LOCK not in store.names():
        return 0.0
    try:
        return float(json.loads(store.read(_LOCK))["until"])
    except (ValueError, KeyError, TypeError):
        return 0.0


def _in_use(store: Store, how_long: str = "") -> UsageError:
    return UsageError(
        f"another run writes to {store.url}: wait until it ends{how_long}, or give another folder"
    )
