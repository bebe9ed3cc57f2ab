"""The commands that call a server: `classify`, `status` and `audit`."""

import argparse
from collections.abc import Sequence

from .audit import add_audit_parser
from .classify import add_classify_parser
from .exit_codes import run_command
from .status import add_status_parser

__all__ = ["add_audit_parser", "add_classify_parser", "add_status_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m cascadebert_client.cli`: the commands without the build package."""
    parser = argparse.ArgumentParser(
        prog="cascadebert", description="Call a cascade served by Triton."
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add_classify_parser(subparsers)
    add_status_parser(subparsers)
    add_audit_parser(subparsers)
    return run_command(parser.parse_args(argv))
