"""What this package raises, as one tree; the command line maps it to exit codes.

::

    BuildError
    ├── UsageError           wrong use or bad input
    │   └── MissingExtra     a package of an optional extra is not installed
    └── CheckFailed          an artefact or a server did not pass a check
"""

from __future__ import annotations


class BuildError(Exception):
    """Base of the exceptions that the build commands raise."""


class UsageError(BuildError):
    """Bad input: the message has the problem, the value and the remedy."""


class MissingExtra(UsageError):  # noqa: N818
    """A command needs packages that are not installed."""

    def __init__(self, extra: str, module: str) -> None:
        super().__init__(
            f"the package {module!r} is not installed: install the extra {extra!r} with "
            f"pip install 'cascadebert[{extra}]', in a checkout with pip install '.[{extra}]', in "
            "the builder's image with CASCADEBERT_EXTRAS"
        )


class CheckFailed(BuildError):  # noqa: N818
    """An artefact or a server did not pass a check."""


def first_cause(exc: BaseException) -> str:
    """The first cause of an exception in one line, which is never empty."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[0]}" if lines else type(exc).__name__
