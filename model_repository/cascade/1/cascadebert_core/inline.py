"""Stages whose sessions run in the cascade's own process, so that a call is not a message.

The stages' own models stay published and loaded: clients may call them, and nothing here depends on
them. A session releases the GIL while it runs.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from . import contract
from .batching import StageBatch
from .errors import PolicyError, Unavailable
from .policy import Policy, StagePolicy

SESSION_FILE = "session.py"
_NICEST = 19


class Session(Protocol):
    """What a stage's `session.py` opens; threads may call it at the same time."""

    def logits(self, feeds: dict[str, NDArray[np.int32]]) -> NDArray[np.float32]:
        """Return logits of shape (rows, n_labels) for inputs of shape (rows, length)."""
        ...


class InlineStages:
    """The sessions of the stages that run in this process.

    A stage before the last costs little and is in every row's way, so threads of later stages get a
    lower priority: if both compete for a core, the system prefers the first stage. On Linux each
    thread has a nice value of its own.
    """

    def __init__(
        self, policy: Policy, repository: Path, which: str, parameters: Mapping[str, str]
    ) -> None:
        """Open the sessions.

        Args:
            policy: The policy.
            repository: The model repository with the stages' version folders.
            which: One of `contract.INLINE_STAGES`.
            parameters: Of the cascade's config.pbtxt: `contract.INLINE_THREADS` and
                `contract.INLINE_NICENESS`.

        Raises:
            PolicyError: `which` is unknown, or a stage has no session that can be opened.
        """
        if which not in contract.INLINE_STAGES:
            allowed = ", ".join(map(repr, contract.INLINE_STAGES))
            raise PolicyError(f"the parameter {contract.INLINE} is {which!r}: give {allowed}")
        n = {contract.INLINE_NONE: 0, contract.INLINE_FIRST: 1}.get(which, len(policy.stages))
        given = {"threads": parameters.get(contract.INLINE_THREADS, "1")}
        self._sessions = [open_session(repository, stage, given) for stage in policy.stages[:n]]
        self._priority = _nicer(int(parameters.get(contract.INLINE_NICENESS, "0")))
        self._inputs = [stage.inputs for stage in policy.stages]
        self._of_thread = threading.local()

    def __contains__(self, stage: int) -> bool:
        """Return whether a stage runs here."""
        return stage < len(self._sessions)

    def logits(self, stage: int, batch: StageBatch) -> NDArray[np.float32]:
        """Run a stage; see `stage.RunStage`.

        Raises:
            Unavailable: The session failed.
        """
        if stage:
            self._lower_priority()
        feeds = {name: batch.tensors[name] for name in self._inputs[stage]}
        try:
            return self._sessions[stage].logits(feeds)
        except Exception as exc:
            raise Unavailable(f"{type(exc).__name__}: {exc}") from exc

    def _lower_priority(self) -> None:
        """Make this thread, which runs nothing but a later stage, nicer; once."""
        if self._priority is None or getattr(self._of_thread, "is_nice", False):
            return
        self._of_thread.is_nice = True
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._priority)


def _nicer(by: int) -> int | None:
    """Return this process's nice value plus `by`; None if threads have no value of their own."""
    if not by or sys.platform != "linux":
        return None
    return min(_NICEST, os.getpriority(os.PRIO_PROCESS, 0) + by)


def open_session(repository: Path, stage: StagePolicy, parameters: dict[str, str]) -> Session:
    """Open the session of a stage in this process.

    Args:
        repository: The model repository with the stage's version folder.
        stage: The stage.
        parameters: As config.pbtxt has them: `threads`.

    Raises:
        PolicyError: The stage has no session that can be opened.
    """
    folder = repository / stage.model / str(stage.version)
    path = folder / SESSION_FILE
    if not path.is_file():
        raise PolicyError(
            f"{path} does not exist, so the stage cannot run in the cascade's process: serve the "
            "repository from a local folder, or publish with [runtime] placement = 'process'"
        )
    name = f"cascadebert_inline_{stage.model}_{stage.version}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return cast(Session, cast(Any, module).open_session(folder, None, parameters))
    except Exception as exc:
        raise PolicyError(
            f"the stage {stage.model!r} cannot run in the cascade's process: {exc}"
        ) from exc
