"""Unit tests are fast: they load neither PyTorch nor an ONNX runtime, and start no server."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

# The embedded server is found through the package `pytriton`.
HEAVY = {"torch", "transformers", "onnx", "onnxscript", "onnxruntime", "pytriton"}


class HeavyImportError(RuntimeError):
    """A unit test imports a heavy package. It is no ImportError, which would skip a test."""


class _Guard(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in HEAVY:
            raise HeavyImportError(
                f"a unit test imports {fullname}: move it to tests/build or beyond"
            )
        return None


@contextmanager
def light() -> Generator[None, None, None]:
    """Refuse heavy packages within the block.

    It cannot refuse what tests of other folders have loaded into the same process: `make check`
    runs the unit tests alone.
    """
    guard = _Guard()
    sys.meta_path.insert(0, guard)
    try:
        yield
    finally:
        sys.meta_path.remove(guard)


# pytest calls these hooks for the tests of all folders.
@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, object, object]:
    with light() if _is_here(collector) else nullcontext():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with light() if _is_here(item) else nullcontext():
        return (yield)


def _is_here(node: pytest.Item | pytest.Collector) -> bool:
    return Path(__file__).parent in node.path.parents
