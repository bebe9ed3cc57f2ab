"""Blocks through a served cascade, by the client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cascadebert_client import CascadeClient

from ..errors import CheckFailed
from .answers import Places, write_answers
from .store import Store
from .tables import read_table, texts_of
from .tasks import Result, Task, block_file


@dataclass(frozen=True, slots=True)
class Server:
    """A served cascade, and how to call it.

    Attributes:
        url: The gRPC endpoint, or several with commas.
        model: The cascade.
        model_version: Its version; None lets the server choose.
        headers: gRPC metadata.
        tls: Files of the authority, the client's certificate and its key; None without TLS.
        rows_per_request: Rows of a request.
        concurrency: Requests in flight, of each worker.
        timeout_s: Time limit of a request, in seconds.
    """

    url: str
    model: str
    model_version: str | None
    headers: Mapping[str, str]
    tls: tuple[Path, Path | None, Path | None] | None
    rows_per_request: int
    concurrency: int
    timeout_s: float

    def client(self) -> CascadeClient:
        """A client of it; close it."""
        credentials = None
        if self.tls is not None:
            import grpc

            ca, certificate, key = (path and path.read_bytes() for path in self.tls)
            credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        return CascadeClient(
            self.url,
            self.model,
            self.model_version,
            headers=self.headers,
            credentials=credentials,
        )


@dataclass(frozen=True, slots=True)
class AskServer:
    """Sends blocks to a server, which takes the rows through all stages. See `tasks.Work`.

    Attributes:
        output: The output folder.
        server: The server.
        options: Of `classify`: `operating_point`, `threshold` or `stage`.
        policy: The id of the policy that must answer.
    """

    has_state: ClassVar[bool] = True
    output: str
    server: Server
    options: tuple[tuple[str, Any], ...]
    policy: str

    def start(self) -> Callable[[Task], Result]:
        """See `tasks.Work`."""
        client = self.server.client()
        return lambda task: self._run(task, client)

    def _run(self, task: Task, client: CascadeClient) -> Result:
        store, block = Store(self.output), task.what["block"]
        texts = texts_of(read_table(store, block_file(block)))
        stream: Any = client.classify_stream
        answers = list(
            stream(
                texts,
                rows_per_request=self.server.rows_per_request,
                max_concurrency=self.server.concurrency,
                timeout_s=self.server.timeout_s,
                **dict(self.options),
            )
        )
        other = next((each.policy for each in answers if each.policy != self.policy), None)
        if other is not None:
            raise CheckFailed(
                f"policy {other[:12]} answers now, and {self.policy[:12]} answered the rows "
                "before: name the version with --model-version and use --resume, or start again "
                "with --overwrite"
            )
        return write_answers(
            store,
            task.name,
            Places([block] * len(texts), np.arange(len(texts))),
            probabilities=np.array([each.probabilities for each in answers], np.float32),
            confidence=np.array([each.confidence for each in answers], np.float32),
            exit_stage=np.array([each.exit_stage for each in answers], np.int32),
            degraded=np.array([each.degraded for each in answers], np.bool_),
        )
