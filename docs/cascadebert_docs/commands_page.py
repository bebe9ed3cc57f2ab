"""The page of the command line: every command and option, from its parsers."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from cascadebert_build.cli import parser

from .markdown import linked, table

_INTRO = """\
# The command line

All commands and options. This page is generated from the parsers, so it says what
`cascadebert COMMAND --help` says.
"""

# argparse breaks the lines of a usage for the terminal; the page has a width of its own.
_WIDTH = "96"


def commands_page() -> str:
    """Return the page in Markdown."""
    top = parser()
    commands = [_command(name, command) for name, command in commands_of(top)]
    overview = table(
        ("command", "what it does"),
        [(f"[`{name}`](#{_anchor(name)})", help_) for name, help_ in helps_of(top)],
    )
    return "\n".join((_INTRO, overview, _epilog(top), *commands))


def commands_of(top: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the name and the parser of each command."""
    for action in _subparsers(top):
        yield from action.choices.items()


def helps_of(top: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Yield the name and the one-line help of each command."""
    for action in _subparsers(top):
        for choice in action._choices_actions:
            yield choice.dest, choice.help or ""


def _subparsers(top: argparse.ArgumentParser) -> Iterator[Any]:
    """The actions whose choices are parsers: argparse has no public name for their class."""
    for action in top._actions:
        if isinstance(action.choices, dict):
            yield action


def _command(name: str, command: argparse.ArgumentParser) -> str:
    with patch.dict(os.environ, {"COLUMNS": _WIDTH}):
        usage = command.format_usage().removeprefix("usage: ").rstrip()
    rows = [_row(command, action) for action in command._actions if action.dest != "help"]
    parts = [
        f"## cascadebert {name}\n",
        f"{' '.join((command.description or '').split())}\n",
        f"```text\n{usage}\n```\n",
        table(("argument", "default", "meaning"), rows) if rows else "",
        _epilog(command),
    ]
    return "\n".join(part for part in parts if part.strip())


def _row(command: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, str, str]:
    formatter = command._get_formatter()
    if action.option_strings:
        value = "" if action.nargs == 0 else f" {_metavar(action)}"
        name = ", ".join(f"`{flag}{value}`" for flag in action.option_strings)
    else:
        name = f"`{_metavar(action)}`"
    given = action.default not in {None, argparse.SUPPRESS, False} if _hashable(action) else False
    default = f"`{action.default}`" if given and action.nargs != 0 else ""
    if not action.help:
        raise LookupError(f"{command.prog}: {action.dest} has no help")
    text = formatter._expand_help(action)
    if action.choices is not None and action.metavar is not None:
        text += f" (one of {', '.join(map(str, action.choices))})"
    return name, default, linked(text)


def _hashable(action: argparse.Action) -> bool:
    return action.default is None or isinstance(action.default, str | int | float)


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    if action.metavar is not None:
        return action.metavar
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper() if action.option_strings else action.dest


def _epilog(command: argparse.ArgumentParser) -> str:
    return f"```text\n{command.epilog.strip()}\n```\n" if command.epilog else ""


def _anchor(name: str) -> str:
    return "cascadebert-" + re.sub(r"[^a-z0-9]+", "-", name)
