"""Waits that a signal ends, also one that does not wake the main thread."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from cascadebert_client import CascadeClient, _sync
from cascadebert_client._interrupts import next_of, result_of


class SignalError(Exception):
    pass


@pytest.fixture
def unseen_signal() -> Iterator[Callable[[], None]]:
    """Sends a signal that another thread gets, so that no wait of the main thread ends by it.

    It has the effect of one that comes just before the wait begins.
    """

    def interrupt(*_: Any) -> None:
        raise SignalError

    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    handler = signal.signal(signal.SIGUSR1, interrupt)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    yield lambda: os.kill(os.getpid(), signal.SIGUSR1)
    over.set()
    other.join()
    signal.signal(signal.SIGUSR1, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_a_signal_ends_the_wait_for_a_result(unseen_signal: Callable[[], None]):
    waited: Future[int] = Future()
    threading.Timer(0.3, unseen_signal).start()
    rescue = threading.Timer(20, waited.set_result, [3])
    rescue.start()
    with pytest.raises(SignalError):
        result_of(waited)
    assert not waited.done()
    rescue.cancel()


def test_a_signal_ends_the_wait_for_a_value(unseen_signal: Callable[[], None]):
    values: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Timer(0.3, unseen_signal).start()
    rescue = threading.Timer(20, values.put, ["a"])
    rescue.start()
    with pytest.raises(SignalError):
        next_of(values)
    assert values.empty()
    rescue.cancel()


def test_results_values_and_errors_come_through():
    waited: Future[int] = Future()
    threading.Timer(0.5, waited.set_result, [3]).start()
    assert result_of(waited) == 3
    failed: Future[int] = Future()
    failed.set_exception(TimeoutError("its own"))
    with pytest.raises(TimeoutError, match="its own"):
        result_of(failed)
    values: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Timer(0.5, values.put, [None]).start()
    assert next_of(values) is None


def test_a_channel_that_does_not_close_is_left(monkeypatch: pytest.MonkeyPatch):
    """gRPC waits for a call whose start a signal interrupted, and that call never ends."""
    monkeypatch.setattr(_sync, "_CLOSE_S", 0.05)
    client = CascadeClient("127.0.0.1:1", "cascade")
    channel = client._pools[0].pick()
    channel.client.close()
    over = threading.Event()
    monkeypatch.setattr(channel.client, "close", over.wait)
    client.close()
    (closing,) = (each for each in threading.enumerate() if each.name == "cascadebert-close")
    assert closing.daemon
    over.set()
    closing.join(30)
