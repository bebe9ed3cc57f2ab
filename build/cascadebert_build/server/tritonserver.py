"""The tritonserver of the nvidia-pytriton wheel, as a child process on loopback."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import tritonclient.grpc as triton
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from cascadebert_supervisor.stubs import Stub, regions_of, remove_regions, stubs_of

from ..errors import CheckFailed, MissingExtra, UsageError
from ..repository.model_config import (
    ModelConfig,
    config_from_text,
    config_to_json,
    set_parameter,
    versions_of_config,
)
from ..repository.served_versions import PUBLISHED_CONFIG
from .loaded_models import is_cascade, loaded_configs
from .model_control import ModelControlClient

HOST = "127.0.0.1"  # the bundled server is below the security floor: nothing but loopback

# Model files of large members take their time to load on a small machine.
_READY_TIMEOUT_S = 60.0
_LOAD_TIMEOUT_S = 600
_STOP_TIMEOUT_S = 30.0
# A model whose stub died may never unload: what can still be answered is, in this time.
_BROKEN_STOP_TIMEOUT_S = 5.0
_ASK_TIMEOUT_S = 10.0

# A load with an unchanged configuration does nothing, so every reload changes this parameter.
_RELOADS = "reloads"


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of the three endpoints; 0 stands for a free one."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the parts of the bundled server are.

    Attributes:
        binary: the tritonserver executable.
        backend: folder of the python backend.
        stub: the python backend's stub for the running Python.
        libraries: folders for LD_LIBRARY_PATH.
    """

    binary: Path
    backend: Path
    stub: Path
    libraries: tuple[Path, ...]


def find_installation() -> Installation:
    """The bundled server, if this environment can run it.

    Raises:
        MissingExtra: the serve extra is not installed.
        UsageError: the environment has a part that the server cannot run with.
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


class TritonServer:
    """A running tritonserver; a context manager that stops it cleanly.

    Models are loaded by `load`, with their configuration overridden where the caller wants, so
    that a failure comes back as a message rather than as a line in a log.
    """

    def __init__(
        self, repository: Path, *, ports: Ports = Ports(), log_path: Path | None = None,
        options: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        """Prepare, but do not start.

        Args:
            repository: the model repository.
            ports: of the endpoints.
            log_path: where the server's output goes; None: a file in a temporary folder that
                is kept when the server fails.
            options: further flags of tritonserver.
        """
        self._installation = find_installation()
        self._repository = repository.resolve()
        self._wanted = ports
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="cascadebert-serve-"))
        self.log_path = log_path or self._folder / "tritonserver.log"
        self.ports = ports
        self.exit_code: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._client: triton.InferenceServerClient | None = None
        self._configs: dict[str, ModelConfig] = {}  # as loaded through here
        self._regions: set[Path] = set()
        self._reloads = 0
        self._models_of_stubs: dict[int, str] = {}

    def __enter__(self) -> TritonServer:
        try:
            self.start()
        except BaseException as exc:
            self.stop(keep_log=isinstance(exc, CheckFailed))
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop(keep_log=isinstance(value, CheckFailed))

    @property
    def url(self) -> str:
        """host:port of the gRPC endpoint."""
        return f"{HOST}:{self.ports.grpc}"

    @property
    def pid(self) -> int | None:
        """Process id of the server while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process and wait until the server is ready to load models.

        Raises:
            UsageError: a port is taken.
            CheckFailed: the server ended or did not get ready; the message quotes its log.
        """
        self.ports = _resolve_ports(self._wanted)
        self._copy_backend()
        self._start_process("wb")
        self._await_ready()

    def _await_ready(self) -> None:
        self._client = triton.InferenceServerClient(self.url)
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not self._is_ready():
            if self._process is None or self._process.poll() is not None:
                raise CheckFailed(f"tritonserver ended while it started\n{self.log_excerpt()}")
            if time.monotonic() > deadline:
                raise CheckFailed(
                    f"tritonserver was not ready after {_READY_TIMEOUT_S:.0f} s\n"
                    f"{self.log_excerpt()}"
                )
            time.sleep(0.05)

    def load(
        self, model: str, config_json: str | None = None, *, timeout_s: float = _LOAD_TIMEOUT_S
    ) -> None:
        """Load a model, or load it anew.

        Args:
            model: name of a folder of the repository.
            config_json: a whole configuration in the place of config.pbtxt.
            timeout_s: seconds that it may take.

        Raises:
            CheckFailed: the model does not load; the message is the server's reason.
        """
        assert self._client is not None, "start() comes first"
        try:
            self._client.load_model(model, config=config_json, client_timeout=timeout_s)
        except InferenceServerException as exc:
            raise CheckFailed(
                f"{model} does not load: {_reason(exc)}\n{self.log_excerpt()}"
            ) from exc
        if config_json is not None:
            self._configs[model] = _parsed(config_json)
        if self.pid is not None:
            self._regions |= regions_of(self.pid)
        self.stubs()  # learns their names, which the dead do not tell

    def reload(self, model: str, *, timeout_s: float = _LOAD_TIMEOUT_S) -> None:
        """Start new stubs for a model, as it is configured now, and give up its old ones.

        Raises:
            CheckFailed: the model does not load.
        """
        with ModelControlClient(self.url) as running:
            config = running.config(model)
        self._reloads += 1
        set_parameter(config, _RELOADS, str(self._reloads))
        self.load(model, config_to_json(config), timeout_s=timeout_s)

    def restart(self) -> None:
        """Start a new process on the same ports, with the models that the old one had loaded.

        Requests in flight end at once: their connections are closed. Where each model is also
        published as it was loaded, the new process listens only once it can answer; else it says
        for a moment that it knows no such model.

        Raises:
            UsageError: a port was taken meanwhile.
            CheckFailed: the server or a model does not start.
        """
        configs = list(self._configs.values())
        # Others may have loaded more, or other versions. A server that is broken may not say.
        with contextlib.suppress(CheckFailed), ModelControlClient(self.url) as running:
            configs = loaded_configs(running) or configs
        self._configs = {config.name: config for config in configs}
        self._end(timeout_s=0)
        self.ports = _resolve_ports(self.ports)
        self._models_of_stubs.clear()
        self._start_process("ab", _preload(self._repository, configs))
        self._await_ready()
        for config in configs:
            self.load(config.name, config_to_json(config))

    def stubs(self) -> list[Stub]:
        """The processes of the python backend, those that died included."""
        found = [] if self.pid is None else stubs_of(self.pid)
        self._models_of_stubs |= {s.pid: s.model for s in found if s.model is not None}
        return [replace(s, model=self._models_of_stubs.get(s.pid)) for s in found]

    def cascades(self) -> list[str]:
        """Names of the cascades that are loaded.

        Raises:
            CheckFailed: the server does not say.
        """
        with ModelControlClient(self.url) as running:
            configs = loaded_configs(running)
        # Others load models too, and a server that has crashed cannot be asked what it had.
        self._configs.update({config.name: config for config in configs})
        return [config.name for config in configs if is_cascade(config)]

    def poll(self) -> int | None:
        """The exit code of the process once it has ended; None while it runs."""
        assert self._process is not None, "start() comes first"
        return self._process.poll()

    def stop(self, *, keep_log: bool = False) -> None:
        """Stop the server: requests in flight are answered first. Does nothing the second time."""
        broken = any(stub.death for stub in self.stubs())
        self._end(timeout_s=_BROKEN_STOP_TIMEOUT_S if broken else _STOP_TIMEOUT_S)
        if keep_log:
            shutil.rmtree(self._folder / "backends", ignore_errors=True)
        else:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, *, timeout_s: float) -> None:
        """End the process: what is in flight has `timeout_s` seconds, with 0 not a moment."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._process is not None:
            if self._process.poll() is None:
                self._regions |= regions_of(self._process.pid)
                if timeout_s:
                    self._process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout_s)
            # Stubs are in its own process group, which holds nothing else; they may outlive it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self.exit_code = self._process.wait()
        self._process = None
        # Nobody else has them: their names are random.
        remove_regions(self._regions)
        self._regions.clear()

    def log_excerpt(self, lines: int = 15) -> str:
        """The last lines of the log that report an error, or simply the last ones."""
        try:
            text = self.log_path.read_text(errors="replace").splitlines()
        except OSError:
            return f"(no log at {self.log_path})"
        errors = [line for line in text if line.startswith("E") or "rror" in line]
        excerpt = "\n".join(f"  {line}" for line in (errors or text)[-lines:])
        return f"{excerpt}\n  the whole log: {self.log_path}"

    def _copy_backend(self) -> None:
        backends = self._folder / "backends" / "python"
        shutil.copytree(self._installation.backend, backends, dirs_exist_ok=True)
        stub = backends / self._installation.stub.name
        shutil.copy2(self._installation.stub, stub)
        # pip does not keep the execute permission of every file in a wheel.
        for program in (stub, self._installation.binary):
            if not os.access(program, os.X_OK):
                program.chmod(0o755)

    def _start_process(self, log_mode: str, options: Sequence[str] = ()) -> None:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open(log_mode) as log:
            self._process = subprocess.Popen(
                [*self._command(), *options],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C on the terminal is for us; we stop the server in order.
                start_new_session=True,
            )

    def _command(self) -> list[str]:
        return [
            str(self._installation.binary),
            f"--model-repository={self._repository}",
            f"--backend-directory={self._folder / 'backends'}",
            "--model-control-mode=explicit",
            "--disable-auto-complete-config",
            "--exit-on-error=true",
            f"--exit-timeout-secs={int(_STOP_TIMEOUT_S)}",
            # Large ONNX files take longer to load than the stub's default of 30 s.
            f"--backend-config=python,stub-timeout-seconds={_LOAD_TIMEOUT_S}",
            *(f"--{name}-address={HOST}" for name in ("http", "grpc", "metrics")),
            f"--http-port={self.ports.http}",
            f"--grpc-port={self.ports.grpc}",
            f"--metrics-port={self.ports.metrics}",
            *self._options,
        ]

    def _environment(self) -> dict[str, str]:
        libraries = [str(path) for path in self._installation.libraries]
        if os.environ.get("LD_LIBRARY_PATH"):
            libraries.append(os.environ["LD_LIBRARY_PATH"])
        return {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            # The stub runs the first python3 on the path: it must be this environment's.
            "PATH": os.pathsep.join([str(_python3_folder()), os.environ.get("PATH", "")]),
        }

    def _is_ready(self) -> bool:
        assert self._client is not None
        try:
            return cast(bool, self._client.is_server_ready(client_timeout=1.0))
        except InferenceServerException:
            return False


def _preload(repository: Path, configs: Sequence[ModelConfig]) -> list[str]:
    """Flags that load models before the endpoints open; none where other versions would answer."""
    for config in configs:
        path = repository / config.name / "configs" / f"{PUBLISHED_CONFIG}.pbtxt"
        if not path.is_file():
            return []
        published = config_from_text(path.read_text(encoding="utf-8"))
        if versions_of_config(published) != versions_of_config(config):
            return []
    return [
        f"--model-config-name={PUBLISHED_CONFIG}",
        *(f"--load-model={config.name}" for config in configs),
    ]


def _parsed(config_json: str) -> ModelConfig:
    pb: Any = model_config_pb2
    return json_format.Parse(config_json, pb.ModelConfig())


def _python3_folder() -> Path:
    folder = Path(sys.executable).parent
    if not (folder / "python3").exists():
        raise UsageError(
            f"{folder} has no python3, which the server's python backend starts: run from a "
            "virtual environment"
        )
    return folder


def _resolve_ports(wanted: Ports) -> Ports:
    """Free ports for the zeros; a clear error for the others where they are taken."""
    with contextlib.ExitStack() as stack:
        found: dict[str, int] = {}
        for name in ("http", "grpc", "metrics"):
            listener = stack.enter_context(socket.socket())
            # As the server does, so that a port in TIME_WAIT counts as free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            port = cast(int, getattr(wanted, name))
            try:
                listener.bind((HOST, port))
            except OSError as exc:
                raise UsageError(
                    f"port {port} ({name}) cannot be used: {exc.strerror}; give another one with "
                    f"--{name}-port, or 0 for a free one"
                ) from exc
            found[name] = listener.getsockname()[1]
    return Ports(**found)


def _reason(exc: InferenceServerException) -> str:
    # "[StatusCode.INTERNAL] failed to load 'x', failed to poll from model repository: …"
    message: Any = exc.message()
    return str(message)
