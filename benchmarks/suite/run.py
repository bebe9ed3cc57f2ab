"""The sections in their order, scene by scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from .bench import Bench, TritonSide
from .contender import Contender
from .corpora import HELD_OUT, LONG, MIXED, SHORT, Corpus
from .other_contenders import client_side, other_servers, processes
from .pairs import SHAPES, BuiltPair, Pair, build_pair, pair_of_config
from .sections.accuracy import measure_accuracy
from .sections.closed_loop import measure_closed
from .sections.gate import measure_gate_price
from .sections.limit import measure_limits
from .sections.open_loop import measure_mixed_load, saturation_rps
from .sections.rows_per_request import measure_batched
from .sections.shares import measure_shares
from .sections.startup import measure_client, measure_startup
from .sections.sweeps import measure_batches, measure_calls, measure_cores, measure_instances
from .workload import Scene, make_scene, name_of_scene, work_of_scene

LIMIT, CLOSED, OPEN, SHARES, ROWS = "limit", "closed", "open", "shares", "rows"
GATE, ACCURACY, SWEEP, STARTUP = "gate", "accuracy", "sweep", "startup"
_COST = {LIMIT, SHARES}
SECTIONS = (LIMIT, CLOSED, OPEN, SHARES, ROWS, GATE, ACCURACY, SWEEP, STARTUP)


def run_sections(
    bench: Bench,
    sections: Sequence[str],
    *,
    pairs: Sequence[Pair],
    corpora: Mapping[str, Corpus],
    work: Path,
    checkpoints: Path | None,
) -> None:
    """Measure what the record lacks.

    Args:
        bench: of the run.
        sections: of `SECTIONS`.
        pairs: members.
        corpora: texts.
        work: for artefacts.
        checkpoints: folder of the fine-tuned ones.

    Raises:
        UsageError: open loops are asked for without the closed ones that they need.
    """
    if OPEN in sections and CLOSED not in sections:
        for pair in pairs:
            if not pair.cost_only:  # said now, not after minutes of building
                saturation_rps(bench.record, name_of_scene(pair, corpora[SHORT]))
    for pair in pairs:
        built = build_pair(pair, corpora[SHORT], work, checkpoints)
        chosen = [s for s in sections if not pair.cost_only or s in _COST]
        if not pair.swept:
            chosen = [s for s in chosen if s != SWEEP]
        own = replace(bench, peers=bench.peers and pair.peers)
        _run_scene(own, chosen, _scene(bench, built, corpora[SHORT]))
        if pair is SHAPES[0]:  # other lengths of text: Triton's contenders, one client and many
            plan = bench.plan
            few = replace(plan, concurrencies=(plan.concurrencies[0], plan.many))
            for name in (LONG, MIXED):
                other = _scene(bench, built, corpora[name])
                _run_scene(
                    replace(bench, plan=few, peers=False),
                    [s for s in sections if s in {LIMIT, CLOSED}],
                    other,
                )


def run_config(
    bench: Bench, sections: Sequence[str], path: Path, corpora: Mapping[str, Corpus], work: Path
) -> None:
    """Measure the user's own cascade, on its held-out rows."""
    built = pair_of_config(path, work)
    _run_scene(bench, sections, _scene(bench, built, corpora[HELD_OUT]))


def _scene(bench: Bench, built: BuiltPair, corpus: Corpus) -> Scene:
    name = name_of_scene(built.pair, corpus)
    scene = make_scene(built, corpus, bench.scratch / name, bench.data(name), bench.plan)
    bench.record.pin(name, work_of_scene(scene))
    return scene


def _run_scene(bench: Bench, sections: Sequence[str], scene: Scene) -> None:
    with bench.serve(scene) as side:
        with ExitStack() as stack:  # other servers are gone before the next section
            others: list[Contender] = []
            if CLOSED in sections:
                others = bench.serve_other_settings(stack, scene)
                others += _others(stack, bench, scene, side)
            for repeat in range(bench.plan.repeats):
                if LIMIT in sections and not scene.built.steps.uses_plans:
                    measure_limits(bench, scene, repeat)
                if CLOSED in sections:
                    measure_closed(side, others, repeat)
        if OPEN in sections:
            with ExitStack() as stack:
                measure_mixed_load(side, bench.serve_other_settings(stack, scene))
        if SHARES in sections:
            measure_shares(side, bench.plan.sweep_shares)
        if ROWS in sections:
            measure_batched(side)
        if GATE in sections:
            measure_gate_price(side)
    if ACCURACY in sections and scene.built.pair.labelled:
        measure_accuracy(bench, scene, bench.plan.sweep_shares)
    if SWEEP in sections:
        measure_instances(bench, scene)
        measure_cores(bench, scene)
        measure_batches(bench, scene)
        measure_calls(bench, scene)
    if STARTUP in sections:
        measure_startup(bench, scene)
        measure_client(bench)


def _others(stack: ExitStack, bench: Bench, scene: Scene, side: TritonSide) -> list[Contender]:
    if not bench.peers:
        return []
    found = client_side(side)
    if not scene.built.steps.uses_plans:
        found += [*processes(bench, scene), *other_servers(stack, bench, scene)]
    return found
