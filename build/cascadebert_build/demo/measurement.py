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

from tqdm import tqdm

from cascadebert_client import CascadeClient, Classification
from cascadebert_core.tokenization import Text

# Requests in flight while latency and throughput are measured.
CONCURRENCY = 8

# The ways of answering take turns in slices of this length, so that a drift of the machine's speed
# affects all of them alike.
_SLICE_S = 1.0


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
    """One way of answering, measured at `CONCURRENCY` requests of one row each.

    Attributes:
        name: The way of answering.
        accuracy: Accuracy over all rows.
        exits: Rows that each stage answered.
        rows_per_s: Answers per second.
        latency_ms: The latency of each request, by the stage that answered it.
    """

    name: str
    accuracy: float
    exits: tuple[int, ...]
    rows_per_s: float
    latency_ms: tuple[tuple[float, ...], ...]

    @property
    def median_ms(self) -> float:
        """The median latency of all requests."""
        return statistics.median(value for stage in self.latency_ms for value in stage)

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
    """Classify all rows in every way, then time requests for `seconds` in every way.

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
        answers = [
            _classify_all(client, way, texts)
            for way in tqdm(ways, desc="accuracy", leave=False, disable=None)
        ]
        timed = _time_in_turns(client, ways, texts, n_stages, seconds)
    return [
        Measured(
            name=way.name,
            accuracy=statistics.fmean(
                answer.label == label for answer, label in zip(given, labels, strict=True)
            ),
            exits=tuple(
                sum(answer.exit_stage == stage for answer in given) for stage in range(n_stages)
            ),
            rows_per_s=n_answers / elapsed_s,
            latency_ms=tuple(tuple(values) for values in latencies),
        )
        for way, given, (n_answers, elapsed_s, latencies) in zip(ways, answers, timed, strict=True)
    ]


def _classify_all(client: CascadeClient, way: Way, texts: Sequence[Text]) -> list[Classification]:
    rows: Any = list(texts)  # all of one kind
    return list(
        client.classify_stream(
            rows, stage=way.stage, rows_per_request=8, max_concurrency=CONCURRENCY
        )
    )


def _time_in_turns(
    client: CascadeClient, ways: Sequence[Way], texts: Sequence[Text], n_stages: int, seconds: float
) -> list[tuple[int, float, list[list[float]]]]:
    """Return answers, seconds and latencies in ms by exit stage, for each way."""
    totals: list[tuple[int, float, list[list[float]]]] = [
        (0, 0.0, [[] for _ in range(n_stages)]) for _ in ways
    ]
    # The data may be sorted by label or length; a slice must not be.
    shuffled = random.Random(0).sample(list(texts), len(texts))
    rounds = max(1, round(seconds / _SLICE_S))
    with tqdm(total=rounds * len(ways), desc="latency", leave=False, disable=None) as progress:
        for _ in range(rounds):
            for i, way in enumerate(ways):
                n, elapsed_s, latencies = _slice(client, way, shuffled, n_stages, seconds / rounds)
                for stage, values in enumerate(latencies):
                    totals[i][2][stage].extend(values)
                totals[i] = (totals[i][0] + n, totals[i][1] + elapsed_s, totals[i][2])
                progress.update()
    return totals


def _slice(
    client: CascadeClient, way: Way, texts: Sequence[Text], n_stages: int, seconds: float
) -> tuple[int, float, list[list[float]]]:
    latencies: list[list[float]] = [[] for _ in range(n_stages)]
    numbers = count()
    failures: list[Exception] = []
    start = time.perf_counter()

    def ask() -> None:
        try:
            while time.perf_counter() - start < seconds:
                text = texts[next(numbers) % len(texts)]
                begun = time.perf_counter()
                answer = client.classify(text, stage=way.stage, timeout_s=60)
                latencies[answer.exit_stage].append((time.perf_counter() - begun) * 1e3)
        except Exception as exc:  # noqa: BLE001 - raised again by the thread that measures
            failures.append(exc)

    threads = [threading.Thread(target=ask) for _ in range(CONCURRENCY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    elapsed_s = time.perf_counter() - start
    return sum(map(len, latencies)), elapsed_s, latencies
