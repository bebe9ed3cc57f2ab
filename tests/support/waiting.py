"""Waiting for a condition rather than for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# How long a condition may take on a busy machine. Passing tests do not wait for it.
TIMEOUT_S = 30.0


def wait_until(
    condition: Callable[[], object],
    what: str | Callable[[], str] = "the condition",
    *,
    timeout_s: float = TIMEOUT_S,
    every_s: float = 0.02,
) -> None:
    """Return once the condition holds.

    Args:
        condition: It holds if its result is true.
        what: What is awaited, for the message, or a function that says it at the end.
        timeout_s: Seconds until the test fails.
        every_s: Seconds between two looks.
    """
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            said = what if isinstance(what, str) else what()
            raise AssertionError(f"{said} did not happen in {timeout_s:g} s")
        time.sleep(every_s)


def settled(
    read: Callable[[], T], *, unchanged_s: float, timeout_s: float = 60.0, every_s: float = 0.1
) -> T:
    """Return what is read once it stays the same for `unchanged_s`, or after `timeout_s`."""
    value, since_s = read(), time.monotonic()
    deadline_s = since_s + timeout_s
    while time.monotonic() < min(deadline_s, since_s + unchanged_s):
        time.sleep(every_s)
        found = read()
        if found != value:
            value, since_s = found, time.monotonic()
    return value
