"""How a peer uses the machine, and what its process is told."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cascadebert_build.config.placement import cores


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """The settings of an HTTP peer.

    Attributes:
        workers: The processes. Each holds the cascade.
        threads: The threads of ONNX Runtime in each process.
        max_batch_size: The requests that the framework may batch; at least 2, because with 1 both
            frameworks call the worker in another way.
        batch_timeout_ms: How long it may wait for them; at least 1, because with 0 LitServe's
            workers spin, and mosec takes 10.
    """

    workers: int
    threads: int
    max_batch_size: int
    batch_timeout_ms: int

    def __str__(self) -> str:
        return (
            f"{self.workers} workers of {self.threads} thread, at most {self.max_batch_size} "
            f"requests a batch, {self.batch_timeout_ms} ms to gather them"
        )


# Found with perf_analyzer at concurrency 1, 8 and 32 on two busy cores (SST-2, MiniLM pair, 25%
# deferred). One worker for each core: one worker of two threads had 0.5 to 0.7 times the throughput
# of two workers. Batches of 16 to 64 requests were alike, and smaller ones took more CPU time per
# request. A short wait: 5 ms are noticeable at concurrency 1.
BEST = {
    "litserve": PeerSettings(cores(), 1, 32, 2),
    "mosec": PeerSettings(cores(), 1, 32, 1),
}


@dataclass(frozen=True, slots=True)
class PeerArguments:
    """What the process of a peer is told, as JSON in its only argument: what to serve, and where.

    The port is on 127.0.0.1.
    """

    repository: Path
    cascade: str
    port: int
    settings: PeerSettings

    def to_json(self) -> str:
        """Return the arguments as JSON."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> PeerArguments:
        """Read what `to_json` wrote."""
        of = json.loads(text)
        of |= {"repository": Path(of["repository"]), "settings": PeerSettings(**of["settings"])}
        return cls(**of)
