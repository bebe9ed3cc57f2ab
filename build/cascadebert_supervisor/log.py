"""Log lines: time, level, sentence, and key=value pairs.

They go to stderr, among tritonserver's own. Nothing from a request is ever logged.
"""

from __future__ import annotations

import sys
import time


def info(message: str, **fields: object) -> None:
    """Log a normal event."""
    _write("INFO", message, fields)


def warning(message: str, **fields: object) -> None:
    """Log something that may become an error."""
    _write("WARNING", message, fields)


def error(message: str, **fields: object) -> None:
    """Log why the container ends."""
    _write("ERROR", message, fields)


def _write(level: str, message: str, fields: dict[str, object]) -> None:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    pairs = "".join(f" {key}={value}" for key, value in fields.items())
    sys.stderr.write(f"{when} cascadebert {level} {message}{pairs}\n")
    sys.stderr.flush()
