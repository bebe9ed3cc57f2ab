"""Find the real perf_analyzer on PATH, or fetch it from where it is published.

NVIDIA ships the binary in its SDK container and, up to version 2.60, in tritonclient's Linux
wheels. The wheel is unpacked and not installed, because it would force old versions of protobuf and
numpy on this environment. The two libraries that the binary needs are unpacked beside it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_engine.files import sha256_of_file

_WHEEL = "tritonclient==2.51.0"  # the version of the bundled server; it runs on glibc 2.35
_CUDA_RUNTIME_WHEEL = "nvidia-cuda-runtime-cu12"
_CUDA_RUNTIME = "libcudart.so.12"
_B64_PACKAGE = "libb64-0d"
_B64 = "libb64.so.0d"
_FETCH_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Binary:
    """A perf_analyzer that has been started once.

    Attributes:
        path: The executable.
        libraries: The folders that it needs on LD_LIBRARY_PATH.
        version: The version that it reports.
        sha256: The hash of the executable, in hex.
    """

    path: Path
    libraries: tuple[Path, ...]
    version: str
    sha256: str

    def environment(self) -> dict[str, str]:
        """Return the environment to start it in."""
        paths = [*map(str, self.libraries), os.environ.get("LD_LIBRARY_PATH", "")]
        return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(filter(None, paths))}


def find_binary() -> Binary:
    """Return perf_analyzer from PATH, or from the user's cache, which is filled if it is empty.

    Raises:
        UsageError: It can be neither found nor fetched. The message says what to install.
        CheckFailed: It does not start.
    """
    on_path = shutil.which("perf_analyzer")
    if on_path is not None:
        return _checked(Path(on_path), ())
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = user_cache / "cascadebert" / "perf_analyzer"
    path = folder / _WHEEL / "perf_analyzer"
    if not path.is_file():
        _unpack_wheel(_WHEEL, path.parent, ".data/data/bin/perf_analyzer", "manylinux1_x86_64")
        path.chmod(0o755)
    libraries: list[Path] = []
    if not _loads(_B64):
        libraries.append(_b64(folder / _B64_PACKAGE))
    if not _loads(_CUDA_RUNTIME):
        runtime = folder / _CUDA_RUNTIME_WHEEL
        if not (runtime / _CUDA_RUNTIME).is_file():
            _unpack_wheel(_CUDA_RUNTIME_WHEEL, runtime, f"/{_CUDA_RUNTIME}")
        libraries.append(runtime)
    return _checked(path, tuple(libraries))


def _checked(path: Path, libraries: tuple[Path, ...]) -> Binary:
    binary = Binary(path, libraries, "", sha256_of_file(path))
    done = subprocess.run(
        [path, "--version"], env=binary.environment(), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    output = (done.stdout + done.stderr).strip()
    _, found, version = output.partition("Perf Analyzer Version ")
    if not found:
        raise CheckFailed(f"{path} does not start: {output}")
    return replace(binary, version=version.split()[0])


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _unpack_wheel(requirement: str, folder: Path, ending: str, platform: str | None = None) -> None:
    """Write the one member of a wheel whose name ends with `ending` to `folder`."""
    with tempfile.TemporaryDirectory() as scratch:
        only = ["--only-binary=:all:", *(("--platform", platform) if platform else ())]
        _fetch(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *only,
             "--dest", scratch, requirement],
            Path(scratch),
            f"install pip, or put perf_analyzer on PATH ({requirement} could not be downloaded)",
        )  # fmt: skip
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(ending)]
            if len(names) != 1:
                raise CheckFailed(f"{wheel.name} has {len(names)} files that end in {ending}")
            folder.mkdir(parents=True, exist_ok=True)
            aside = folder / f".{Path(ending).name}.new"  # whole or not at all
            aside.write_bytes(archive.read(names[0]))
            aside.replace(folder / Path(ending).name)


def _b64(folder: Path) -> Path:
    """Return the folder of libb64, unpacked from Debian's package if it is not there."""
    found = next(folder.glob(f"usr/lib/*/{_B64}"), None)
    if found is not None:
        return found.parent
    remedy = f"install {_B64} (Debian and Ubuntu: apt-get install {_B64_PACKAGE})"
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise UsageError(f"perf_analyzer needs {_B64}, which is not installed: {remedy}")
    with tempfile.TemporaryDirectory() as scratch:
        _fetch(["apt-get", "download", _B64_PACKAGE], Path(scratch), remedy)
        (package,) = Path(scratch).glob("*.deb")
        folder.mkdir(parents=True, exist_ok=True)
        _fetch(["dpkg", "-x", str(package), str(folder)], folder, remedy)
    return next(folder.glob(f"usr/lib/*/{_B64}")).parent


def _fetch(command: list[str], folder: Path, remedy: str) -> None:
    try:
        subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S,
            check=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as exc:
        last = (exc.stderr or exc.stdout).strip().splitlines()[-3:]
        raise UsageError(f"{remedy}: {' '.join(command[:4])} … said: {' '.join(last)}") from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise UsageError(f"{remedy}: {exc}") from exc
