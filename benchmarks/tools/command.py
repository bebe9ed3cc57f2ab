"""What the commands of the benchmarks share: arguments, error messages, progress and results."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cascadebert_build.commands.exit_codes import EXIT_CODES
from cascadebert_build.errors import BuildError
from cascadebert_client.cli.exit_codes import FAILED, exit_code_of
from cascadebert_engine.errors import EngineError

RESULTS = Path(__file__).parents[1] / "results"


def new_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser for `python -m benchmarks.<module>` that shows a module's docstring."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_number(
    parser: argparse.ArgumentParser, flag: str, default: float | None, words: str
) -> None:
    """Add an argument with a number; its type is that of the default, or int."""
    kind = float if isinstance(default, float) else int
    shown = "" if default is None else " (default: %(default)s)"
    parser.add_argument(flag, type=kind, default=default, metavar="N", help=words + shown)


def add_wait_quiet(parser: argparse.ArgumentParser, before: str) -> None:
    """Add --wait-quiet-s."""
    words = f"before each {before}, wait at most this long until other processes are idle"
    add_number(parser, "--wait-quiet-s", 0.0, words)


def add_common(parser: argparse.ArgumentParser, name: str, *, before: str) -> None:
    """Add --glue, --quick, --wait-quiet-s and --out, whose default is `RESULTS / name`."""
    parser.add_argument("--glue", type=Path, metavar="DIR", help="folder with SST-2")
    parser.add_argument("--quick", action="store_true", help="to check that it works")
    add_wait_quiet(parser, before)
    parser.add_argument(
        "--out", type=Path, default=RESULTS / name, metavar="DIR",
        help="folder for the results (default: %(default)s)",
    )  # fmt: skip


def run_command(
    parser: argparse.ArgumentParser,
    function: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None,
) -> int:
    """Parse arguments and run a function; print its error.

    Returns:
        0 done, 1 a check failed, 2 wrong use or bad input.
    """
    args = parser.parse_args(argv)
    try:
        function(args)
    except (BuildError, EngineError) as exc:
        sys.stderr.write(f"{parser.prog.removeprefix('python -m ')}: {exc}\n")
        return exit_code_of(exc, EXIT_CODES) or FAILED
    return 0


def as_json(value: Any) -> str:
    """Return a value as the text of a result file."""
    return json.dumps(value, indent=1) + "\n"


def say(text: str) -> None:
    """Write a line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)
