"""Concurrent calls: all run, no more than the limit at a time, and the caller waits."""

from __future__ import annotations

import threading
import time

from cascadebert_core.parallel import ParallelCalls


class Counted:
    """Calls that count how many of them run."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = 0
        self.most = 0
        self.done: list[int] = []
        self.threads: set[int] = set()

    def call(self, number: int) -> None:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.threads.add(threading.get_ident())
        time.sleep(0.01)
        with self.lock:
            self.running -= 1
            self.done.append(number)


def run(counted: Counted, parallel: ParallelCalls, n: int) -> None:
    parallel.run([lambda number=number: counted.call(number) for number in range(n)])


def test_all_calls_are_run_and_waited_for() -> None:
    parallel = ParallelCalls(3, "call")
    counted = Counted()
    run(counted, parallel, 20)
    assert sorted(counted.done) == list(range(20))
    assert counted.running == 0
    assert counted.most <= 3
    parallel.close()


def test_calls_run_at_the_same_time() -> None:
    """Each waits for the other, so they must run at the same time."""
    parallel = ParallelCalls(2, "call")
    met = threading.Barrier(2, timeout=10)
    parallel.run([met.wait, met.wait])  # pyright: ignore[reportArgumentType] - wait returns an int
    assert not met.broken
    parallel.close()


def test_one_at_a_time_is_the_callers_thread_and_the_order_given() -> None:
    counted = Counted()
    run(counted, ParallelCalls(1, "call"), 4)
    assert counted.done == [0, 1, 2, 3]
    assert counted.threads == {threading.get_ident()}


def test_a_single_call_wakes_no_thread() -> None:
    parallel = ParallelCalls(4, "call")
    counted = Counted()
    run(counted, parallel, 1)
    run(counted, parallel, 0)
    assert counted.threads == {threading.get_ident()}
    parallel.close()


def test_a_caller_with_nothing_left_to_do_does_not_wait_for_anothers_calls() -> None:
    parallel = ParallelCalls(2, "call")
    entered, release = threading.Barrier(3), threading.Event()
    in_time: list[bool] = []

    def hangs() -> None:
        entered.wait(10)
        in_time.append(release.wait(10))

    hanging = threading.Thread(target=parallel.run, args=([hangs, hangs],))
    hanging.start()
    entered.wait(10)
    counted = Counted()
    run(counted, parallel, 3)
    assert counted.threads == {threading.get_ident()}
    release.set()
    hanging.join(10)
    assert in_time == [True, True]
    parallel.close()


def test_several_callers_share_the_threads() -> None:
    parallel = ParallelCalls(2, "call")
    counted = Counted()
    callers = [threading.Thread(target=run, args=(counted, parallel, 10)) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(10)
    assert len(counted.done) == 30
    parallel.close()
