"""SIGTERM and a closed terminal end a command as Ctrl-C does."""

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType
from typing import NoReturn


@contextlib.contextmanager
def stopped_by_signals() -> Generator[None, None, None]:
    """Raise `KeyboardInterrupt` for these signals while the block runs, unless they are ignored."""
    numbers = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):
        numbers.append(signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only the main thread may set handlers
    changed = [each for each in numbers if signal.getsignal(each) is signal.SIG_DFL]

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        # A second signal must not interrupt what the first one began.
        for number in changed:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    try:
        for number in changed:
            signal.signal(number, interrupt)
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)
