"""Why a server cannot start."""

from __future__ import annotations


class StartError(Exception):
    """The repository or the settings cannot be served. The message names the remedy."""
