"""The sections that put contenders under load."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from cascadebert_build.errors import UsageError
from cascadebert_core.tokenization import Encoder, Text

from ...tools.perf_analyzer import Load
from ...tools.request_data import rows_of_fullest_bucket, write_texts, write_tokens
from ...tools.window import latency_of
from .. import names
from ..bench import TritonSide
from ..contender import Contender
from ..expected_answers import expected_of_cascade
from ..record import Record
from ..results import Results
from ..workload import point_of_share

# The rate of the open loop, as a part of the cascade's saturation.
_RATE_OF_SATURATION = 0.5
# The clients that send requests of several rows.
_CLIENTS = 4
_TOKENISED_REQUESTS = 500


def measure_closed_loop(side: TritonSide, others: Sequence[Contender], repeat: int) -> None:
    """Measure one repeat of all contenders, from one client to many.

    Args:
        side: The server.
        others: Contenders that are not on Triton.
        repeat: The number of the repeat.
    """
    bench = side.bench
    everyone = [side.cascade(), side.blocking(), *side.members(), *others]
    contenders = [contender for contender in everyone if bench.takes(contender.name)]
    loads = bench.closed(*bench.plan.concurrencies)
    bench.take_turns(names.CLOSED, side.workload, contenders, loads, [repeat])


def measure_open_loop(side: TritonSide) -> None:
    """Measure how long exited requests wait at half of the cascade's saturation.

    A contender that does not hold the rate leaves rows with an error, because its latencies only
    show how long the window was. A continued run keeps the rate that it had.
    """
    bench, name = side.bench, side.workload.name
    kept = [
        row for row in bench.record.rows() if (row["section"], row["scene"]) == (names.OPEN, name)
    ]
    if kept:
        rate_rps = kept[0]["of_load"]["rate_rps"]
    else:
        rate_rps = float(f"{_RATE_OF_SATURATION * saturation_rps(bench.record, name):.2g}")
    plan = bench.plan
    load = Load(1, window_s=plan.open_window_s, ramp_s=plan.ramp_s, rate_rps=rate_rps)
    bench.take_turns(
        names.OPEN, side.workload, [side.cascade(), side.blocking(), *side.members()], [load]
    )


def saturation_rps(record: Record, workload: str) -> float:
    """Return the cascade's best throughput in the closed loops, the median over the repeats.

    Raises:
        UsageError: The run has no window of these closed loops.
    """
    rates = Results(record.rows()).throughput(names.CLOSED, workload, names.CASCADE)
    if not rates:
        raise UsageError(
            f"the open loop of {workload} runs at half of its best rate in closed loops, and this "
            "run has no closed loops: --only closed open"
        )
    return median(rates.values())


def measure_shares(side: TritonSide) -> None:
    """Measure the cascade at every share of deferred rows and the members alone, all saturated."""
    bench, workload = side.bench, side.workload
    points = [
        side.contender(
            names.name_of_share(share),
            workload.cascade,
            expected_of_cascade(workload, share),
            parameters={"operating_point": point_of_share(share)},
        )
        for share in bench.plan.sweep_shares
    ]
    loads = bench.closed(bench.plan.many)
    bench.take_turns(names.SHARES, workload, [*points, *side.members()], loads)


def measure_rows_per_request(side: TritonSide) -> None:
    """Measure requests of several rows: the cascade beside its members, with a few clients.

    A request counts as deferred if any of its rows was.
    """
    bench = side.bench
    loads = [load for rows in bench.plan.request_rows for load in bench.closed(_CLIENTS, rows=rows)]
    bench.take_turns(names.ROWS, side.workload, [side.cascade(), *side.members()], loads)


def measure_gate_price(side: TritonSide) -> None:
    """Measure the small member with and without the gate, one request at a time.

    The gate takes text, tokenises it, asks the stage and decides. A client of the stage itself
    tokenises first and sends token ids.
    """
    bench, workload = side.bench, side.workload
    stage, encoder = workload.policy.stages[0], workload.encoders[0]
    for rows in bench.plan.gate_rows:
        texts: Sequence[Text] = workload.corpus.texts
        if rows > 1:  # perf_analyzer needs rows of one shape
            texts = rows_of_fullest_bucket(texts, encoder, stage)
        folder = bench.data(workload.name)
        text_data = write_texts(folder / f"gate-texts-{rows}.json", texts)
        token_data = write_tokens(folder / f"gate-tokens-{rows}.json", texts, encoder, stage)
        contenders = [
            side.member(names.ONE_MEMBER, 0, data=text_data),
            # Its answers are logits, so nothing is expected of them.
            side.contender(names.STAGE, stage.model, None, data=token_data),
            Contender(
                names.TOKENISING,
                "one thread",
                lambda load, texts=texts: _tokenise(encoder, texts, load.rows),
                warm_up=False,
            ),
        ]
        bench.take_turns(names.GATE, workload, contenders, bench.closed(1, rows=rows))


def _tokenise(encoder: Encoder, texts: Sequence[Text], rows: int) -> dict[str, Any]:
    """Time how long this process tokenises the rows of one request."""
    # As in the server, one request's rows are tokenised on one thread.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    taken_ms: list[float] = []
    for start in range(min(_TOKENISED_REQUESTS, len(texts))):
        request = [texts[(start + i) % len(texts)] for i in range(rows)]
        began_s = time.perf_counter()
        encoder.encode(request)
        taken_ms.append((time.perf_counter() - began_s) * 1000)
    rate_rps = 1000 * len(taken_ms) / sum(taken_ms)
    return {"throughput_rps": rate_rps, "all": asdict(latency_of(taken_ms))}
