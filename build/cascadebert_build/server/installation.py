"""The tritonserver of the nvidia-pytriton wheel, as it is installed in this environment."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from ..errors import MissingExtra, UsageError


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the parts of the bundled server are.

    Attributes:
        binary: The tritonserver executable.
        backend: The folder of the python backend.
        stub: The python backend's stub for the running Python.
        libraries: Folders for LD_LIBRARY_PATH.
    """

    binary: Path
    backend: Path
    stub: Path
    libraries: tuple[Path, ...]

    def copy_backends(self, folder: Path) -> None:
        """Make `folder` the server's --backend-directory: the python backend with its stub."""
        backend = folder / "python"
        shutil.copytree(self.backend, backend, dirs_exist_ok=True)
        stub = backend / self.stub.name
        shutil.copy2(self.stub, stub)
        # pip does not keep the execute permission of every file in a wheel.
        for program in (stub, self.binary):
            if not os.access(program, os.X_OK):
                program.chmod(program.stat().st_mode | 0o111)

    def environment(self) -> dict[str, str]:
        """Return the environment that the server runs in.

        Raises:
            UsageError: The environment has no python3.
        """
        libraries = [str(path) for path in self.libraries]
        if os.environ.get("LD_LIBRARY_PATH"):
            libraries.append(os.environ["LD_LIBRARY_PATH"])
        return {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            # The stub runs the first python3 on the path: it must be this environment's.
            "PATH": os.pathsep.join([str(_python3_folder()), os.environ.get("PATH", "")]),
        }


def find_installation() -> Installation:
    """Find the bundled server, and check that this environment can run it.

    Raises:
        MissingExtra: The serve extra is not installed.
        UsageError: The server cannot run with a part of the environment.
    """
    for module in ("pytriton", "tokenizers"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtra("serve", module)
    numpy_version = importlib.metadata.version("numpy")
    if int(numpy_version.split(".")[0]) >= 2:
        raise UsageError(
            f"numpy {numpy_version} is installed, and under NumPy 2 the bundled server hands "
            "empty tensors to its models: pip install 'numpy<2'"
        )
    spec = importlib.util.find_spec("pytriton")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    server = package / "tritonserver"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / python / "triton_python_backend_stub"
    if not stub.is_file():
        raise UsageError(f"the bundled server has no stub for Python {python}: use 3.10 to 3.12")
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        raise UsageError(
            f"{sys.executable} was built without a shared library, which the server's python "
            "backend loads: use a Python built with --enable-shared (Debian's and conda's are)"
        )
    return Installation(
        binary=server / "bin" / "tritonserver",
        backend=server / "backends" / "python",
        stub=stub,
        libraries=(
            package.parent / "nvidia_pytriton.libs",
            Path(sysconfig.get_config_var("LIBDIR")),
        ),
    )


def _python3_folder() -> Path:
    folder = Path(sys.executable).parent
    if not (folder / "python3").exists():
        raise UsageError(
            f"{folder} has no python3, which the server's python backend starts: run from a "
            "virtual environment"
        )
    return folder
