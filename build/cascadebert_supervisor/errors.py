"""What keeps a server from starting."""

from __future__ import annotations


class StartError(Exception):
    """The container cannot serve; the message is one sentence with the remedy."""
