"""What the gate costs: a cascade of one member over its stage called directly.

The gate takes text, tokenises it, asks the stage and decides; a caller of the stage itself
tokenises first and sends token ids. So the cost is the median latency of the one-member cascade
over the median of the direct call plus the median of tokenising the same rows in a process.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cascadebert_build.errors import BuildError, UsageError
from cascadebert_build.serve import serve_cascades
from cascadebert_build.tritonserver import Ports
from cascadebert_build.versions import newest_version
from cascadebert_core.contract import TOKENIZER_FILE, TOKENIZERS_FOLDER
from cascadebert_core.policy import StagePolicy
from cascadebert_core.tokenization import Encoder, Text

from .binary import find_binary
from .built import RESULTS, BuiltCascade, add_cascade_arguments, built_cascade
from .corpus import rows_of_fullest_bucket, write_texts, write_tokens
from .perf_analyzer import Load, PerfAnalyzer
from .report import Ratio, context, ratio_of, write_report
from .repository import copy_cascade, install_one_member
from .window import Meter, Window

_TOKENISED_REQUESTS = 500


@dataclass(frozen=True, slots=True)
class Trio:
    """One repeat.

    Attributes:
        gate: the one-member cascade, given text.
        stage: the stage itself, given token ids.
        tokenise_ms: median of tokenising the rows of one request.
    """

    gate: Window
    stage: Window
    tokenise_ms: float

    @property
    def direct_ms(self) -> float:
        """What a caller without the gate pays: the median call and the median tokenisation."""
        return self.stage.all.p50_ms + self.tokenise_ms


@dataclass(frozen=True, slots=True)
class GateCost:
    """Figures at one number of rows in a request; medians over the repeats.

    Attributes:
        rows: of one request.
        padded_length: of all rows, in tokens; None where each request has its own.
        gate_ms, stage_ms, tokenise_ms: medians.
        ratio: gate over stage and tokenisation, repeat by repeat.
    """

    rows: int
    padded_length: int | None
    gate_ms: float
    stage_ms: float
    tokenise_ms: float
    ratio: Ratio


@dataclass(frozen=True, slots=True)
class Requests:
    """The same rows as text and as token ids, on disk for perf_analyzer."""

    rows: int
    padded_length: int | None
    texts: list[Text]
    text_data: Path
    token_data: Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 done, 1 a check failed, 2 wrong use or bad input."""
    args = _parser().parse_args(argv)
    # As in the server: one request's rows are tokenised on one thread.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        _run(args)
    except BuildError as exc:
        sys.stderr.write(f"benchmarks.gate_cost: {exc}\n")
        return exc.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate_cost", description=__doc__)
    add_cascade_arguments(parser)
    parser.add_argument(
        "--stage", type=int, default=0, help="which member, from 0 on (default: %(default)s)"
    )
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1, 32], help="rows of a request (default: 1 32)"
    )
    parser.add_argument(
        "--window-s", type=float, default=9.0, help="of one measurement (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=6, help="default: %(default)s")
    parser.add_argument(
        "--wait-quiet-s", type=float, default=0.0,
        help="before each window, wait so long at most for others to leave the machine",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=RESULTS, metavar="DIR",
        help="for gate_cost.json (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout")
    return parser


def _run(args: argparse.Namespace) -> None:
    binary = find_binary()
    cascade = built_cascade(args)
    if not 0 <= args.stage < len(cascade.policy.stages):
        raise UsageError(f"--stage {args.stage}: give 0 to {len(cascade.policy.stages) - 1}")
    stage = cascade.policy.stages[args.stage]
    rows: list[dict[str, Any]] = []
    costs: list[GateCost] = []
    trios: list[Trio] = []
    with tempfile.TemporaryDirectory(prefix="cascadebert-bench-") as scratch:
        repository = Path(scratch) / "models"
        copy_cascade(cascade.repository, cascade.name, repository)
        gate = install_one_member(repository, cascade.name, args.stage)
        encoder = _encoder(cascade, stage)
        with serve_cascades(repository, [gate], ports=Ports(0, 0, 0)) as server:
            assert server.pid is not None
            meter = Meter(PerfAnalyzer(binary, server.url), server.pid, args.wait_quiet_s)
            for n in args.rows:
                load = Load(concurrency=1, rows=n, window_s=args.window_s)
                requests = _requests(Path(scratch), cascade, stage, encoder, n)
                of_n = _measure(
                    meter, gate, stage, encoder, requests, load=load, repeats=args.repeats
                )
                shared = context(
                    "benchmarks.gate_cost", cascade, meter.analyzer, load, [stage.model]
                )
                rows += [
                    shared
                    | {"repeat": i, "tokenise_ms": trio.tokenise_ms}
                    | {"padded_length": requests.padded_length}
                    | asdict(window)
                    for i, trio in enumerate(of_n)
                    for window in (trio.gate, trio.stage)
                ]
                costs.append(cost_of(requests, of_n))
                trios += of_n
    summary = {"stage": stage.model, "costs": [asdict(cost) for cost in costs]}
    write_report(args.out / "gate_cost.json", summary, rows)
    print(json.dumps(summary) if args.json else render(stage.model, costs, trios))


def _encoder(cascade: BuiltCascade, stage: StagePolicy) -> Encoder:
    model = cascade.repository / cascade.name
    folder = model / str(newest_version(model)) / TOKENIZERS_FOLDER / stage.tokenizer
    return Encoder(folder / TOKENIZER_FILE, stage.max_length)


def _requests(
    folder: Path, cascade: BuiltCascade, stage: StagePolicy, encoder: Encoder, rows: int
) -> Requests:
    texts, length = list(cascade.rows.texts), None
    if rows > 1:
        length, texts = rows_of_fullest_bucket(texts, encoder, stage)
    return Requests(
        rows,
        length,
        texts,
        write_texts(folder / f"texts-{rows}.json", texts),
        write_tokens(folder / f"tokens-{rows}.json", texts, encoder, stage),
    )


def _measure(
    meter: Meter,
    gate: str,
    stage: StagePolicy,
    encoder: Encoder,
    requests: Requests,
    *,
    load: Load,
    repeats: int,
) -> list[Trio]:
    """Trios of measurements; which model comes first changes from repeat to repeat."""
    data = {gate: requests.text_data, stage.model: requests.token_data}
    for model, path in data.items():
        meter.analyzer.profile(model, path, Load(concurrency=1, rows=load.rows, window_s=3.0))
    trios: list[Trio] = []
    for i in range(repeats):
        windows: dict[str, Window] = {}
        for model in list(data)[:: 1 if i % 2 == 0 else -1]:
            windows[model], _ = meter.measure(model, data[model], load)
        trio = Trio(
            windows[gate], windows[stage.model], tokenise_ms(encoder, requests.texts, load.rows)
        )
        sys.stderr.write(
            f"{load.rows} rows, repeat {i + 1}/{repeats}  gate {trio.gate.all.p50_ms:.2f} ms  "
            f"stage {trio.stage.all.p50_ms:.2f} ms + tokenising {trio.tokenise_ms:.2f} ms  others "
            f"{trio.gate.others_cores:.2f}, {trio.stage.others_cores:.2f} cores\n"
        )
        trios.append(trio)
    return trios


def tokenise_ms(encoder: Encoder, texts: Sequence[Text], rows: int) -> float:
    """Median time to tokenise the rows of one request, in this process."""
    taken_ms: list[float] = []
    for start in range(min(_TOKENISED_REQUESTS, len(texts))):
        request = [texts[(start + i) % len(texts)] for i in range(rows)]
        began_s = time.perf_counter()
        encoder.encode(request)
        taken_ms.append((time.perf_counter() - began_s) * 1000)
    return median(taken_ms)


def cost_of(requests: Requests, trios: Sequence[Trio]) -> GateCost:
    """The figures of one number of rows."""
    return GateCost(
        rows=requests.rows,
        padded_length=requests.padded_length,
        gate_ms=median(trio.gate.all.p50_ms for trio in trios),
        stage_ms=median(trio.stage.all.p50_ms for trio in trios),
        tokenise_ms=median(trio.tokenise_ms for trio in trios),
        ratio=ratio_of(
            [trio.gate.all.p50_ms for trio in trios], [trio.direct_ms for trio in trios]
        ),
    )


def render(model: str, costs: Sequence[GateCost], trios: Sequence[Trio]) -> str:
    """The table."""
    busiest = max(max(trio.gate.others_cores, trio.stage.others_cores) for trio in trios)
    lines = [
        f"{model}: medians in ms at concurrency 1; other processes used at most "
        f"{busiest:.2f} cores",
        "",
        f"{'rows':>4}{'tokens':>9}{'one-member cascade':>20}{'stage':>9}{'tokenising':>12}"
        "   ratio (lowest–highest repeat)",
    ]
    lines += [
        f"{cost.rows:>4}{cost.padded_length or 'various':>9}{cost.gate_ms:>20.2f}"
        f"{cost.stage_ms:>9.2f}{cost.tokenise_ms:>12.2f}   {cost.ratio}"
        for cost in costs
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
