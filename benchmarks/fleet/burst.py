"""A burst with and without a faster operating point under load, on the server and simulated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.errors import UsageError
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.planning.arrivals import Arrivals
from cascadebert_build.planning.material import Material
from cascadebert_build.planning.simulation import Fleet, simulate_fleet
from cascadebert_build.planning.site import RequestPrice
from cascadebert_build.server.ports import Ports
from cascadebert_build.server.serve import serve_cascades
from cascadebert_client import AsyncCascadeClient, CascadeClientError

from ..tools.command import say
from ..tools.machine import wait_until_quiet
from .validation import capacity, publish, this_site

_LONGEST_S = 60.0


def compare_switch(
    build: CascadeBuild,
    material: Material,
    price: RequestPrice,
    *,
    scratch: Path,
    burst: float,
    load: float,
    seconds: float,
    limit_ms: float,
    wait_quiet_s: float,
) -> Iterator[dict[str, Any]]:
    """Send the same bursts to the cascade with its [under_load] and without it.

    Raises:
        UsageError: cascade.toml has no [under_load].
    """
    policy = material.policy
    if policy.under_load is None:
        raise UsageError("cascade.toml has no [under_load]: add it, and `cascadebert tune`")
    point = policy.default_operating_point
    site = this_site(material, price)
    rate = load * capacity(
        site, replace(material.workload, exits={"": material.workload.exits[point]})
    )
    arrivals = Arrivals(rate, burst)
    n = round(rate * seconds)
    times_s = arrivals.times(n, np.random.default_rng(0))
    for name, under_load in (("without", None), ("with", policy.under_load)):
        repository = scratch / name
        publish(build, replace(policy, under_load=under_load), repository)
        if wait_quiet_s > 0:
            wait_until_quiet(wait_quiet_s)
        with serve_cascades(repository, ports=Ports(0, 0, 0)) as server:
            sent = _send(server.url, build.config.name, build.rows.texts, times_s)
            ms, points = asyncio.run(sent)
        found = simulate_fleet(
            Fleet(site), material.workload, point, arrivals, requests=n, under_load=under_load
        )
        row = {
            "switch": name,
            "rate": rate,
            "p99 ms": float(np.nanpercentile(ms, 99)),
            "p99 ms, simulated": found.all.p99_ms,
            f"goodput within {limit_ms:g} ms": rate * float((ms <= limit_ms).mean()),
            f"goodput within {limit_ms:g} ms, simulated": rate
            * float((found.latencies_ms <= limit_ms).mean()),
            "faster point": float(np.mean([p not in {None, point} for p in points])),
            "faster point, simulated": 1 - found.by_point.get(point, 0.0),
            "refused": float(np.isnan(ms).mean()),
        }
        say(", ".join(f"{k} {v if isinstance(v, str) else f'{v:.3g}'}" for k, v in row.items()))
        yield row


async def _send(
    url: str, model: str, texts: Sequence[Any], times_s: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[str | None]]:
    """Send a row at each of these times; return milliseconds, NaN for refused ones, and points."""
    ms = np.full(len(times_s), np.nan)
    points: list[str | None] = [None] * len(times_s)
    async with AsyncCascadeClient(url, model) as client:

        async def ask(i: int) -> None:
            began_s = time.perf_counter()
            try:
                answer = await client.classify(texts[i % len(texts)], timeout_s=_LONGEST_S)
            except CascadeClientError:
                return
            ms[i] = 1e3 * (time.perf_counter() - began_s)
            points[i] = answer.operating_point

        started_s = time.perf_counter()
        tasks: list[asyncio.Task[None]] = []
        for i, at_s in enumerate(times_s.tolist()):
            wait_s = at_s - (time.perf_counter() - started_s)
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            tasks.append(asyncio.create_task(ask(i)))
        await asyncio.gather(*tasks)
    return ms, points
