"""Measures a served cascade through its server: accuracy, exits, throughput, latency."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from cascadebert_client import CascadeClient, Classification
from cascadebert_core.tokenization import Text

from ..progress import counted

# Requests in flight while latency and throughput are measured.
CONCURRENCY = 8

# The throughput of larger requests is measured with this number of rows in each, and with fewer
# requests in flight, since each keeps the server busy for longer.
ROWS_PER_REQUEST = 16
LARGE_REQUESTS = 4

# The ways of answering take turns in slices of this length, so that a drift of the machine's speed
# affects all of them alike.
_SLICE_S = 2.0


@dataclass(frozen=True, slots=True)
class Way:
    """One way of answering: the cascade, or one stage alone.

    Attributes:
        name: The name to print.
        stage: The stage that alone answers; None for the cascade.
    """

    name: str
    stage: int | None


@dataclass(frozen=True, slots=True)
class Measured:
    """One way of answering.

    Attributes:
        name: The way of answering.
        accuracy: Accuracy over all rows.
        exits: Rows that each stage answered.
        batch_rows_per_s: Answers per second in requests of `ROWS_PER_REQUEST` rows.
        rows_per_s: Answers per second at `CONCURRENCY` requests of one row each.
        latency_ms: The latency of each request of one row, by the stage that answered it.
    """

    name: str
    accuracy: float
    exits: tuple[int, ...]
    batch_rows_per_s: float
    rows_per_s: float
    latency_ms: tuple[tuple[float, ...], ...]

    @property
    def median_ms(self) -> float:
        """The median latency of all requests."""
        return statistics.median(value for stage in self.latency_ms for value in stage)

    @property
    def exited_ms(self) -> float | None:
        """The median latency of the requests that the first stage answered, if there are any."""
        return statistics.median(self.latency_ms[0]) if self.latency_ms[0] else None

    @property
    def deferred_ms(self) -> float | None:
        """The median latency of the requests that it deferred, if there are any."""
        values = [value for stage in self.latency_ms[1:] for value in stage]
        return statistics.median(values) if values else None

    @property
    def deferral_rate(self) -> float:
        """Share of rows that the first stage deferred."""
        return 1 - self.exits[0] / sum(self.exits)


def measure(
    url: str,
    model: str,
    ways: Sequence[Way],
    texts: Sequence[Text],
    labels: Sequence[str],
    *,
    n_stages: int,
    seconds: float,
) -> list[Measured]:
    """Classify all rows in every way, then time requests in every way.

    Half of the time is for requests of one row, half for requests of `ROWS_PER_REQUEST` rows.

    Args:
        url: host:port of the gRPC endpoint.
        model: The cascade's name.
        ways: The ways to compare.
        texts: The rows.
        labels: Their true labels.
        n_stages: Stages of the cascade.
        seconds: Time to measure each way.
    """
    with CascadeClient(url, model, channels=4, max_concurrency=CONCURRENCY) as client:
        answers: list[list[Classification]] = []
        with counted("way", len(ways), what="accuracy") as advance:
            for way in ways:
                answers.append(_classify_all(client, way, texts))
                advance()
        single, batches = _time_in_turns(client, ways, texts, n_stages, seconds)
    return [
        Measured(
            name=way.name,
            accuracy=statistics.fmean(
                answer.label == label for answer, label in zip(given, labels, strict=True)
            ),
            exits=tuple(
                sum(answer.exit_stage == stage for answer in given) for stage in range(n_stages)
            ),
            batch_rows_per_s=batch.rows_per_s,
            rows_per_s=one.rows_per_s,
            latency_ms=tuple(tuple(values) for values in one.latencies),
        )
        for way, given, one, batch in zip(ways, answers, single, batches, strict=True)
    ]


@dataclass(slots=True)
class _Timed:
    """What was answered in the slices of one way.

    Attributes:
        answers: Rows answered.
        elapsed_s: Seconds of the slices.
        latencies: In ms, by the stage that answered; only of requests of one row.
    """

    answers: int
    elapsed_s: float
    latencies: list[list[float]]

    @property
    def rows_per_s(self) -> float:
        return self.answers / self.elapsed_s

    def add(self, other: _Timed) -> None:
        self.answers += other.answers
        self.elapsed_s += other.elapsed_s
        for mine, others in zip(self.latencies, other.latencies, strict=True):
            mine.extend(others)


def _classify_all(client: CascadeClient, way: Way, texts: Sequence[Text]) -> list[Classification]:
    rows: Any = list(texts)  # all of one kind
    return list(
        client.classify_stream(
            rows,
            stage=way.stage,
            rows_per_request=ROWS_PER_REQUEST,
            max_concurrency=LARGE_REQUESTS,
        )
    )


def _time_in_turns(
    client: CascadeClient, ways: Sequence[Way], texts: Sequence[Text], n_stages: int, seconds: float
) -> tuple[list[_Timed], list[_Timed]]:
    """Return what each way answered in requests of one row, and in larger ones."""
    single, batches = (
        [_Timed(0, 0.0, [[] for _ in range(n_stages)]) for _ in ways] for _ in range(2)
    )
    # The data may be sorted by label or length; a slice must not be.
    shuffled = random.Random(0).sample(list(texts), len(texts))
    rounds = max(1, round(seconds / 2 / _SLICE_S))
    slice_s = seconds / 2 / rounds
    slices = 2 * rounds * len(ways)
    expected_s = slices * slice_s
    with counted("slice", slices, what="speed", expected_s=expected_s) as advance:
        for _ in range(rounds):
            for one, batch, way in zip(single, batches, ways, strict=True):
                one.add(_slice(client, way, shuffled, n_stages, slice_s, rows=1))
                advance()
                batch.add(_slice(client, way, shuffled, n_stages, slice_s, rows=ROWS_PER_REQUEST))
                advance()
    return single, batches


def _slice(
    client: CascadeClient,
    way: Way,
    texts: Sequence[Text],
    n_stages: int,
    seconds: float,
    *,
    rows: int,
) -> _Timed:
    """Keep requests of `rows` rows in flight for some seconds."""
    latencies: list[list[float]] = [[] for _ in range(n_stages)]
    answered: list[int] = []
    numbers = count()
    failures: list[Exception] = []
    start = time.perf_counter()

    def ask() -> None:
        try:
            while time.perf_counter() - start < seconds:
                first = next(numbers) * rows
                chosen: Any = [texts[(first + i) % len(texts)] for i in range(rows)]
                begun = time.perf_counter()
                answers = client.classify(chosen, stage=way.stage, timeout_s=60)
                if rows == 1:
                    ms = (time.perf_counter() - begun) * 1e3
                    latencies[answers[0].exit_stage].append(ms)
                answered.append(len(answers))
        except Exception as exc:  # noqa: BLE001 - raised again by the thread that measures
            failures.append(exc)

    threads = [
        threading.Thread(target=ask) for _ in range(CONCURRENCY if rows == 1 else LARGE_REQUESTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return _Timed(sum(answered), time.perf_counter() - start, latencies)
