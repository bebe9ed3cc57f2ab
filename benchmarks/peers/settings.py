"""How a peer uses the machine."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cascadebert_build.config.placement import cores

LITSERVE = "litserve"
MOSEC = "mosec"
PEERS = (LITSERVE, MOSEC)


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """Settings of an HTTP peer.

    Attributes:
        workers: processes that each hold the cascade.
        threads: of ONNX Runtime in each.
        max_batch_size: requests that the framework may put together; at least 2, since with 1 both
            call the worker in another way.
        batch_timeout_ms: how long it may wait for them; at least 1, since 0 lets LitServe's workers
            spin, and stands for 10 with mosec.
    """

    workers: int
    threads: int
    max_batch_size: int
    batch_timeout_ms: int


# Found with perf_analyzer at concurrency 1, 8 and 32 on two busy cores, SST-2, MiniLM pair at 25%
# deferral: one worker for each core, since one of two threads had 0.5 to 0.7 times the throughput
# of two; batches of 16 to 64 requests, which were alike where smaller ones took more CPU time a
# request; and a short wait, since 5 ms are felt at concurrency 1.
BEST = {
    LITSERVE: PeerSettings(cores(), 1, 32, 2),
    MOSEC: PeerSettings(cores(), 1, 32, 1),
}


@dataclass(frozen=True, slots=True)
class PeerArguments:
    """What the command line of a peer says.

    Attributes:
        repository: the model repository.
        cascade: the cascade's name there.
        port: on 127.0.0.1.
        settings: of the peer.
    """

    repository: Path
    cascade: str
    port: int
    settings: PeerSettings

    def to_argv(self) -> list[str]:
        """The command line that `arguments_from_argv` reads."""
        of = self.settings
        return [
            "--model-repository", str(self.repository), "--cascade", self.cascade,
            "--port", str(self.port), "--workers", str(of.workers), "--threads", str(of.threads),
            "--max-batch-size", str(of.max_batch_size),
            "--batch-timeout-ms", str(of.batch_timeout_ms),
        ]  # fmt: skip


def arguments_from_argv(
    kind: str, description: str | None, argv: Sequence[str] | None = None
) -> PeerArguments:
    """Read the command line of a peer; wrong use ends the process with code 2."""
    best = BEST[kind]
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.peers.{kind}_app",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model-repository", type=Path, required=True, metavar="DIR")
    parser.add_argument("--cascade", required=True, metavar="NAME")
    parser.add_argument("--port", type=int, required=True, help="on 127.0.0.1")
    for name, least, default in (
        ("--workers", 1, best.workers),
        ("--threads", 1, best.threads),
        ("--max-batch-size", 2, best.max_batch_size),
        ("--batch-timeout-ms", 1, best.batch_timeout_ms),
    ):
        parser.add_argument(
            name, type=_at_least(least), default=default, metavar="N", help=f"at least {least}"
        )
    args = parser.parse_args(argv)
    return PeerArguments(
        args.model_repository,
        args.cascade,
        args.port,
        PeerSettings(args.workers, args.threads, args.max_batch_size, args.batch_timeout_ms),
    )


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: give an integer, {least} or more")
        return int(text)

    return number
