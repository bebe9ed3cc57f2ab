"""Loads and unloads models on a running tritonserver."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any, TypeVar

import grpc
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from cascadebert_client.errors import Target, translated
from cascadebert_client.transport import channel_arguments

from ..errors import CheckFailed
from ..repository.model_config import ModelConfig

ResultT = TypeVar("ResultT")

READY = "READY"
# States of a version that still has, or may still get, requests.
_IN_USE = (READY, "LOADING", "UNLOADING")
_ASK_TIMEOUT_S = 30.0
_POLL_S = 0.05

_ANOTHER_REPOSITORY = (
    "its model repository must be the one that was given with --model-repository, or a whole copy"
)


class ModelControlClient:
    """A connection to a server that was started with --model-control-mode=explicit."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        tls_host: str | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        """Describe the connection; nothing is sent yet.

        Args:
            url: host:port of the gRPC endpoint.
            headers: gRPC metadata of every call, such as the key of a restricted protocol.
            credentials: The TLS credentials; None sends unencrypted.
            tls_host: The name that the server's certificate must have; None is the host of `url`.
            timeout_s: Seconds that one load, or the end of requests in flight, may take.
        """
        self.url = url
        self.timeout_s = timeout_s
        self._headers = {name.lower(): value for name, value in (headers or {}).items()} or None
        self._tls = credentials is not None
        arguments: list[tuple[str, Any]] = [*channel_arguments(url)]
        if tls_host is not None:
            arguments.append(("grpc.ssl_target_name_override", tls_host))
        self._client = triton.InferenceServerClient(url, creds=credentials, channel_args=arguments)

    def __enter__(self) -> ModelControlClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    def states(self) -> dict[str, dict[int, str]]:
        """Return the state of every version that the server knows, by model and version.

        Raises:
            CheckFailed: The server does not answer.
        """
        index: Any = self._ask("", lambda client: client.get_model_repository_index(
            headers=self._headers, client_timeout=_ASK_TIMEOUT_S
        ))  # fmt: skip
        states: dict[str, dict[int, str]] = {}
        for model in index.models:
            if model.version:  # a model that was never loaded has none
                states.setdefault(model.name, {})[int(model.version)] = model.state
        return states

    def versions(self, model: str) -> set[int]:
        """Return the versions of a model that have, or may get, requests."""
        return {v for v, state in self.states().get(model, {}).items() if state in _IN_USE}

    def config(self, model: str) -> ModelConfig:
        """Return the configuration that a model runs with.

        Raises:
            CheckFailed: The server does not answer.
        """
        response: Any = self._ask(model, lambda client: client.get_model_config(
            model, headers=self._headers, client_timeout=_ASK_TIMEOUT_S
        ))  # fmt: skip
        return response.config

    def load(self, model: str, config_json: str, versions: Collection[int]) -> None:
        """Load a model, or load it again, and check that these versions are ready.

        Versions whose files and configuration did not change go on without interruption. The others
        of `versions` load beside the running ones and replace them once they are ready. Then all
        other versions are unloaded, after their requests are answered. If a version does not load,
        nothing changes.

        Raises:
            CheckFailed: A version does not load; the message is the server's reason.
        """
        self._ask(model, lambda client: client.load_model(
            model, config=config_json, headers=self._headers, client_timeout=self.timeout_s
        ))  # fmt: skip
        # If the server does not find a version in its repository, it only logs that.
        states = self.states().get(model, {})
        missing = sorted(v for v in versions if states.get(v) != READY)
        if missing:
            raise CheckFailed(
                f"{model} version {missing[0]} is not ready on the server at {self.url} "
                f"({states.get(missing[0], 'not found')}): {_ANOTHER_REPOSITORY}"
            )

    def unload(self, model: str) -> None:
        """Unload all versions of a model; their requests are answered first.

        Raises:
            CheckFailed: The server refuses.
        """
        self._ask(model, lambda client: client.unload_model(
            model, headers=self._headers, client_timeout=self.timeout_s
        ))  # fmt: skip

    def settle(self, models: Collection[str]) -> None:
        """Wait until no version of these models is loading or unloading.

        Raises:
            CheckFailed: A version still is after the timeout.
        """
        deadline_s = time.monotonic() + self.timeout_s
        while True:
            states = self.states()
            moving = [
                f"{model} version {version} is {state}"
                for model in models
                for version, state in states.get(model, {}).items()
                if state in ("LOADING", "UNLOADING")
            ]
            if not moving:
                return
            if time.monotonic() > deadline_s:
                raise CheckFailed(
                    f"after {self.timeout_s:g} s {moving[0]} on the server at {self.url}: it still "
                    "has requests in flight, or does not end; run the command again to continue"
                )
            time.sleep(_POLL_S)

    def _ask(self, model: str, call: Callable[[Any], ResultT]) -> ResultT:
        try:
            return call(self._client)
        except (InferenceServerException, grpc.RpcError) as exc:
            raise CheckFailed(self._sentence(model, exc)) from exc

    def _sentence(self, model: str, exc: Exception) -> str:
        reason = str(exc.message()) if isinstance(exc, InferenceServerException) else str(exc)
        if "at least one version must be available" in reason:
            return (
                f"the server at {self.url} does not find these versions of {model}: "
                f"{_ANOTHER_REPOSITORY}"
            )
        if "failed to load" in reason or "load failed" in reason:
            return (
                f"{model} does not load on the server at {self.url}, and what was served goes on: "
                f"{reason}"
            )
        if "explicit model load" in reason:
            return (
                f"the server at {self.url} takes no loads ({reason}): start it with "
                "--model-control-mode=explicit"
            )
        return str(translated(exc, Target(self.url, model, tls=self._tls)) or reason)
