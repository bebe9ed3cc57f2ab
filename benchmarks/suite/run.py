"""The sections in their order, scene by scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from .bench import Bench
from .corpora import HELD_OUT, LONG, MIXED, SHORT, Corpus
from .others import client_side, other_servers, processes
from .pairs import SHAPES, Pair, build_pair, pair_of_config
from .scene import Scene, make_scene
from .sections.accuracy import measure_accuracy
from .sections.batched import measure_batched
from .sections.closed import measure_closed
from .sections.gate import measure_gate_price
from .sections.limit import measure_limits
from .sections.mixed_load import measure_mixed_load
from .sections.shares import measure_shares
from .sections.startup import measure_client, measure_startup
from .sections.sweep import measure_batches, measure_calls, measure_cores, measure_instances

LIMIT, CLOSED, OPEN, SHARES, ROWS = "limit", "closed", "open", "shares", "rows"
GATE, ACCURACY, SWEEP, STARTUP = "gate", "accuracy", "sweep", "startup"
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
    """
    for pair in pairs:
        built = build_pair(pair, corpora[SHORT], work, checkpoints)
        folder = bench.scratch / pair.name
        scene = make_scene(built, corpora[SHORT], folder / SHORT, bench.plan)
        swept = pair is not pairs[-1] or len(pairs) == 1
        _run_scene(bench, [s for s in sections if s != SWEEP or swept], scene)
        if pair is SHAPES[0]:  # other lengths of text, Triton's contenders alone
            for name in (LONG, MIXED):
                other = make_scene(built, corpora[name], folder / name, bench.plan)
                few = [s for s in sections if s in {LIMIT, CLOSED}]
                _run_scene(replace(bench, peers=False), few, other)


def run_config(
    bench: Bench, sections: Sequence[str], path: Path, corpora: Mapping[str, Corpus], work: Path
) -> None:
    """Measure the user's own cascade, on its held-out rows."""
    built = pair_of_config(path, work)
    scene = make_scene(built, corpora[HELD_OUT], bench.scratch / "own", bench.plan)
    _run_scene(bench, sections, scene)


def _run_scene(bench: Bench, sections: Sequence[str], scene: Scene) -> None:
    if LIMIT in sections and not scene.built.steps.uses_plans:
        measure_limits(bench, scene)
    if {CLOSED, OPEN, SHARES, ROWS, GATE} & set(sections):
        with ExitStack() as stack:
            side = stack.enter_context(bench.serve(scene))
            if CLOSED in sections:
                others = client_side(side) if bench.peers else []
                if bench.peers and not scene.built.steps.uses_plans:
                    others += [*processes(scene), *other_servers(stack, bench, scene)]
                measure_closed(side, others)
            if OPEN in sections:
                measure_mixed_load(side)
            if SHARES in sections:
                measure_shares(side, bench.plan.sweep_shares)
            if ROWS in sections:
                measure_batched(side)
            if GATE in sections:
                measure_gate_price(side)
    if ACCURACY in sections and scene.built.pair.trained:
        measure_accuracy(bench, scene, bench.plan.sweep_shares)
    if SWEEP in sections:
        measure_instances(bench, scene)
        measure_cores(bench, scene)
        measure_batches(bench, scene)
        measure_calls(bench, scene)
    if STARTUP in sections:
        measure_startup(bench, scene)
        measure_client(bench)
