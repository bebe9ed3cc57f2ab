"""Notes of the tasks under way, so that a task that ends its workers is found out."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import uuid
from collections.abc import Generator

from ..errors import CheckFailed
from .store import Store
from .tasks import WORK, Task

UNDER_WAY = f"{WORK}/under-way"

# Workers that a task may lose. Then it is the reason itself: too long a text, perhaps.
_MOST_LOST = 4


@contextlib.contextmanager
def under_way(store: Store, task: Task) -> Generator[None, None, None]:
    """Note that a task is under way while the block runs. The note of a lost worker stays.

    Raises:
        CheckFailed: The task has lost too many workers.
    """
    folder = f"{UNDER_WAY}/{task.name.replace('/', '-')}"
    lost = len(store.names(folder))
    if lost >= _MOST_LOST:
        raise CheckFailed(
            f"{lost} workers were lost at the same task ({task.name}): give workers more memory, "
            "or use fewer, and --resume goes on"
        )
    note = f"{folder}/{uuid.uuid4().hex}.json"
    store.make_folder(folder)
    store.write(note, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
    try:
        yield
    finally:
        store.remove(note)
