"""The exit codes of every command, and the one wrapper that runs a command.

0 done, 1 a check or the server failed, 2 wrong use or bad input, 130 interrupted.
"""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Mapping
from typing import TypeAlias

from ..errors import CascadeClientError, InvalidRequest, ModelNotFound
from .error_lines import error_line
from .exit_code_values import DONE, FAILED, INTERRUPTED, WRONG_USE

__all__ = [
    "DONE",
    "EXIT_CODES",
    "FAILED",
    "INTERRUPTED",
    "WRONG_USE",
    "ExitCodes",
    "exit_code_of",
    "run_command",
]

ExitCodes: TypeAlias = Mapping[type[Exception], int]
"""The exit code of an exception is that of its nearest class in the table."""

EXIT_CODES: ExitCodes = {
    OSError: WRONG_USE,  # for example a file that cannot be read or written
    CascadeClientError: FAILED,
    InvalidRequest: WRONG_USE,
    ModelNotFound: WRONG_USE,
}


def exit_code_of(exc: Exception, exit_codes: ExitCodes = EXIT_CODES) -> int | None:
    """The exit code of an exception; None if the table has none of its classes."""
    nearest = next((each for each in type(exc).__mro__ if each in exit_codes), None)
    return None if nearest is None else exit_codes[nearest]


class _ClosedOutput(io.TextIOBase):
    """Stands for a stdout that the caller has closed (`>&-`)."""

    def write(self, _text: str) -> int:
        raise OSError("stdout is closed: send it to a file, or to /dev/null")


def _open_closed_streams() -> None:
    """Give streams that the caller has closed a meaning: Python makes them None.

    Their numbers are taken too, since the next file or connection would get them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                opened = os.open(os.devnull, os.O_RDWR)
                if opened != number:
                    os.dup2(opened, number)
                    os.close(opened)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BytesIO())
    if sys.stdout is None:
        sys.stdout = _ClosedOutput()
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(io.BytesIO())


def _drop_output() -> None:
    """Let what is still buffered for stdout go nowhere: at exit it would fail once more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_command(args: argparse.Namespace, exit_codes: ExitCodes = EXIT_CODES) -> int:
    """Run a parsed command, and turn its exceptions into a message on stderr and an exit code.

    Args:
        args: The parsed arguments. `command` is the command's name and `run` is its handler, which
            takes `args` and returns an exit code. If there is an `exit_codes`, its entries replace
            those of the table.
        exit_codes: The table of exit codes.

    Returns:
        The exit code. An exception without an entry in the table is a bug and is raised.
    """
    _open_closed_streams()
    try:
        code = int(args.run(args))
        # Flushed here: at exit a closed pipe could no longer be handled.
        sys.stdout.flush()
    except KeyboardInterrupt:
        line = f"cascadebert {args.command}: interrupted"
        if _wants_json(args):
            kind = "KeyboardInterrupt"
            line = error_line(args.command, kind, "interrupted", INTERRUPTED, as_json=True)
        print(line, file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader closed the pipe
        _drop_output()
        return DONE
    except Exception as exc:
        table = {**exit_codes, **getattr(args, "exit_codes", {})}
        failed = exit_code_of(exc, table)
        if failed is None:
            raise
        try:
            sys.stdout.flush()
        except OSError:  # the disk is full, for example; at exit it would be told again
            _drop_output()
        kind = type(exc).__name__
        line = error_line(args.command, kind, str(exc), failed, as_json=_wants_json(args))
        print(line, file=sys.stderr)
        return failed
    return code


def _wants_json(args: argparse.Namespace) -> bool:
    return bool(getattr(args, "json", False))
