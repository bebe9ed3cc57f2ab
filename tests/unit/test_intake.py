"""When rows join the first stage's queue instead of running at once."""

from __future__ import annotations

from cascadebert_core.intake import Intake


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_small_batches_run_at_once_and_leave_nothing_behind_them() -> None:
    intake = Intake(64, Clock())
    assert not any(intake.queues(rows, waiting=0) for rows in (1, 8, 32))


def test_a_batch_that_may_leave_others_behind_is_taken_in_once_a_second() -> None:
    clock = Clock()
    intake = Intake(64, clock)
    assert intake.queues(33, waiting=0)
    assert not intake.queues(64, waiting=0)
    clock.now_s = 0.99
    assert not intake.queues(64, waiting=0)
    clock.now_s = 1.0
    assert intake.queues(64, waiting=0)


def test_rows_keep_their_order_while_others_wait() -> None:
    intake = Intake(64, Clock())
    assert intake.queues(1, waiting=5)
    assert not intake.queues(1, waiting=0)
