"""The cascade behind LitServe: HTTP, its own batching, every worker with the whole cascade.

The rows of all requests of a batch run in one call. LitServe answers the requests when the last row
is decided, because its `predict` takes a whole batch.
"""

# No `from __future__ import annotations`: LitServe passes the annotations to FastAPI.

import os
import sys

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # as in the served cascade

from typing import Any

from cascadebert_build.extras import needs_extra
from cascadebert_core.tokenization import Text

from .payloads import PATH, READY, REQUEST_TIMEOUT_S, payload_of_answers, texts_of_payload
from .python_cascade import Answer, cascade_from_repository
from .settings import PeerArguments

with needs_extra("bench"):
    import litserve


class CascadeAPI(litserve.LitAPI):
    """One worker."""

    def __init__(self, arguments: PeerArguments) -> None:
        """Keep the arguments only: LitServe pickles this object and calls `setup` in the worker."""
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
        self._cascade = cascade_from_repository(of.repository, of.cascade, of.settings.threads)
        sys.stderr.write(f"{READY}\n")

    def decode_request(self, request: dict[str, list[str]]) -> list[Text]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the rows of one request."""
        return texts_of_payload(request)

    def batch(self, inputs: list[list[Text]]) -> tuple[list[Text], list[int]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the rows of all requests, and how many each has."""
        return [text for rows in inputs for text in rows], [len(rows) for rows in inputs]

    def predict(self, x: tuple[list[Text], list[int]]) -> tuple[list[Answer], list[int]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Answer all rows."""
        texts, sizes = x
        return self._cascade.answers(texts), sizes

    def unbatch(self, output: tuple[list[Answer], list[int]]) -> list[list[Answer]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the answers of each request."""
        answers, sizes = output
        rest = iter(answers)
        return [[next(rest) for _ in range(size)] for size in sizes]

    # Not annotated: FastAPI would make it the response model and check every answer once more.
    def encode_response(self, output: list[Answer]):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the JSON of one response."""
        return payload_of_answers(output)


def main() -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT."""
    arguments = PeerArguments.from_json(sys.argv[1])
    server = litserve.LitServer(
        CascadeAPI(arguments),
        accelerator="cpu",
        workers_per_device=arguments.settings.workers,
        timeout=REQUEST_TIMEOUT_S,
    )
    server.run(
        host="127.0.0.1",
        port=arguments.port,
        # One process of uvicorn is enough. The workers need the cores.
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
