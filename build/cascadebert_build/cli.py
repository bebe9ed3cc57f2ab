"""The command line: `cascadebert COMMAND`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cascadebert_client import __version__
from cascadebert_client.cli import COMMANDS as CLIENT_COMMANDS
from cascadebert_client.cli import EXAMPLES as CLIENT_EXAMPLES
from cascadebert_client.cli.command_parser import CommandParser
from cascadebert_client.cli.command_table import add_commands, add_examples

from .commands import COMMANDS, EXAMPLES

_EPILOG = """\
typical use:
  cascadebert init SMALL LARGE --data ROWS.csv
                                     write a cascade.toml for your checkpoints
  cascadebert advise cascade.toml    find out whether a cascade pays, before a build
  cascadebert build cascade.toml     build a Triton model repository from checkpoints
  cascadebert serve                  serve it on this machine
  cascadebert classify "some text"   get an answer from the server

exit codes: 0 done, 1 a check failed, 2 wrong use or bad input, 130 interrupted
"""


def parser(argv: Sequence[str] | None = None) -> CommandParser:
    """Return the parser of the commands; each sets `run`, a function of the parsed arguments.

    Args:
        argv: The arguments. If they name a command, the parser has no others. None has all.
    """
    top = CommandParser(
        prog="cascadebert",
        description="Serve a text classifier as a cascade of BERT-family models in Triton.",
        epilog=_EPILOG,
    )
    top.add_argument("--version", action="version", version=__version__)
    top.set_defaults(full_parser=parser)
    add_commands(top, {**COMMANDS, **CLIENT_COMMANDS}, argv)
    add_examples(top, {**EXAMPLES, **CLIENT_EXAMPLES})
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; an error is one message on stderr and an exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = parser(given).parse_args(given)
    # These import gRPC, which --version and wrong use need not wait for.
    from cascadebert_client.cli.exit_codes import run_command

    from .commands.exit_codes import EXIT_CODES
    from .loading import loading_told

    with loading_told():
        return run_command(args, EXIT_CODES)


if __name__ == "__main__":
    sys.exit(main())
