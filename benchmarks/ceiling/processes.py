"""CPU seconds of a server's processes, by what they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psutil

from cascadebert_build.server.tritonserver import TritonServer

from ..peers.server import Peer, processes_of_group

SERVER = "tritonserver"
BLS = "model"
STAGES = "stages"
PEER = "peer"


def processes_of_triton(server: TritonServer, model: str) -> dict[str, list[int]]:
    """Return the ids of the processes that answer for a model, by what they do.

    Args:
        server: The running server.
        model: The model that is called; the others count as its stages.
    """
    stubs = server.stubs()
    return {
        SERVER: [server.pid] if server.pid else [],
        BLS: [stub.pid for stub in stubs if stub.model == model],
        STAGES: [stub.pid for stub in stubs if stub.model != model],
    }


def processes_of_peer(peer: Peer) -> dict[str, list[int]]:
    """Return the ids of a peer's processes."""
    return {PEER: processes_of_group(peer.pid)}


def cpu_seconds(processes: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return the CPU seconds that processes have used until now, user and system, by kind."""
    return {kind: sum(map(_seconds, pids)) for kind, pids in processes.items()}


def _seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
