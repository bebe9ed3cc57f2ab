"""An embedded tritonserver on loopback: started, loaded, reloaded, restarted and stopped."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2

from cascadebert_supervisor.drain import drain
from cascadebert_supervisor.flags import LOAD_TIMEOUT_S, server_flags
from cascadebert_supervisor.guard import Guard
from cascadebert_supervisor.leftovers import backends_of, claim, release, remove_abandoned
from cascadebert_supervisor.stubs import Stub, StuckStubs, deaths

from ..errors import CheckFailed
from ..progress import say
from ..repository.model_config import (
    ModelConfig,
    config_from_text,
    config_to_json,
    set_parameter,
    versions_of_config,
)
from ..repository.published_cascade import PUBLISHED_CONFIG
from .installation import find_installation
from .loaded_models import is_cascade, loaded_configs
from .local_control import LoadRefused, LocalModelControl
from .ports import HOST, Ports, resolve_ports
from .process import STOP_TIMEOUT_S, TritonProcess, log_excerpt
from .temporary import make_folder, parents, plain_path
from .tls import ServerTls

_READY_TIMEOUT_S = 60.0
_LOOK_S = 0.5  # between two looks at the stubs while a model loads

# A load with an unchanged configuration does nothing, so every reload changes this parameter.
_RELOADS = "reloads"


class TritonServer:
    """A running tritonserver; a context manager that stops it.

    Models are loaded by `load` rather than at the start, so that a failure comes back as a message
    and not only as a line in a log.

    Attributes:
        repository: The model repository.
        log_path: The file with the server's output.
        ports: The ports of the endpoints.
        tls: The files of the gRPC port's TLS, or None.
        exit_code: The exit code, once the server has stopped.
    """

    def __init__(
        self,
        repository: Path,
        *,
        ports: Ports = Ports(),  # noqa: B008 - frozen
        log_path: Path | None = None,
        options: tuple[str, ...] = (),
        tls: ServerTls | None = None,
    ) -> None:
        """Prepare, but do not start.

        Args:
            repository: The model repository.
            ports: The ports of the endpoints.
            log_path: The file for the server's output; None: a file in a temporary folder that is
                kept if the server fails.
            options: Further flags of tritonserver.
            tls: The files with which the gRPC port speaks TLS; None leaves it unencrypted.

        Raises:
            UsageError: The environment cannot run the bundled server.
            InvalidRequest: A file of `tls` is missing or wrong.
        """
        if tls is not None:
            tls.check()
            options = (*options, *tls.flags())
        self.tls = tls
        self._installation = find_installation()
        self.repository = repository.resolve()
        self._options = options
        self._folder = make_folder()
        self._guard: Guard | None = None
        self.log_path = log_path or self._folder / "tritonserver.log"
        self.ports = ports
        self.exit_code: int | None = None
        self._process: TritonProcess | None = None
        self._configs: dict[str, ModelConfig] = {}  # of all models that were seen loaded
        self._reloads = 0

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
        """The process id while the server runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process and wait until the server can load models.

        Raises:
            UsageError: A port is taken.
            CheckFailed: The server ended or was not ready in time; the message quotes its log.
        """
        for removed in remove_abandoned(parents()):
            say("serve", "removed", str(removed))
        claim(self._folder)
        self._guard = Guard(self._folder)
        self._installation.copy_backends(backends_of(self._folder))
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path.write_bytes(b"")
        self._start_process()

    def load(
        self, model: str, config_json: str | None = None, *, timeout_s: float = LOAD_TIMEOUT_S
    ) -> None:
        """Load a model, or load it again.

        Args:
            model: The name of a folder of the repository.
            config_json: A whole configuration that replaces config.pbtxt.
            timeout_s: Seconds that the load may take.

        Raises:
            CheckFailed: The model does not load; the message is the server's reason.
        """
        load = partial(self._control().load, model, config_json, timeout_s)
        try:
            self._while_stubs_live(model, load)
        except LoadRefused as exc:  # "failed to load 'x', failed to poll from model repository: …"
            raise CheckFailed(f"{model} does not load: {exc}\n{self.log_excerpt()}") from exc
        if config_json is not None:
            pb: Any = model_config_pb2
            self._configs[model] = json_format.Parse(config_json, pb.ModelConfig())
        if self._process is not None:
            self._process.look()

    def reload(self, model: str, *, timeout_s: float = LOAD_TIMEOUT_S) -> None:
        """Start new stubs for a model with its present configuration, and drop its old ones.

        Raises:
            CheckFailed: The model does not load.
        """
        config = self._control().config(model)
        self._reloads += 1
        set_parameter(config, _RELOADS, str(self._reloads))
        self.load(model, config_to_json(config), timeout_s=timeout_s)

    def restart(self) -> None:
        """Start a new process on the same ports, with the models that the old one had loaded.

        Requests in flight end at once: their connections are closed. If each model is also
        published as it was loaded, the new process listens only once it can answer; otherwise it
        says for a moment that it knows no such model.

        Raises:
            UsageError: A port was taken meanwhile.
            CheckFailed: The server or a model does not start.
        """
        configs = list(self._configs.values())
        # Others may have loaded more models or other versions. A broken server may not tell.
        with contextlib.suppress(CheckFailed):
            configs = loaded_configs(self._control()) or configs
        self._configs = {config.name: config for config in configs}
        if self._process is not None:
            self._process.kill()
        self._start_process(_preload(self.repository, configs))
        for config in configs:
            self.load(config.name, config_to_json(config))

    def stubs(self) -> list[Stub]:
        """Return the processes of the python backend, dead ones too."""
        return [] if self._process is None else self._process.stubs.now()

    def newly_gone_stubs(self) -> list[Stub]:
        """Return the processes of the python backend that are gone without a trace, each once."""
        return [] if self._process is None else self._process.stubs.newly_gone()

    def newly_dead_stubs(self) -> list[Stub]:
        """Return the stubs that have died, each once."""
        return [] if self._process is None else self._process.stubs.newly_dead()

    def cascades(self) -> dict[str, list[int]]:
        """Return the loaded versions of the cascades, by name.

        Raises:
            CheckFailed: The server does not say.
        """
        configs = loaded_configs(self._control())
        # Others load models too, and a server that has crashed cannot say what it had.
        self._configs.update({config.name: config for config in configs})
        return {config.name: versions_of_config(config) for config in configs if is_cascade(config)}

    def instances(self, model: str) -> int:
        """Return how many instances a loaded model has.

        Raises:
            CheckFailed: The server does not say.
        """
        return sum(group.count for group in self._control().config(model).instance_group)

    def poll(self) -> int | None:
        """Return the exit code of the process once it has ended; None while it runs."""
        assert self._process is not None, "start() comes first"
        return self._process.poll()

    def stop(self, *, keep_log: bool = False) -> None:
        """Stop the server; requests in flight are answered first. A second call does nothing."""
        if self._process is not None:
            self.exit_code = self._process.stop(self._drain)
            self._process = None
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None
        release(self._folder)
        shutil.rmtree(backends_of(self._folder) if keep_log else self._folder, ignore_errors=True)

    def _drain(self) -> str:
        """Let the cascades answer what they have; return why some answers may be missing."""
        try:
            return drain(self.ports.http, self.cascades(), STOP_TIMEOUT_S)
        except CheckFailed as exc:
            return str(exc)

    def log_excerpt(self) -> str:
        """Return the last lines of the log that report an error, or simply the last lines."""
        return log_excerpt(self.log_path)

    def _start_process(self, options: Sequence[str] = ()) -> None:
        """Start a process on free ports, or on those of the one before, and await its readiness."""
        self.ports = resolve_ports(self.ports)
        command = [
            str(self._installation.binary),
            *server_flags(
                plain_path(self.repository, self._folder),
                HOST,
                http=self.ports.http,
                grpc=self.ports.grpc,
                metrics=self.ports.metrics,
                exit_timeout_s=STOP_TIMEOUT_S,
            ),
            f"--backend-directory={backends_of(self._folder)}",
            *self._options,
            *options,
        ]
        self._process = TritonProcess(
            command, self._installation.environment(), self.log_path, self._folder
        )
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not self._control().ready():
            if self._process.poll() is not None:
                raise CheckFailed(f"tritonserver ended while it started\n{self.log_excerpt()}")
            if time.monotonic() > deadline:
                raise CheckFailed(
                    f"tritonserver was not ready after {_READY_TIMEOUT_S:.0f} s\n"
                    f"{self.log_excerpt()}"
                )
            time.sleep(0.05)

    def _while_stubs_live(self, model: str, load: Callable[[], object]) -> None:
        """Load a model, and look at the stubs meanwhile.

        Raises:
            CheckFailed: A stub died, and the server goes on waiting for it.
        """
        assert self._process is not None
        failures: list[BaseException] = []

        def run() -> None:
            try:
                load()
            except BaseException as exc:  # noqa: BLE001 - raised below, in the thread that waits
                failures.append(exc)

        stuck = StuckStubs(self.stubs())
        # A daemon: a load that hangs must not hold up the end of this program.
        thread = Thread(target=run, name="load", daemon=True)
        thread.start()
        thread.join(_LOOK_S)
        while thread.is_alive():
            if dead := stuck.among(self.stubs()):
                named = (replace(stub, model=stub.model or model) for stub in dead)
                raise CheckFailed(
                    f"{deaths(named)} while it loaded, and the server waits for it\n"
                    f"{self.log_excerpt()}"
                )
            thread.join(_LOOK_S)
        if failures:
            raise failures[0]

    def _control(self) -> LocalModelControl:
        return LocalModelControl(self.ports.http)


def _preload(repository: Path, configs: Sequence[ModelConfig]) -> list[str]:
    """Flags that load models before the endpoints open; none if other versions would answer."""
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
