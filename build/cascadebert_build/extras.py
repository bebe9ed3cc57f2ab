"""Imports of optional packages, by the extra that installs them."""

from __future__ import annotations

import importlib.util
from collections.abc import Generator
from contextlib import contextmanager

from .errors import MissingExtra


@contextmanager
def needs_extra(extra: str) -> Generator[None, None, None]:
    """Name the extra if an import inside the block fails.

    Raises:
        MissingExtra: A module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        raise MissingExtra(extra, exc.name or "?") from exc


def require(extra: str, *modules: str) -> None:
    """Fail before a command starts its work.

    Raises:
        MissingExtra: One of the modules is not installed.
    """
    for module in modules:
        if not has_extra(module):
            raise MissingExtra(extra, module)


def has_extra(module: str) -> bool:
    """Whether a module of an extra is installed."""
    return importlib.util.find_spec(module) is not None
