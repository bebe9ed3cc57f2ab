"""The exit codes of the build commands."""

from __future__ import annotations

from cascadebert_client.cli.exit_codes import EXIT_CODES as CLIENT_EXIT_CODES
from cascadebert_client.cli.exit_codes import FAILED, WRONG_USE
from cascadebert_core.errors import PolicyError
from cascadebert_engine.errors import EngineError

from ..errors import BuildError, UsageError

EXIT_CODES = {
    **CLIENT_EXIT_CODES,
    BuildError: FAILED,
    UsageError: WRONG_USE,
    EngineError: FAILED,
    PolicyError: WRONG_USE,
}
"""The exit code of an exception is that of its nearest class."""
