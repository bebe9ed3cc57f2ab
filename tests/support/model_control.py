"""A server's model control in memory: what it has loaded, and faults at any call."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NoReturn

from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2

from cascadebert_build.errors import CheckFailed
from cascadebert_build.repository.model_config import ModelConfig
from cascadebert_build.server.model_control import READY, ModelControlClient


@dataclass
class FakeModelControl(ModelControlClient):  # pyright: ignore[reportMissingSuperCall]
    """Loads and unloads as tritonserver does. The base class's connection is never made.

    Attributes:
        url: The server's name in messages.
        log: The loads and unloads that succeeded: the server, the model and its versions after it.
        refuses: Calls that the server refuses, such as ("load", "mine"), and how often.
        dies_at: The call at which the server dies.
        interrupted_at: The call at which the user presses Ctrl-C.
    """

    url: str
    log: list[tuple[str, str, tuple[int, ...]]] = field(default_factory=list)
    refuses: dict[tuple[str, str], int] = field(default_factory=dict)
    dies_at: tuple[str, str] | None = None
    interrupted_at: tuple[str, str] | None = None
    dead: bool = False

    def __post_init__(self) -> None:
        self._configs: dict[str, ModelConfig] = {}
        self._versions: dict[str, set[int]] = {}

    def states(self) -> dict[str, dict[int, str]]:
        self._call("states", "")
        return {model: dict.fromkeys(versions, READY) for model, versions in self._versions.items()}

    def config(self, model: str) -> ModelConfig:
        self._call("config", model)
        pb: Any = model_config_pb2
        copy = pb.ModelConfig()
        copy.CopyFrom(self._configs[model])
        return copy

    def load(self, model: str, config_json: str, versions: Collection[int]) -> None:
        self._call("load", model)
        pb: Any = model_config_pb2
        self._configs[model] = json_format.Parse(config_json, pb.ModelConfig())
        self._versions[model] = set(versions)
        self.log.append((self.url, model, tuple(sorted(versions))))

    def unload(self, model: str) -> None:
        self._call("unload", model)
        self._versions.pop(model)
        self.log.append((self.url, model, ()))

    def settle(self, models: Collection[str]) -> None:
        self.states()

    def served(self) -> dict[str, set[int]]:
        """What it has loaded, faults aside."""
        return {model: set(versions) for model, versions in self._versions.items()}

    def config_now(self, model: str) -> ModelConfig:
        return self._configs[model]

    def restart(self, **versions: Collection[int]) -> None:
        """Serve something else by itself."""
        self.dead = False
        self._versions.update({model: set(found) for model, found in versions.items()})

    def _call(self, method: str, model: str) -> None:
        call = (method, model)
        if call == self.interrupted_at:
            self.interrupted_at = None
            raise KeyboardInterrupt
        if call == self.dies_at:
            self.dead = True
        if self.dead:
            self._fail(f"the server at {self.url} cannot be reached: nothing listens there")
        if self.refuses.get(call, 0) > 0:
            self.refuses[call] -= 1
            self._fail(f"{model} does not load on the server at {self.url}: out of memory")

    def _fail(self, reason: str) -> NoReturn:
        raise CheckFailed(reason)
