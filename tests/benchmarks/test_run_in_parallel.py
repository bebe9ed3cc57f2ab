"""Load from several processes: what each does, and what becomes of a process that fails.

Each process imports this module again, so it needs little.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from multiprocessing import active_children

import pytest

from benchmarks.peers.parallel import Worker, run_in_parallel
from cascadebert_build.errors import CheckFailed


def _meet(worker: Worker, fail: int) -> tuple[int, list[int]]:
    if worker.index == fail:
        raise ValueError("no luck")
    worker.wait()
    return worker.index, [worker.next() for _ in range(50)]


def test_a_number_goes_to_one_process():
    (first, of_first), (second, of_second) = run_in_parallel(2, 60, _meet, -1)
    assert (first, second) == (0, 1)
    assert sorted(of_first + of_second) == list(range(100))


def test_a_process_that_fails_is_named_and_ends_the_others():
    with pytest.raises(CheckFailed, match=r"ValueError\(.no luck.\)"):
        run_in_parallel(2, 60, _meet, 1)


def _exit(worker: Worker) -> None:
    os._exit(3)


def _hang(worker: Worker) -> None:
    time.sleep(600)


@pytest.mark.parametrize(("task", "timeout_s"), [(_exit, 60), (_hang, 6)])
def test_a_process_that_dies_or_hangs_is_noticed(task: Callable[[Worker], None], timeout_s: float):
    with pytest.raises(CheckFailed, match="a process of 1 failed"):
        run_in_parallel(1, timeout_s, task)
    assert not active_children()
