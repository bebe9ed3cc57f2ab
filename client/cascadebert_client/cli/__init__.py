"""The commands that talk to a server: `classify`, `status` and `audit`."""

from .commands import add_audit_parser, add_classify_parser, add_status_parser, main

__all__ = ["add_audit_parser", "add_classify_parser", "add_status_parser", "main"]
