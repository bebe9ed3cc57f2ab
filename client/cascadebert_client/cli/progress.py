"""How far a long step is: a bar on a terminal, elsewhere a line now and then.

::

    with shown("logits   large") as step:         # the step
        with counted("row", total=872) as advance:    # the part of it that can be counted
            advance(32)

Steps do not know who shows them: `counted` joins the step that is being shown, and shows itself if
there is none. So one terminal line has one owner.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Generator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

FIRST_LINE_S = 5.0
"""A step that is shorter writes no line outside a terminal."""

NEXT_LINE_S = 30.0
"""Seconds from one line to the next."""

_REFRESH_S = 1.0
_SHORTEST_GUESS_S = 1.0  # less of a part says too little about the rest


class Advance(Protocol):
    """Says how much more is done."""

    def __call__(self, n: int = 1, /, *, work: float = 0.0) -> None:
        """Count n more, which were so much of the work."""
        ...


@dataclass
class Part:
    """The part of a step that can be counted.

    Attributes:
        unit: What is counted, in the singular.
        total: All of it; None if it is not known.
        initial: What was done before the part began.
        what: What this part does; "" if the step's name says it.
        expected_s: The seconds that it will take, if they are known before.
        work: All of the work, in any unit, if what is counted takes unequal time.
        done: What is done, `initial` included.
        work_done: The same of the work.
        began_s: When it began, on the clock of `time.monotonic`.
    """

    unit: str
    total: int | None = None
    initial: int = 0
    what: str = ""
    expected_s: float | None = None
    work: float | None = None
    done: int = 0
    work_done: float = 0.0
    began_s: float = field(default_factory=time.monotonic)

    def left_s(self, now_s: float) -> float | None:
        """The seconds that are left if the rest is as fast; None if that cannot be said yet."""
        passed_s = now_s - self.began_s
        new, all_new = float(self.done - self.initial), (self.total or 0) - self.initial
        if self.work is not None:
            new, all_new = self.work_done, self.work
        if self.total is None or new <= 0 or passed_s < _SHORTEST_GUESS_S:
            return None if self.expected_s is None else max(0.0, self.expected_s - passed_s)
        return passed_s * max(0.0, all_new - new) / new


def duration(seconds: float) -> str:
    """Seconds as people say them: `8 s`, `3 min`, `1 h 20 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def progress_text(elapsed_s: float, part: Part | None, now_s: float) -> str:
    """How far a step is, and how long the rest will take if that is known.

    Args:
        elapsed_s: Seconds since the step began.
        part: What of it is counted.
        now_s: On the clock of `time.monotonic`.
    """
    if part is None:
        return f"{duration(elapsed_s)} …"
    text = f"{part.what}: " if part.what else ""
    if part.total is None:
        text += f"{part.done:,} {_plural(part.unit, part.done)}"
    else:
        share = 100 * part.done // part.total if part.total else 100
        text += f"{part.done:,} of {part.total:,} {_plural(part.unit, part.total)}, {share}%"
    left_s = part.left_s(now_s)
    rest = "" if left_s is None else f", about {duration(left_s)} left"
    return f"{text}, {duration(elapsed_s)}{rest}"


def _plural(unit: str, n: int) -> str:
    return unit if n == 1 else f"{unit}s"


class Step:
    """A step that is being shown."""

    def __init__(self, name: str, stream: TextIO, *, bar: bool) -> None:
        """Show nothing yet.

        Args:
            name: What the line begins with.
            stream: Where it is written.
            bar: Whether the stream is a terminal.
        """
        self._name = name
        self._stream = stream
        self._is_terminal = bar
        self._began_s = time.monotonic()
        self._parts: list[Part] = []
        self._bar: Any = None
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_showing, daemon=True)

    def __enter__(self) -> "Step":
        self._redraw()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with self._lock:
            self._close_bar()

    @property
    def _part(self) -> Part | None:
        return self._parts[-1] if self._parts else None

    @contextlib.contextmanager
    def part(self, part: Part) -> Generator[Advance, None, None]:
        """Count a part; the block gets the function that says how much more is done."""
        with self._lock:
            self._parts.append(part)
            self._redraw()
            if not self._is_terminal and (part.expected_s or 0.0) >= FIRST_LINE_S:
                self._write_line()

        def advance(n: int = 1, /, *, work: float = 0.0) -> None:
            with self._lock:
                part.done += n
                part.work_done += work
                if self._bar is not None and part is self._part:
                    self._say_what_is_left(part)
                    self._bar.update(n)

        try:
            yield advance
        finally:
            with self._lock:
                self._parts.remove(part)
                self._redraw()

    @contextlib.contextmanager
    def aside(self) -> Generator[None, None, None]:
        """Make room for other lines on the terminal while the block runs."""
        with self._lock:
            if self._bar is None:
                yield
                return
            with type(self._bar).external_write_mode(file=self._stream):
                yield

    def _redraw(self) -> None:
        """Replace the bar by that of the present part."""
        if not self._is_terminal or self._ended.is_set():
            return
        from tqdm import tqdm  # commands that end at once do not need it

        self._close_bar()
        part = self._part
        name = self._name if part is None or not part.what else f"{self._name} {part.what}"
        if part is None:
            form = "{desc} {elapsed} …"
            self._bar = tqdm(desc=name, bar_format=form, leave=False, file=self._stream)
        else:
            form = "{desc} {n_fmt}{unit}s [{elapsed}, {rate_noinv_fmt}]"
            if part.total is not None:
                form = "{desc} {percentage:3.0f}%|{bar}| {n_fmt} of {total_fmt}{unit}s"
                form += " [{elapsed}, {rate_noinv_fmt}{postfix}]"
            self._bar = tqdm(
                total=part.total, initial=part.done, desc=name, leave=False,
                unit=f" {part.unit}",  # the rate puts it behind the number
                bar_format=form, file=self._stream,
            )  # fmt: skip
            self._say_what_is_left(part)
            self._bar.refresh()

    def _say_what_is_left(self, part: Part) -> None:
        left_s = part.left_s(time.monotonic())
        if left_s is not None:
            self._bar.set_postfix_str(f"about {duration(left_s)} left", refresh=False)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _keep_showing(self) -> None:
        wait_s = _REFRESH_S if self._is_terminal else FIRST_LINE_S
        while not self._ended.wait(wait_s):
            with self._lock, contextlib.suppress(OSError, ValueError):  # the stream may be closed
                if self._bar is not None:
                    if self._part is not None:
                        self._say_what_is_left(self._part)
                    self._bar.refresh()
                elif not self._is_terminal:
                    self._write_line()
                    wait_s = NEXT_LINE_S

    def _write_line(self) -> None:
        now_s = time.monotonic()
        text = progress_text(now_s - self._began_s, self._part, now_s)
        self._stream.write(f"{self._name} {text}\n")
        self._stream.flush()


_running: ContextVar[Step | None] = ContextVar("running", default=None)


@contextlib.contextmanager
def shown(name: str, *, hidden: bool = False) -> Generator[None, None, None]:
    """Show on stderr that a step runs, while the block runs.

    A step within another one is not shown: its counts are those of the outer one.

    Args:
        name: What the line begins with.
        hidden: Whether to show nothing.
    """
    if hidden or _running.get() is not None:
        yield
        return
    # The stream of the start: code that redirects stderr later must not get these lines.
    step = Step(name, sys.stderr, bar=_has_columns(sys.stderr))
    token = _running.set(step)
    try:
        with step:
            yield
    finally:
        _running.reset(token)


@contextlib.contextmanager
def counted(
    unit: str,
    total: int | None = None,
    *,
    what: str = "",
    initial: int = 0,
    expected_s: float | None = None,
    work: float | None = None,
    hidden: bool = False,
) -> Generator[Advance, None, None]:
    """Count a part of the step that is being shown; without one, show the part itself.

    Args:
        unit: What is counted, in the singular.
        total: All of it; None if it is not known.
        what: What the part does.
        initial: What is done already.
        expected_s: The seconds that it will take, if they are known.
        work: All of the work, in any unit, if what is counted takes unequal time.
        hidden: Whether to show nothing.

    Yields:
        A function that is called with how much more is done.
    """
    if hidden:
        yield _ignore
        return
    part = Part(unit, total, initial, what, expected_s, work, done=initial)
    step = _running.get()
    if step is not None:
        with step.part(part) as advance:
            yield advance
        return
    with shown(what or unit):
        alone = _running.get()
        assert alone is not None
        part.what = ""
        with alone.part(part) as advance:
            yield advance


def is_showing() -> bool:
    """Whether a step is being shown."""
    return _running.get() is not None


@contextlib.contextmanager
def aside() -> Generator[None, None, None]:
    """Make room for other lines while the block writes them, if a bar is being shown."""
    step = _running.get()
    with contextlib.nullcontext() if step is None else step.aside():
        yield


def _has_columns(stream: TextIO) -> bool:
    """Whether a stream is a terminal with a width: some have none, and no bar is drawn there."""
    if not stream.isatty():
        return False
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):  # a stream of a test or a notebook says that it is a terminal
        return True


def _ignore(n: int = 1, /, *, work: float = 0.0) -> None:
    """Count nothing."""
