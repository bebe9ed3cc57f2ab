"""A line on stderr while torch and transformers are imported, if that takes long.

The first import takes seconds on a fast machine, and a quarter of a minute on one that is busy.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Collection, Generator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType

from .progress import is_showing

_AFTER_S = 2.0
_LARGE = ("torch", "transformers")
_IMPORT_SYSTEM = "<frozen importlib._bootstrap>"


@contextlib.contextmanager
def loading_told(
    modules: Collection[str] = _LARGE, after_s: float = _AFTER_S
) -> Generator[None, None, None]:
    """Say while the block runs that large modules are being loaded, once, if that takes long.

    Nothing is said if they are loaded already, or inside a step that is shown.

    Args:
        modules: The modules; the first import of one of them begins the time.
        after_s: The seconds of importing that need no word.
    """
    watch = _FirstImport(modules, after_s)
    if os.environ.get("RANK", "0") == "0":  # one of several processes of a training is enough
        sys.meta_path.insert(0, watch)
    try:
        yield
    finally:
        watch.end()


class _FirstImport(MetaPathFinder):
    """Finds no module, but notices which one is looked for."""

    def __init__(self, modules: Collection[str], after_s: float) -> None:
        self._modules = modules
        self._after_s = after_s
        self._timer: threading.Timer | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Begin the time if this is one of the modules. The next finder looks for it."""
        if fullname in self._modules and self._timer is None and not is_showing():
            self._timer = threading.Timer(self._after_s, self._tell, [threading.get_ident()])
            self._timer.daemon = True
            self._timer.start()
        return None

    def end(self) -> None:
        """Say nothing from now on."""
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()

    def _tell(self, thread: int) -> None:
        if _is_importing(sys._current_frames().get(thread)):  # pyright: ignore[reportPrivateUsage]
            with contextlib.suppress(OSError, ValueError):  # stderr may be closed
                sys.stderr.write(f"loading {' and '.join(self._modules)} …\n")
                sys.stderr.flush()


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT_SYSTEM:
            return True
        frame = frame.f_back
    return False
