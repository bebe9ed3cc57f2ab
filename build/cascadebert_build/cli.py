"""The command line: `cascadebert COMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cascadebert_client import __version__
from cascadebert_client.cli import add_audit_parser, add_classify_parser, add_status_parser
from cascadebert_client.cli.exit_codes import EXIT_CODES as CLIENT_EXIT_CODES
from cascadebert_client.cli.exit_codes import FAILED, WRONG_USE, run_command
from cascadebert_core.errors import PolicyError
from cascadebert_engine.errors import EngineError

from .commands import (
    add_build_parsers,
    add_demo_parser,
    add_difficulty_parser,
    add_evaluate_parser,
    add_load_parser,
    add_serve_parser,
    add_train_parser,
    add_tune_parser,
)
from .errors import BuildError, UsageError

EXIT_CODES = {
    **CLIENT_EXIT_CODES,
    BuildError: FAILED,
    UsageError: WRONG_USE,
    EngineError: FAILED,
    PolicyError: WRONG_USE,
}

_EPILOG = """\
typical use:
  cascadebert build cascade.toml     build a Triton model repository from checkpoints
  cascadebert serve                  serve it on this machine
  cascadebert classify "some text" --model NAME
                                     get an answer from the server

exit codes: 0 done, 1 a check failed, 2 wrong use or bad input, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each sets `run`, a function of the parsed arguments."""
    top = argparse.ArgumentParser(
        prog="cascadebert",
        description="Serve a text classifier as a cascade of BERT-family models in Triton.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    add_build_parsers(commands)
    add_tune_parser(commands)
    add_evaluate_parser(commands)
    add_train_parser(commands)
    add_difficulty_parser(commands)
    add_serve_parser(commands)
    add_load_parser(commands)
    add_classify_parser(commands)
    add_status_parser(commands)
    add_audit_parser(commands)
    add_demo_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; an error is one message on stderr and an exit code."""
    return run_command(parser().parse_args(argv), EXIT_CODES)


if __name__ == "__main__":
    sys.exit(main())
