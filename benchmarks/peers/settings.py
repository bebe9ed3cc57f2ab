"""How a peer uses the machine, and what its process is told."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cascadebert_build.config.placement import cores

LITSERVE = "litserve"
MOSEC = "mosec"
PEERS = (LITSERVE, MOSEC)


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


# Found with perf_analyzer at concurrency 1, 8 and 32 on two busy cores (SST-2, MiniLM pair, 25%
# deferred). One worker for each core: one worker of two threads had 0.5 to 0.7 times the throughput
# of two workers. Batches of 16 to 64 requests were alike, and smaller ones took more CPU time per
# request. A short wait: 5 ms are noticeable at concurrency 1.
BEST = {
    LITSERVE: PeerSettings(cores(), 1, 32, 2),
    MOSEC: PeerSettings(cores(), 1, 32, 1),
}


@dataclass(frozen=True, slots=True)
class PeerArguments:
    """What the process of a peer is told. It gets this as JSON in its only argument.

    Attributes:
        repository: The model repository.
        cascade: The name of the cascade.
        port: The port on 127.0.0.1.
        settings: The settings of the peer.
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
        settings = PeerSettings(**of["settings"])
        return cls(Path(of["repository"]), of["cascade"], of["port"], settings)
