"""What is measured: a contender under one load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from ..tools.window import Window
from .processes import BLS

CASCADE = "cascade"
INLINE = "cascade, inline"
BLOCKING = "blocking BLS"
LEAST = "least model"
PEERS = ("mosec", "litserve")


@dataclass(frozen=True, slots=True)
class Cell:
    """One load.

    Attributes:
        clients: Requests in flight.
        rows: Rows of a request.
        deferred: The share of rows that the second stage answers, 0 to 1.
    """

    clients: int
    rows: int
    deferred: float

    def __str__(self) -> str:
        return f"{self.clients} clients, {self.rows} rows, {self.deferred:.0%} deferred"


CLIENTS = (1, 8, 64, 256)
ROWS = (1, 16, 64)
SHARES = (0.0, 0.25, 1.0)
# Everything that a question of the report needs. The whole matrix takes an hour.
CHOSEN = (
    *(Cell(clients, 1, 0.25) for clients in CLIENTS),
    Cell(8, 16, 0.25),
    Cell(8, 64, 0.25),
    Cell(64, 1, 0.0),
    Cell(64, 1, 1.0),
)
ALL = tuple(Cell(*cell) for cell in product(CLIENTS, ROWS, SHARES))
QUICK = (Cell(8, 1, 0.25),)


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one contender under one load.

    Attributes:
        contender: One of the names above.
        cell: The load.
        window: Throughput and latencies.
        cpu_ms: CPU milliseconds of a request, by kind of process.
        instances: Processes of the model that is called; None for other servers.
        rows_per_call: Rows of a call of each stage, first to last; empty if stages are inline, and
            for other servers.
    """

    contender: str
    cell: Cell
    window: Window
    cpu_ms: Mapping[str, float]
    instances: int | None = None
    rows_per_call: Sequence[float] = ()

    def row(self) -> dict[str, object]:
        """Return the figures as a flat row of a table."""
        window, total = self.window, sum(self.cpu_ms.values())
        rows_s = window.throughput_rps * self.cell.rows
        # Cores that the contender alone kept busy; the load generator has the others.
        cores = window.throughput_rps * total / 1000
        model_ms = self.cpu_ms.get(BLS)
        return {
            "contender": self.contender,
            "instances": self.instances,
            "clients": self.cell.clients,
            "rows": self.cell.rows,
            "deferred": self.cell.deferred,
            "requests/s": window.throughput_rps,
            "rows/s": rows_s,
            "rows/s a core": rows_s / cores if cores else None,
            "CPU ms": total,
            **{f"CPU ms {kind}": value for kind, value in self.cpu_ms.items()},
            # One process of the model uses one core at most: more need more instances.
            "requests/s a core of BLS": 1000 / model_ms if model_ms else None,
            **{f"rows a call of stage {i}": rows for i, rows in enumerate(self.rows_per_call)},
            "p50 ms": window.all.p50_ms,
            "exited p50 ms": window.exited.p50_ms if window.exited else None,
            "deferred p50 ms": window.deferred.p50_ms if window.deferred else None,
        }
