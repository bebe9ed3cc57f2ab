"""A stand-in for NVIDIA's Triton image, for machines that cannot pull it.

A Debian root file system with Python and the tritonserver of the nvidia-pytriton wheel, in the
places where NVIDIA's image has them. It tests our Dockerfile, compose files and entrypoint, and
nothing of NVIDIA's image.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from tests.compose.engine import image_exists

Fill: TypeAlias = Callable[[Path, Path], None]

_RELEASE = "bookworm"
_PYTHON = "3.11"  # of that release
_PACKAGES = ("python3", "python3-pip", f"libpython{_PYTHON}", "ca-certificates")
# Under NumPy 2 the python backend of 2.51 gives empty tensors.
_WHEELS = ("nvidia-pytriton>=0.7,<0.8", "numpy>=1.26,<2")
_ENVIRONMENT = {
    "PATH": "/opt/tritonserver/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LD_LIBRARY_PATH": "/opt/tritonserver/lib",
}
# Like NVIDIA's it prints something and then becomes the command.
_NVIDIA_ENTRYPOINT = '#!/bin/sh\necho "stand-in for the NVIDIA entrypoint"\nexec "$@"\n'


def stand_in_for_triton() -> str:
    """Return the tag of the image, and make it if this machine does not have it."""
    return _image("cascadebert-standin-triton", _fill_triton)


def stand_in_for_prometheus() -> str:
    """Return an image with Debian's Prometheus in the place of prom/prometheus."""
    return _image("cascadebert-standin-prometheus", _fill_prometheus, entrypoint="/bin/prometheus")


def stand_in_for_tensorrt() -> str:
    """Return the same image with an empty module `tensorrt`, for tests that do not use TensorRT."""
    base = stand_in_for_triton()
    tag = base.replace("-triton:", "-tensorrt:")
    if not image_exists(tag):
        site = f"/usr/local/lib/python{_PYTHON}/dist-packages"
        module = f"RUN echo '__version__ = \"0\"' > {site}/tensorrt.py"
        subprocess.run(
            ["docker", "build", "-q", "-t", tag, "-"],
            input=f"FROM {base}\n{module}\n",
            text=True,
            check=True,
            capture_output=True,
        )
    return tag


def missing_tools() -> list[str]:
    """Return the programs that are needed to make the images and are missing."""
    return [name for name in ("debootstrap", "chroot", "tar", "prometheus") if not _which(name)]


def _image(name: str, fill: Fill, entrypoint: str | None = None) -> str:
    source = Path(__file__).read_bytes() + _host_pip_configuration().encode()
    tag = f"{name}:{hashlib.sha256(source).hexdigest()[:12]}"
    if image_exists(tag):
        return tag
    with tempfile.TemporaryDirectory(prefix="cascadebert-standin-") as folder:
        root = Path(folder) / "root"
        fill(root, Path(folder))
        changes = [f"ENV {key}={value}" for key, value in _ENVIRONMENT.items()]
        if entrypoint:
            changes.append(f'ENTRYPOINT ["{entrypoint}"]')
        arguments = [part for change in changes for part in ("--change", change)]
        with subprocess.Popen(
            ["tar", "-C", str(root), "--one-file-system", "-c", "."], stdout=subprocess.PIPE
        ) as tar:
            subprocess.run(
                ["docker", "import", *arguments, "-", tag],
                stdin=tar.stdout,
                stdout=subprocess.DEVNULL,
                check=True,
            )
        assert tar.returncode == 0
    return tag


def _fill_triton(root: Path, scratch: Path) -> None:
    _debootstrap(root, _PACKAGES)
    wheels = scratch / "wheels"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    platform = ["--python-version", _PYTHON, "--only-binary=:all:"]
    subprocess.run([*download, str(wheels), *platform, *_WHEELS], check=True)
    packages = scratch / "packages"
    for wheel in wheels.iterdir():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
    server = packages / "pytriton" / "tritonserver"
    target = root / "opt" / "tritonserver"
    backend = target / "backends" / "python"
    shutil.copytree(server / "backends" / "python", backend)
    stub = "triton_python_backend_stub"
    shutil.copy(server / "python_backend_stubs" / _PYTHON / stub, backend / stub)
    (target / "bin").mkdir()
    shutil.copy(server / "bin" / "tritonserver", target / "bin" / "tritonserver")
    shutil.copytree(packages / "nvidia_pytriton.libs", target / "lib")
    for program in (backend / stub, target / "bin" / "tritonserver"):
        program.chmod(0o755)
    site = root / "usr" / "local" / "lib" / f"python{_PYTHON}" / "dist-packages"
    site.mkdir(parents=True, exist_ok=True)
    for path in packages.glob("numpy*"):
        shutil.move(path, site / path.name)
    entrypoint = root / "opt" / "nvidia" / "nvidia_entrypoint.sh"
    entrypoint.parent.mkdir()
    entrypoint.write_text(_NVIDIA_ENTRYPOINT)
    entrypoint.chmod(0o755)
    user = ["useradd", "--uid", "1000", "--create-home", "triton-server"]
    subprocess.run(["chroot", str(root), *user], check=True)
    _reach_package_index_as_the_host_does(root)


def _fill_prometheus(root: Path, _scratch: Path) -> None:
    _debootstrap(root, ())
    shutil.copy(_which("prometheus") or "", root / "bin" / "prometheus")
    storage = root / "prometheus"
    storage.mkdir()
    os.chown(storage, 65534, 65534)  # the user `nobody`, as in prom/prometheus


def _debootstrap(root: Path, packages: tuple[str, ...]) -> None:
    # CASCADEBERT_DEBIAN_MIRROR: where the default mirror is out of reach.
    mirror = [m] if (m := os.environ.get("CASCADEBERT_DEBIAN_MIRROR")) else []
    include = [f"--include={','.join(packages)}"] if packages else []
    subprocess.run(
        ["debootstrap", "--variant=minbase", *include, _RELEASE, str(root), *mirror],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(root / "var" / "cache" / "apt", ignore_errors=True)


def _reach_package_index_as_the_host_does(root: Path) -> None:
    """Give pip in the image the package index and certificates of this machine's pip."""
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if bundle.is_file():
        shutil.copy(bundle, root / bundle.relative_to("/"))
    (root / "etc" / "pip.conf").write_text(_host_pip_configuration())


def _host_pip_configuration() -> str:
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    lines = ["[global]", "cert = /etc/ssl/certs/ca-certificates.crt"]
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        urls = [url for url in value.strip("'").split() if url.startswith(("http:", "https:"))]
        if name in ("index-url", "extra-index-url", "proxy") and urls:  # no folders of this machine
            lines.append(f"{name} = {' '.join(urls)}")
    return "\n".join(lines) + "\n"


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
