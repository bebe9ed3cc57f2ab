"""Run the sections in their order, workload by workload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from .bench import Bench
from .classifier_contenders import classifiers
from .contender import Contender
from .corpora import HELD_OUT, SHORT, Corpus
from .names import ACCURACY, CLOSED, GATE, LIMIT, OPEN, ROWS, SHARES, STARTUP, SWEEP
from .other_contenders import client_side, other_servers, over_http
from .pairs import BuiltPair, Pair, build_pair, pair_of_config
from .sections.accuracy import measure_accuracy
from .sections.limit import measure_limits
from .sections.loads import (
    measure_closed_loop,
    measure_gate_price,
    measure_open_loop,
    measure_rows_per_request,
    measure_shares,
    saturation_rps,
)
from .sections.startup import measure_client, measure_startup
from .sections.sweeps import measure_sweeps
from .workload import make_workload, name_of_workload, work_of_workload

# The sections of one server that is up for all of them, in their order after the closed loops.
_SERVED = {
    OPEN: measure_open_loop,
    SHARES: measure_shares,
    ROWS: measure_rows_per_request,
    GATE: measure_gate_price,
}


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
        bench: The run.
        sections: Some of `names.SECTIONS`.
        pairs: The pairs of members.
        corpora: The texts.
        work: The folder for artefacts.
        checkpoints: The folder of the fine-tuned checkpoints.

    Raises:
        UsageError: Open loops are asked for without the closed loops that they need.
    """
    chosen = {pair: [name for name in sections if name in pair.sections] for pair in pairs}
    for pair, own in chosen.items():
        if OPEN in own and CLOSED not in own:  # fail now, and not after minutes of building
            saturation_rps(bench.record, name_of_workload(pair, corpora[pair.texts[0]]))
    plan = bench.plan
    few = replace(plan, concurrencies=(plan.concurrencies[0], plan.many))
    for pair, own in chosen.items():
        built = build_pair(pair, corpora[SHORT], work, checkpoints)
        first, *others = pair.texts
        peers = bench.peers and pair.peers
        _run_workload(replace(bench, peers=peers), own, built, corpora[first])
        for text in others:  # other lengths: Triton's contenders, one client and many
            some = [name for name in own if name in {LIMIT, CLOSED}]
            _run_workload(replace(bench, plan=few, peers=False), some, built, corpora[text])


def run_config(
    bench: Bench, sections: Sequence[str], path: Path, corpora: Mapping[str, Corpus], work: Path
) -> None:
    """Measure the user's own cascade on its held-out rows."""
    _run_workload(bench, sections, pair_of_config(path, work), corpora[HELD_OUT])


def _run_workload(bench: Bench, sections: Sequence[str], built: BuiltPair, corpus: Corpus) -> None:
    name = name_of_workload(built.pair, corpus)
    workload = make_workload(built, corpus, bench.scratch / name, bench.data(name), bench.plan)
    bench.record.pin(name, work_of_workload(workload))
    on_cores = not built.steps.uses_plans  # engines share a device
    with bench.serve(workload) as side:
        with ExitStack() as stack:  # other servers end before the next section
            others: list[Contender] = []
            if CLOSED in sections and bench.peers:
                others += [*client_side(side), *over_http(side)]
                if on_cores:
                    others += other_servers(stack, bench, workload)
                    others += classifiers(stack, bench, workload)
            for repeat in range(bench.plan.repeats):
                if LIMIT in sections and on_cores:
                    measure_limits(bench, workload, repeat)
                if CLOSED in sections:
                    measure_closed_loop(side, others, repeat)
        for section, measure in _SERVED.items():
            if section in sections:
                measure(side)
    if ACCURACY in sections and built.pair.labelled:
        measure_accuracy(bench, workload)
    if SWEEP in sections:
        measure_sweeps(bench, workload)
    if STARTUP in sections:
        measure_startup(bench, workload)
        measure_client(bench)
