"""`completion`: a script that completes commands, options and files in a shell."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..extras import needs_extra

_SHELLS = ("bash", "zsh", "tcsh", "fish")


def add_completion_parser(commands: Any) -> None:
    """Add `completion`."""
    summary = "print a script that completes commands, options and files in your shell"
    parser = commands.add_parser("completion", help=summary, description=summary)
    parser.set_defaults(run=_completion)
    parser.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=", ".join(_SHELLS))


def _completion(args: argparse.Namespace) -> int:
    with needs_extra("completion"):
        import shtab
    # The parser of the command line; this module lies below it.
    parser: argparse.ArgumentParser = args.full_parser()
    _complete_paths(parser, shtab.FILE, shtab.DIRECTORY)
    print(shtab.complete(parser, shell=args.shell))
    return 0


def _complete_paths(parser: argparse.ArgumentParser, file: Any, folder: Any) -> None:
    """Let the arguments that are paths be completed as paths, in all commands."""
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                _complete_paths(command, file, folder)
        elif action.type is Path:
            # The attribute that shtab reads.
            action.complete = folder if action.metavar == "DIR" else file  # pyright: ignore[reportAttributeAccessIssue]
