"""The line on stderr while large modules are imported."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from cascadebert_build.loading import loading_told
from cascadebert_build.progress import shown

CODE = """
import threading, sys
told = threading.Event()
real = sys.stderr
class Stream:
    def write(self, text):
        real.write(text)
    def flush(self):
        told.set()
sys.stderr = Stream()
told.wait({wait_s})
sys.stderr = real
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.delenv("RANK", raising=False)
    return tmp_path / "large_module.py"


def load() -> None:
    importlib.invalidate_caches()
    importlib.import_module("large_module")


def test_a_long_import_is_told_once(module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module.write_text(CODE.format(wait_s=20))
    finders = list(sys.meta_path)
    with loading_told(["large_module"], after_s=0.01):
        load()
    assert capsys.readouterr().err == "loading large_module …\n"
    assert sys.meta_path == finders


def test_a_short_import_and_one_inside_a_step_are_not_told(
    module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module.write_text("")
    with loading_told(["large_module"], after_s=60):
        load()
    del sys.modules["large_module"]
    module.write_text(CODE.format(wait_s=0.1))
    with shown("step"), loading_told(["large_module"], after_s=0.01):
        load()
    assert capsys.readouterr().err == ""


def test_what_follows_a_short_import_is_not_loading(
    module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module.write_text("")
    with loading_told(["large_module"], after_s=0.2):
        load()
        importlib.import_module("time").sleep(0.4)
    assert capsys.readouterr().err == ""
