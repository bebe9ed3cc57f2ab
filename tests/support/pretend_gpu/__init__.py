"""A machine with a pretended GPU, to run the whole path to a served engine where there is none.

TensorRT's Python bindings come from PyPI, which has them without their libraries; three small C
files stand in for those, for the CUDA runtime and for the driver. `PretendedMachine.run` then runs
any command as on a GPU machine.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent

# The oldest and the newest version that we support; both are on PyPI for CPython 3.10 to 3.12.
OLDEST, NEWEST = "10.12.0.36", "11.4.0.106"


class CannotPretend(Exception):  # noqa: N818
    """A compiler or the bindings cannot be had here."""


@dataclass(frozen=True)
class PretendedMachine:
    """A folder with a Python of its own that finds everything in it.

    Attributes:
        folder: all that was made.
        version: of TensorRT.
    """

    folder: Path
    version: str

    @property
    def python(self) -> Path:
        """The interpreter to run commands with."""
        return self.folder / "venv" / "bin" / "python3"

    def run(
        self, *arguments: str, pretend: dict[str, str] | None = None, timeout_s: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """Run `python3 ARGUMENTS` on the machine; `pretend` are the knobs of the C files."""
        return subprocess.run(
            [str(self.python), *arguments],
            env=self.environment(pretend),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def environment(self, pretend: dict[str, str] | None = None) -> dict[str, str]:
        """Environment of a process on the machine."""
        return {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.folder / "lib"),
            **{f"PRETEND_{key}": value for key, value in (pretend or {}).items()},
        }


def make_machine(folder: Path, version: str, cache: Path) -> PretendedMachine:
    """Set the machine up in `folder`; downloads are kept in `cache`.

    Raises:
        CannotPretend: there is no C compiler, or the package index cannot be reached.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise CannotPretend("there is no C compiler: install gcc")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("lib", "driver"):
        (folder / name).mkdir(exist_ok=True)
    major = version.partition(".")[0]
    number = _library_version(version)
    for source, name in (
        ("cuda.c", "driver/libcuda.so.1"),
        ("cudart.c", "lib/libcudart.so.12"),
        ("nvinfer.c", f"lib/libnvinfer.so.{major}"),
        ("nvinfer.c", f"lib/libnvinfer_plugin.so.{major}"),
        ("nvinfer.c", f"lib/libnvonnxparser.so.{major}"),
    ):
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-Wall", "-Werror", f"-DPRETEND_VERSION={number}",
             f"-Wl,-soname,{Path(name).name}", "-o", str(folder / name), str(HERE / source)],
            check=True,
        )  # fmt: skip
    packages = folder / "packages"
    with zipfile.ZipFile(_bindings(version, cache)) as wheel:
        wheel.extractall(packages)
    (packages / "tensorrt").mkdir(exist_ok=True)
    shutil.copyfile(HERE / "tensorrt_standin.py", packages / "tensorrt" / "__init__.py")
    _make_venv(folder / "venv", packages, folder / "driver" / "libcuda.so.1")
    return PretendedMachine(folder, version)


def _library_version(version: str) -> int:
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    return major * 10_000 + minor * 100 + patch


def _bindings(version: str, cache: Path) -> Path:
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    pattern = f"tensorrt_cu12_bindings-{version}-{python}-*.whl"
    if not list(cache.glob(pattern)):
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary",
             ":all:", "--dest", str(cache), f"tensorrt-cu12-bindings=={version}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise CannotPretend(f"TensorRT's bindings cannot be downloaded: {done.stderr[-300:]}")
    return next(cache.glob(pattern))


def _make_venv(folder: Path, packages: Path, driver: Path) -> None:
    """An environment that sees this one's packages, the `.pth` files among them, and `packages`.

    Its interpreter loads the driver at its start, and the loader then finds that one by its name.
    tritonserver must not see it: it would ask it for much more.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (target,) = folder.glob("lib/python3*/site-packages")
    lines = [
        str(packages),
        f"import site; site.addsitedir({site.getsitepackages()[0]!r})",
        f"import ctypes; ctypes.CDLL({str(driver)!r})",
    ]
    (target / "pretended.pth").write_text("\n".join(lines) + "\n")


def command(*arguments: str) -> Sequence[str]:
    """Arguments of `python3` that run the `cascadebert` command line."""
    return ("-m", "cascadebert_build.cli", *arguments)
