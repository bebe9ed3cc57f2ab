"""Run the sections in their order, workload by workload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from .bench import Bench, TritonSide
from .contender import Contender
from .corpora import HELD_OUT, LONG, MIXED, SHORT, Corpus
from .other_contenders import client_side, other_servers, processes
from .pairs import RANDOM_PAIRS, BuiltPair, Pair, build_pair, pair_of_config
from .sections.accuracy import measure_accuracy
from .sections.closed_loop import measure_closed_loop
from .sections.gate import measure_gate_price
from .sections.limit import measure_limits
from .sections.open_loop import measure_open_loop, saturation_rps
from .sections.rows_per_request import measure_rows_per_request
from .sections.shares import measure_shares
from .sections.startup import measure_client, measure_startup
from .sections.sweeps import measure_batches, measure_calls, measure_cores, measure_instances
from .workload import Workload, make_workload, name_of_workload, work_of_workload

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
        bench: The run.
        sections: Some of `SECTIONS`.
        pairs: The pairs of members.
        corpora: The texts.
        work: The folder for artefacts.
        checkpoints: The folder of the fine-tuned checkpoints.

    Raises:
        UsageError: Open loops are asked for without the closed loops that they need.
    """
    if OPEN in sections and CLOSED not in sections:
        for pair in pairs:
            if not pair.cost_only:  # fail now, and not after minutes of building
                saturation_rps(bench.record, name_of_workload(pair, corpora[SHORT]))
    for pair in pairs:
        built = build_pair(pair, corpora[SHORT], work, checkpoints)
        chosen = [s for s in sections if not pair.cost_only or s in _COST]
        if not pair.swept:
            chosen = [s for s in chosen if s != SWEEP]
        own = replace(bench, peers=bench.peers and pair.peers)
        _run_workload(own, chosen, _workload(bench, built, corpora[SHORT]))
        if pair is RANDOM_PAIRS[0]:  # other lengths: Triton's contenders, one client and many
            plan = bench.plan
            few = replace(plan, concurrencies=(plan.concurrencies[0], plan.many))
            for name in (LONG, MIXED):
                _run_workload(
                    replace(bench, plan=few, peers=False),
                    [s for s in sections if s in {LIMIT, CLOSED}],
                    _workload(bench, built, corpora[name]),
                )


def run_config(
    bench: Bench, sections: Sequence[str], path: Path, corpora: Mapping[str, Corpus], work: Path
) -> None:
    """Measure the user's own cascade on its held-out rows."""
    built = pair_of_config(path, work)
    _run_workload(bench, sections, _workload(bench, built, corpora[HELD_OUT]))


def _workload(bench: Bench, built: BuiltPair, corpus: Corpus) -> Workload:
    name = name_of_workload(built.pair, corpus)
    workload = make_workload(built, corpus, bench.scratch / name, bench.data(name), bench.plan)
    bench.record.pin(name, work_of_workload(workload))
    return workload


def _run_workload(bench: Bench, sections: Sequence[str], workload: Workload) -> None:
    with bench.serve(workload) as side:
        with ExitStack() as stack:  # other servers end before the next section
            others: list[Contender] = []
            if CLOSED in sections:
                others = bench.serve_other_settings(stack, workload)
                others += _others(stack, bench, workload, side)
            for repeat in range(bench.plan.repeats):
                if LIMIT in sections and not workload.built.steps.uses_plans:
                    measure_limits(bench, workload, repeat)
                if CLOSED in sections:
                    measure_closed_loop(side, others, repeat)
        if OPEN in sections:
            with ExitStack() as stack:
                measure_open_loop(side, bench.serve_other_settings(stack, workload))
        if SHARES in sections:
            measure_shares(side, bench.plan.sweep_shares)
        if ROWS in sections:
            measure_rows_per_request(side)
        if GATE in sections:
            measure_gate_price(side)
    if ACCURACY in sections and workload.built.pair.labelled:
        measure_accuracy(bench, workload, bench.plan.sweep_shares)
    if SWEEP in sections:
        for measure in (measure_instances, measure_cores, measure_batches, measure_calls):
            measure(bench, workload)
    if STARTUP in sections:
        measure_startup(bench, workload)
        measure_client(bench)


def _others(
    stack: ExitStack, bench: Bench, workload: Workload, side: TritonSide
) -> list[Contender]:
    if not bench.peers:
        return []
    found = client_side(side)
    if not workload.built.steps.uses_plans:
        found += [*processes(bench, workload), *other_servers(stack, bench, workload)]
    return found
