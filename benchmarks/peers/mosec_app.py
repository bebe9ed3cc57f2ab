"""The cascade behind mosec: HTTP in Rust, its own batching, every worker with the whole cascade.

A pipeline with a worker for each stage, which exited rows pass unchanged, was tried on two busy
cores. In two pairs of runs it had 0.85 and 0.84 times the throughput at concurrency 8, and 0.52 and
1.02 times at 32. Every row takes two hops there, and one of the two workers is idle if the stages'
shares of the cost differ.
"""

from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # as in the served cascade

from cascadebert_build.extras import needs_extra
from cascadebert_core.tokenization import Text

from .payloads import PATH, READY, REQUEST_TIMEOUT_S, payload_of_answers, texts_of_payload
from .python_cascade import Answer, cascade_from_repository
from .settings import PeerArguments

with needs_extra("bench"):
    import mosec

# mosec creates its workers in new processes, without arguments.
_VARIABLE = "CASCADEBERT_PEER"


class CascadeWorker(mosec.Worker):
    """One worker."""

    def __init__(self) -> None:
        """Load the cascade."""
        super().__init__()
        of = PeerArguments.from_json(os.environ[_VARIABLE])
        self._cascade = cascade_from_repository(of.repository, of.cascade, of.settings.threads)
        sys.stderr.write(f"{READY}\n")

    def deserialize(self, data: bytes) -> list[Text]:
        """Return the rows of one request."""
        return texts_of_payload(super().deserialize(data))

    def forward(self, data: list[list[Text]]) -> list[list[Answer]]:
        """Answer the rows of all requests of a batch together."""
        answers = iter(self._cascade.answers([text for rows in data for text in rows]))
        return [[next(answers) for _ in rows] for rows in data]

    def serialize(self, data: list[Answer]) -> bytes:
        """Return the JSON of one response."""
        return json.dumps(payload_of_answers(data)).encode()


def main() -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT."""
    os.environ[_VARIABLE] = sys.argv[1]
    arguments = PeerArguments.from_json(sys.argv[1])
    settings = arguments.settings
    # mosec reads the process's own command line.
    sys.argv[1:] = [
        "--address", "127.0.0.1", "--port", str(arguments.port),
        "--timeout", str(REQUEST_TIMEOUT_S * 1000), "--log-level", "warning",
    ]  # fmt: skip
    server = mosec.Server()
    server.append_worker(
        CascadeWorker,
        num=settings.workers,
        max_batch_size=settings.max_batch_size,
        max_wait_time=settings.batch_timeout_ms,
        route=PATH,
    )
    server.run()


if __name__ == "__main__":
    main()
