"""The cascade behind LitServe: HTTP, its own batching, every worker with the whole cascade.

The rows of all requests of a batch run in one call, and LitServe answers the requests when the last
row is decided: that is what its `predict` of a batch means.
"""

# No `from __future__ import annotations`: LitServe hands the annotations to FastAPI.

import os
import sys

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # as the served cascade does

from collections.abc import Sequence
from typing import Annotated, Any

from cascadebert_build.extras import needs_extra
from cascadebert_core.tokenization import Text

from .payloads import (
    PATH,
    READY,
    REQUEST_TIMEOUT_S,
    BadPayload,
    payload_of_answers,
    texts_of_payload,
)
from .python_cascade import Answer, cascade_from_repository
from .settings import LITSERVE, PeerArguments, arguments_from_argv

with needs_extra("bench"):
    import litserve
    from fastapi import HTTPException
    from pydantic import BaseModel, Field

Texts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class Rows(BaseModel):
    """A request's body, which FastAPI checks before it is queued."""

    text: Texts
    text_pair: Texts | None = None


class CascadeAPI(litserve.LitAPI):
    """One worker."""

    def __init__(self, arguments: PeerArguments) -> None:
        """Only remember the arguments: LitServe pickles this and calls `setup` in the worker."""
        settings = arguments.settings
        super().__init__(
            max_batch_size=settings.max_batch_size,
            batch_timeout=settings.batch_timeout_ms / 1000,
            api_path=PATH,
        )
        self._arguments = arguments

    def setup(self, device: Any) -> None:
        """Load the cascade."""
        of = self._arguments
        self._cascade = cascade_from_repository(
            of.repository, of.cascade, threads=of.settings.threads
        )
        sys.stderr.write(f"{READY}\n")

    def decode_request(self, request: Rows) -> list[Text]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The rows of one request."""
        payload = request.model_dump(exclude_none=True)
        try:
            return texts_of_payload(payload, self._cascade.policy.pair)
        except BadPayload as exc:
            raise HTTPException(422, str(exc)) from exc

    def batch(self, inputs: list[list[Text]]) -> tuple[list[Text], list[int]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The rows of all requests, and how many each has."""
        return [text for rows in inputs for text in rows], [len(rows) for rows in inputs]

    def predict(self, x: tuple[list[Text], list[int]]) -> tuple[list[Answer], list[int]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Answer all rows."""
        texts, sizes = x
        return self._cascade.answers(texts), sizes

    def unbatch(self, output: tuple[list[Answer], list[int]]) -> list[list[Answer]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The answers of each request."""
        answers, sizes = output
        rest = iter(answers)
        return [[next(rest) for _ in range(size)] for size in sizes]

    # Its annotation would become FastAPI's response model, which checks every answer once more.
    def encode_response(self, output: list[Answer]):  # pyright: ignore[reportIncompatibleMethodOverride]
        """The JSON of one response."""
        return payload_of_answers(output)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT."""
    arguments = arguments_from_argv(LITSERVE, __doc__, argv)
    api = CascadeAPI(arguments)
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=arguments.settings.workers,
        timeout=REQUEST_TIMEOUT_S,
    )
    server.run(
        host="127.0.0.1",
        port=arguments.port,
        # The workers need the cores; one process of uvicorn is enough for them.
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
