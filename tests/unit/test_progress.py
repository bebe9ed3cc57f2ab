"""How far a step is, on terminals and elsewhere."""

from __future__ import annotations

import fcntl
import io
import os
import struct
import termios
from types import SimpleNamespace
from typing import TypeVar

import pytest

from cascadebert_build import progress as build_progress
from cascadebert_build.progress import say, showing, timed
from cascadebert_build.verification.allowance import Allowance
from cascadebert_client.cli import progress
from cascadebert_client.cli.progress import Part, counted, duration, progress_text, shown
from tests.support.waiting import wait_until


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


StreamT = TypeVar("StreamT", bound=io.StringIO)


def stderr_as(stream: StreamT, monkeypatch: pytest.MonkeyPatch) -> StreamT:
    """Let the modules write here; pytest sets sys.stderr again when a test begins."""
    for module in (progress, build_progress):
        monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=stream))
    return stream


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Stderr that is no terminal, with lines at once."""
    monkeypatch.setattr(progress, "FIRST_LINE_S", 0.01)
    monkeypatch.setattr(progress, "NEXT_LINE_S", 0.01)
    return stderr_as(io.StringIO(), monkeypatch)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr(progress, "_REFRESH_S", 0.01)
    return stderr_as(Terminal(), monkeypatch)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (99.6, "2 min"), (3540, "59 min"), (3599, "1 h 0 min")],
)
def test_durations_as_people_say_them(seconds: float, text: str):
    assert duration(seconds) == text


def test_the_text_says_what_is_done_and_what_is_left():
    part = Part("row", 200, began_s=100.0)
    assert progress_text(7.0, part, 100.5) == "0 of 200 rows, 0%, 7 s"
    part.done = 50
    assert progress_text(7.0, part, 100.5) == "50 of 200 rows, 25%, 7 s"  # too early to tell
    assert progress_text(17.0, part, 110.0) == "50 of 200 rows, 25%, 17 s, about 30 s left"
    part.done = 200
    assert progress_text(47.0, part, 140.0).endswith("200 of 200 rows, 100%, 47 s, about 0 s left")
    assert progress_text(3.0, None, 0.0) == "3 s …"
    assert progress_text(3.0, Part("row", done=1, what="read"), 0.0) == "read: 1 row, 3 s"


def test_rows_that_were_done_before_do_not_count_as_speed():
    part = Part("row", 200, initial=100, done=150, began_s=0.0)
    assert part.left_s(10.0) == pytest.approx(10.0)


def test_unequal_work_tells_the_time_and_rows_do_not():
    part = Part("row", 10, work=1000.0, began_s=0.0)
    part.done, part.work_done = 9, 100.0
    assert part.left_s(10.0) == pytest.approx(90.0)


def test_an_expected_duration_is_said_until_the_pace_is_known():
    part = Part("row", 10, expected_s=60.0, began_s=0.0)
    assert part.left_s(0.0) == 60.0
    assert part.left_s(70.0) == 0.0
    part.done = 5
    assert part.left_s(20.0) == pytest.approx(20.0)


def test_lines_elsewhere_than_on_a_terminal(log: io.StringIO):
    with timed("logits", "large") as note:
        wait_until(lambda: "logits   large        0 s …\n" in log.getvalue())
        with counted("row", 4) as advance:
            advance(1)
            wait_until(lambda: "logits   large        1 of 4 rows, 25%, 0 s" in log.getvalue())
        note("4 rows")
    last = log.getvalue().splitlines()[-1]
    assert last.startswith("logits   large  ")
    assert last.endswith("4 rows")


def test_a_short_step_writes_one_line(monkeypatch: pytest.MonkeyPatch, log: io.StringIO):
    monkeypatch.setattr(progress, "FIRST_LINE_S", 3600.0)
    with timed("tune", "small") as note, counted("row", 4) as advance:
        advance(4)
        note("done")
    with showing("evaluate", "small"):
        pass
    (line,) = log.getvalue().splitlines()
    assert line.endswith("done")


def test_an_expected_duration_stands_before_the_step(
    monkeypatch: pytest.MonkeyPatch, log: io.StringIO
):
    monkeypatch.setattr(progress, "FIRST_LINE_S", 60.0)
    with shown("cost"), counted("call", 30, expected_s=90.0):
        assert log.getvalue() == "cost 0 of 30 calls, 0%, 0 s, about 90 s left\n"


def test_an_inner_step_lends_its_counts_to_the_outer_one(log: io.StringIO):
    with timed("seed", "1, 2/5"), shown("train"), counted("step", 9, what="train") as advance:
        advance(3)
        wait_until(lambda: "seed     1, 2/5       train: 3 of 9 steps, 33%" in log.getvalue())
    assert not any(line.startswith("train") for line in log.getvalue().splitlines())


def test_a_part_alone_shows_itself(log: io.StringIO):
    with counted("row", 9, what="predict") as advance:
        advance(3)
        wait_until(lambda: "predict 3 of 9 rows, 33%" in log.getvalue())


def test_nothing_is_shown_where_it_is_hidden(log: io.StringIO):
    with shown("a", hidden=True), counted("row", 9, hidden=True) as advance:
        advance(9)
    assert log.getvalue() == ""


def test_a_bar_on_a_terminal_that_makes_room_for_lines(terminal: Terminal):
    with timed("verify", "small") as note:
        wait_until(lambda: "verify   small" in terminal.getvalue())
        with counted("row", 4, what="graph") as advance:
            advance(1)
            wait_until(lambda: "25%|" in terminal.getvalue())
            wait_until(lambda: " row/s" in terminal.getvalue())
            say("rows", "small", "2 rows are cut")
        note("checked")
    text = terminal.getvalue()
    assert "graph" in text
    assert "| 1 of 4 rows [" in text
    assert "rows     small        2 rows are cut\n" in text
    assert text.endswith("checked\n")


def test_a_step_that_fails_leaves_no_bar_behind(terminal: Terminal):
    with pytest.raises(ValueError, match="broken"), timed("verify", "small"), counted("row", 4):
        raise ValueError("broken")
    length = len(terminal.getvalue())
    with timed("verify", "large"):
        pass
    assert "small" not in terminal.getvalue()[length:]


def test_an_allowance_learns_its_pace():
    now = [0.0]
    allowed = Allowance(10.0, lambda: now[0])
    assert allowed.fits(1e9)  # the first always does
    now[0] = 2.0
    allowed.done(4.0)
    assert allowed.fits(16.0)
    assert not allowed.fits(17.0)
    now[0] = 11.0
    assert not allowed.fits(0.0)
    assert allowed.is_up
    assert Allowance(0.0, lambda: now[0]).fits(5.0)  # nothing is done yet
    without_limit = Allowance(None, lambda: now[0])
    without_limit.done(1.0)
    assert without_limit.fits(1e9)
    assert not without_limit.is_up


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 32])
def test_a_limited_check_begins_with_both_ends_and_the_middle(n: int):
    order = Allowance(1.0).in_order(range(n))
    assert sorted(order) == list(range(n))
    assert n < 3 or {0, n - 1} == set(order[:2])
    assert Allowance(None).in_order(range(n)) == list(range(n))


def test_a_terminal_without_a_width_gets_lines() -> None:
    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as stream, os.fdopen(leader, "rb"):
        for columns, draws in ((0, False), (80, True)):
            fcntl.ioctl(stream, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            assert progress._has_columns(stream) is draws
    assert not progress._has_columns(io.StringIO())
