"""Loads models on the server of this process, over HTTP.

HTTP stays unencrypted on loopback, whatever the gRPC port asks of its callers. With TLS, a call
there would need a certificate that names this host, and with mutual TLS one of the caller.
`ModelControlClient` does the same for servers of other processes.
"""

from __future__ import annotations

import json
import urllib.error
from typing import Any
from urllib.parse import quote

from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2

from cascadebert_supervisor.loopback import FAILURES, HOST, opened

from ..errors import CheckFailed
from ..repository.model_config import ModelConfig

_ASK_TIMEOUT_S = 30.0


class LoadRefused(CheckFailed):
    """The server refuses a load, with its reason."""


class LocalModelControl:
    """The control of models through one HTTP port of this machine."""

    def __init__(self, http_port: int) -> None:
        """Describe the server; nothing is sent yet.

        Args:
            http_port: Its HTTP port.
        """
        self._port = http_port

    def ready(self) -> bool:
        """Return whether the server takes calls."""
        try:
            with opened(self._port, "/v2/health/ready", 1.0):
                return True
        except FAILURES:
            return False

    def states(self) -> dict[str, dict[int, str]]:
        """Return the state of every version that the server knows, by model and version.

        Raises:
            CheckFailed: The server does not answer.
        """
        states: dict[str, dict[int, str]] = {}
        for model in self._ask("/v2/repository/index", {}):
            if model.get("version"):  # a model that was never loaded has none
                states.setdefault(model["name"], {})[int(model["version"])] = model["state"]
        return states

    def config(self, model: str) -> ModelConfig:
        """Return the configuration that a model runs with.

        Raises:
            CheckFailed: The server does not answer.
        """
        pb: Any = model_config_pb2
        answer = self._ask(f"/v2/models/{quote(model)}/config")
        return json_format.ParseDict(answer, pb.ModelConfig(), ignore_unknown_fields=True)

    def load(self, model: str, config_json: str | None, timeout_s: float) -> None:
        """Load a model, or load it again.

        Args:
            model: The name of a folder of the repository.
            config_json: A whole configuration that replaces config.pbtxt.
            timeout_s: Seconds that the load may take.

        Raises:
            LoadRefused: The model does not load; the message is the server's reason.
            CheckFailed: The server does not answer.
        """
        body = {} if config_json is None else {"parameters": {"config": config_json}}
        self._ask(f"/v2/repository/models/{quote(model)}/load", body, timeout_s)

    def _ask(self, path: str, body: object = None, timeout_s: float = _ASK_TIMEOUT_S) -> Any:
        data = None if body is None else json.dumps(body).encode()
        try:
            with opened(self._port, path, timeout_s, data) as response:
                answer = response.read()
            return json.loads(answer) if answer else None
        except urllib.error.HTTPError as exc:
            raise LoadRefused(_reason(exc)) from exc
        except FAILURES as exc:
            raise CheckFailed(
                f"the server at {HOST}:{self._port} does not answer over HTTP ({exc}): see its log"
            ) from exc


def _reason(error: urllib.error.HTTPError) -> str:
    """Triton's own message: the body is {"error": MESSAGE}."""
    try:
        return str(json.loads(error.read())["error"])
    except (*FAILURES, KeyError, TypeError):
        return str(error)
