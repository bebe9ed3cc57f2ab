"""The sections in their order, scene by scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .bench import Bench
from .corpora import MIXED, SHORT, Corpus
from .pairs import Pair, build_pair
from .scene import Scene, make_scene
from .sections.accuracy import measure_accuracy
from .sections.closed import measure_closed
from .sections.gate import measure_gate_price
from .sections.mixed_load import measure_mixed_load
from .sections.shares import measure_shares
from .sections.sweep import measure_batches, measure_cores, measure_instances

CLOSED, OPEN, SHARES, GATE = "closed", "open", "shares", "gate"
ACCURACY, SWEEP = "accuracy", "sweep"
SECTIONS = (CLOSED, OPEN, SHARES, GATE, ACCURACY, SWEEP)


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
    for i, pair in enumerate(pairs):
        built = build_pair(pair, corpora[SHORT], work, checkpoints)
        folder = bench.scratch / pair.name
        scene = make_scene(built, corpora[SHORT], folder / SHORT, bench.plan)
        _run_scene(bench, sections, scene)
        if not pair.trained and i == len(pairs) - 1:
            mixed = make_scene(built, corpora[MIXED], folder / MIXED, bench.plan)
            _run_scene(bench, [s for s in sections if s == CLOSED], mixed)


def _run_scene(bench: Bench, sections: Sequence[str], scene: Scene) -> None:
    if {CLOSED, OPEN, SHARES, GATE} & set(sections):
        with bench.serve(scene) as side:
            if CLOSED in sections:
                measure_closed(side, [])
            if OPEN in sections:
                measure_mixed_load(side)
            if SHARES in sections:
                measure_shares(side, bench.plan.sweep_shares)
            if GATE in sections:
                measure_gate_price(side)
    if ACCURACY in sections and scene.built.pair.trained:
        measure_accuracy(bench, scene, bench.plan.sweep_shares)
    if SWEEP in sections:
        measure_instances(bench, scene)
        measure_cores(bench, scene)
        measure_batches(bench, scene)
