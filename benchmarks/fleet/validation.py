"""The same load on the real server and on the simulated one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cascadebert_build.evaluation.simulate import simulate
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.planning.arrivals import Arrivals
from cascadebert_build.planning.material import Material
from cascadebert_build.planning.simulation import Fleet, Simulated, simulate_fleet
from cascadebert_build.planning.site import RequestPrice, Site, site_of_machine
from cascadebert_build.planning.workload import Workload
from cascadebert_build.repository.publish import publish_cascade
from cascadebert_build.server.ports import Ports
from cascadebert_build.server.serve import serve_cascades
from cascadebert_build.tuning.policy import choose_thresholds
from cascadebert_core.policy import Policy

from ..tools.command import say
from ..tools.machine import wait_until_quiet
from ..tools.perf_analyzer import Load, PerfAnalyzer
from ..tools.perf_analyzer_binary import Binary
from ..tools.request_data import write_texts
from ..tools.window import Latency, Window

# The rate at which the work of a request is looked up.
_LIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Deferral:
    """A threshold that defers a share of the rows, and which rows these are."""

    share: float
    threshold: float
    workload: Workload


def deferrals(build: CascadeBuild, material: Material, shares: Sequence[float]) -> list[Deferral]:
    """Choose a threshold for each share; the cascade has two stages."""
    logits = [build.logits(member) for member in build.config.members]
    found: list[Deferral] = []
    for share in shares:
        thresholds = choose_thresholds(material.policy, logits, [share])
        exits = simulate(material.policy, logits, thresholds).exit_stage
        workload = Workload(material.workload.lengths, {"": np.maximum(exits, 0).astype(np.int64)})
        (threshold,) = thresholds
        assert isinstance(threshold, float)
        found.append(Deferral(share, threshold, workload))
    return found


def this_site(material: Material, price: RequestPrice) -> Site:
    """This machine with the cascade, as `serve` uses it."""
    return site_of_machine(
        material.cores,
        list(zip(material.policy.stages, material.times, strict=True)),
        niceness=material.niceness,
        inline=material.inline,
        price=price,
    )


def publish(build: CascadeBuild, policy: Policy, repository: Path) -> None:
    """Publish a build with a policy, verified or not: only its speed is looked at."""
    artefacts = zip(policy.stages, build.artefacts(), strict=True)
    files = [artefact.stage_files(stage) for stage, artefact in artefacts]
    publish_cascade(repository, build.config.name, policy, files, build.config.runtime)


def capacity(site: Site, workload: Workload) -> float:
    """Return about how many requests a second keep the simulated machine busy all the time.

    It is from the work of a request under a light load, whose calls are small: a machine takes
    somewhat more.
    """
    alone_s = sum(
        float(share) * stage.times.seconds(1, int(workload.lengths[:, i].mean()))
        for i, (stage, share) in enumerate(zip(site.stages, workload.reach(""), strict=True))
    )
    rate = _LIGHT * site.cores / (alone_s + site.price.cascade_s + site.price.server_s)
    found = simulate_fleet(Fleet(site), workload, "", Arrivals(rate), requests=1500)
    return found.offered_s / found.busy


def validate(
    binary: Binary,
    build: CascadeBuild,
    material: Material,
    price: RequestPrice,
    *,
    scratch: Path,
    shares: Sequence[float],
    loads: Sequence[float],
    window_s: float,
    wait_quiet_s: float,
) -> Iterator[dict[str, Any]]:
    """Measure and simulate each load with each share of deferred rows; yield a row for each."""
    publish(build, material.policy, scratch / "repository")
    site = this_site(material, price)
    texts = list(build.rows.texts)
    random.Random(0).shuffle(texts)
    data = write_texts(scratch / "texts.json", texts)
    name = build.config.name
    with serve_cascades(scratch / "repository", [name], ports=Ports(0, 0, 0)) as server:
        for deferral in deferrals(build, material, shares):
            most = capacity(site, deferral.workload)
            parameters = {"threshold": repr(deferral.threshold)}
            perf = PerfAnalyzer(binary, server.url, parameters=parameters)
            for load in loads:
                if wait_quiet_s > 0:
                    wait_until_quiet(wait_quiet_s)
                rate = load * most
                window = perf.measure(name, data, Load(1, window_s=window_s, rate_rps=rate))
                found = simulate_fleet(
                    Fleet(site), deferral.workload, "", Arrivals(rate),
                    requests=max(2000, round(rate * window_s)),
                )  # fmt: skip
                row = {"deferred": deferral.share, "load": load, "rate": rate}
                row |= compared(window, found)
                say(", ".join(f"{key} {value:.3g}" for key, value in row.items()))
                yield row


def compared(window: Window, found: Simulated) -> dict[str, float]:
    """Figures of the server and of the simulation, and the simulated over the real ones."""
    row: dict[str, float] = {}
    pairs = [("requests/s", window.throughput_rps, found.answered_s)]
    for what, real, simulated in (
        ("exited", window.exited, found.exited),
        ("deferred", window.deferred, found.deferred),
    ):
        if isinstance(real, Latency):
            pairs.append((f"{what} p50 ms", real.p50_ms, simulated.p50_ms))
            pairs.append((f"{what} p99 ms", real.p99_ms, simulated.p99_ms))
    for what, real, simulated in pairs:
        row |= {what: real, f"{what}, simulated": simulated, f"{what}, ratio": simulated / real}
    return row
