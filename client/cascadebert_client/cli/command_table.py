"""The commands by name. Only the modules of the command that is called are imported."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from .command_parser import CommandParser


def add_commands(
    parser: CommandParser, table: Mapping[str, str], argv: Sequence[str] | None
) -> None:
    """Add commands to a parser.

    Args:
        parser: The parser of all commands.
        table: For each command `module:function`; the function adds it, maybe with others, to
            `ArgumentParser.add_subparsers()`.
        argv: The arguments. If the first is a command, only its function is called, and none
            is called for --version. None calls all of them.
    """
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    functions = dict.fromkeys(table.values())
    first = argv[0] if argv else None
    if first is not None and first in table:
        functions = {table[first]: None}
    elif first == "--version":
        functions = {}
    for function in functions:
        _function(function)(commands)


def add_examples(parser: CommandParser, examples: Mapping[str, str]) -> None:
    """Put examples at the end of the help of commands.

    Args:
        parser: The parser after `add_commands`.
        examples: Lines by the name of the command; other commands have none.
    """
    # The table of add_subparsers is the only action with parsers as choices.
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]
        choices: Any = action.choices
        if not isinstance(choices, dict):
            continue
        for name, command in choices.items():
            if name not in examples:
                continue
            lines = "\n".join(f"  {line}" for line in examples[name].strip().splitlines())
            before = f"{command.epilog}\n\n" if command.epilog else ""
            command.epilog = f"{before}examples:\n{lines}"


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
