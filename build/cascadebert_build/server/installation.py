"""The tritonserver of the nvidia-pytriton wheel, or another one of this machine."""

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

# The folder of another server, as NVIDIA's image has it: bin/tritonserver, backends/python, lib.
SERVER_VARIABLE = "CASCADEBERT_TRITONSERVER"
# NVIDIA's images have the server's version in this file of that folder.
_VERSION_FILE = "TRITON_VERSION"
# The server of 26.06: its python backend works with NumPy 2.
_NUMPY_2_SINCE = (2, 70)
_STUB = "triton_python_backend_stub"


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the parts of a server are.

    Attributes:
        binary: The tritonserver executable.
        backend: The folder of the python backend.
        stub: The python backend's stub for the running Python.
        libraries: Folders for LD_LIBRARY_PATH.
        other_backends: Folders of further backends, such as `onnxruntime`.
    """

    binary: Path
    backend: Path
    stub: Path
    libraries: tuple[Path, ...]
    other_backends: tuple[Path, ...] = ()

    def copy_backends(self, folder: Path) -> None:
        """Make `folder` the server's --backend-directory: the python backend with its stub.

        Other backends are linked, because they are large.
        """
        backend = folder / "python"
        shutil.copytree(self.backend, backend, dirs_exist_ok=True)
        stub = backend / self.stub.name
        if not stub.exists():
            shutil.copy2(self.stub, stub)
        for other in self.other_backends:
            (folder / other.name).symlink_to(other)
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
    """Find the server of `SERVER_VARIABLE` or the bundled one, and check that it can run here.

    Raises:
        MissingExtra: The serve extra is not installed.
        UsageError: The server cannot run with a part of the environment.
    """
    folder = os.environ.get(SERVER_VARIABLE)
    if folder:
        return installation_of(Path(folder))
    for module in ("pytriton", "tokenizers"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtra("serve", module)
    numpy_version = importlib.metadata.version("numpy")
    if _major(numpy_version) >= 2:
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
    _require_shared_python()
    return Installation(
        binary=server / "bin" / "tritonserver",
        backend=server / "backends" / "python",
        stub=stub,
        libraries=(
            package.parent / "nvidia_pytriton.libs",
            Path(sysconfig.get_config_var("LIBDIR")),
        ),
    )


def installation_of(folder: Path) -> Installation:
    """Return the server in a folder such as /opt/tritonserver of NVIDIA's image.

    Its stub was built for one version of Python, which must be the running one.

    Raises:
        MissingExtra: `tokenizers` is not installed.
        UsageError: A part is missing, or the server cannot run with a part of the environment.
    """
    if importlib.util.find_spec("tokenizers") is None:
        raise MissingExtra("serve", "tokenizers")
    binary, backends = folder / "bin" / "tritonserver", folder / "backends"
    backend = backends / "python"
    for path in (binary, backend / _STUB):
        if not path.is_file():
            raise UsageError(
                f"{SERVER_VARIABLE} is {folder}, which has no {path.relative_to(folder)}: give a "
                "folder like /opt/tritonserver of NVIDIA's image, or unset the variable"
            )
    numpy_version = importlib.metadata.version("numpy")
    if _major(numpy_version) >= 2 and not _takes_numpy_2(folder):
        raise UsageError(
            f"numpy {numpy_version} is installed, and {folder / _VERSION_FILE} does not say that "
            f"this server is {_NUMPY_2_SINCE[0]}.{_NUMPY_2_SINCE[1]} (26.06) or newer; older ones "
            "hand empty tensors to models: pip install 'numpy<2', or write the version there"
        )
    _require_shared_python()
    return Installation(
        binary=binary,
        backend=backend,
        stub=backend / _STUB,
        libraries=(folder / "lib", Path(sysconfig.get_config_var("LIBDIR"))),
        other_backends=tuple(
            sorted(each for each in backends.iterdir() if each.is_dir() and each != backend)
        ),
    )


def _takes_numpy_2(folder: Path) -> bool:
    try:
        version = (folder / _VERSION_FILE).read_text(encoding="utf-8").strip()
        return tuple(map(int, version.split(".")[:2])) >= _NUMPY_2_SINCE
    except (OSError, ValueError):
        return False


def _major(version: str) -> int:
    return int(version.split(".", maxsplit=1)[0])


def _require_shared_python() -> None:
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        raise UsageError(
            f"{sys.executable} was built without a shared library, which the server's python "
            "backend loads: use a Python built with --enable-shared (Debian's and conda's are)"
        )


def _python3_folder() -> Path:
    folder = Path(sys.executable).parent
    if not (folder / "python3").exists():
        raise UsageError(
            f"{folder} has no python3, which the server's python backend starts: run from a "
            "virtual environment"
        )
    return folder
