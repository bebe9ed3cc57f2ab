"""What the client adds to tritonclient, over a cascade whose stages cost nothing.

    python -m benchmarks.calls --glue GLUE
    python -m benchmarks.calls --quick

Three tables, each of one run in which the compared take turns: CPU and time of one call with
`CascadeClient.classify` over the same call with bare tritonclient; requests per second of
`classify_stream` with 1, 2, 4 and 8 channels; and the same over those of perf_analyzer with equal
rows per request and requests in flight.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import tritonclient.grpc as triton

from cascadebert_build.errors import UsageError
from cascadebert_build.server.ports import Ports
from cascadebert_build.server.serve import serve_cascades
from cascadebert_client import CascadeClient

from ..ceiling.repository import NULL, cascade_name, publish, write_tokenizer
from ..suite.corpora import corpora
from ..tools.command import add_common, add_number, as_json, new_parser, run_command
from ..tools.machine import this_machine, wait_until_quiet
from ..tools.perf_analyzer import Load, PerfAnalyzer
from ..tools.perf_analyzer_binary import find_binary
from ..tools.ratio import ratio_of
from ..tools.request_data import write_texts
from .callers import bare_caller, call_costs, client_caller, stream_rate

_DEFERRED = 0.25
_CHANNELS = (1, 2, 4, 8)
# Rows of a request, and requests in flight.
_STREAMS = ((1, 8), (1, 32), (16, 8))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench."""
    return run_command(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("calls", __doc__)
    add_number(parser, "--turns", 5, "turns of each comparison")
    add_number(parser, "--calls", 1000, "calls of a turn, one after the other")
    add_number(parser, "--window-s", 5.0, "seconds of a window of a stream")
    add_common(parser, "calls", before="turn")
    return parser


def _run(args: argparse.Namespace) -> None:
    for flag in ("turns", "calls"):
        if getattr(args, flag) < 1:
            raise UsageError(f"--{flag} {getattr(args, flag)}: give 1 or more")
    if args.quick:
        args.turns, args.calls, args.window_s = 1, 50, 0.5
    args.ramp_s = min(1.0, args.window_s)
    texts = [text for text in corpora(args.glue)["short"].texts if isinstance(text, str)]
    model = cascade_name(_DEFERRED)
    with tempfile.TemporaryDirectory(prefix="cascadebert-calls-") as folder:
        scratch = Path(folder)
        tokenizer = write_tokenizer(scratch / "tokenizer.json", texts)
        publish(scratch / "repository", tokenizer, NULL, [_DEFERRED])
        with serve_cascades(scratch / "repository", [model], ports=Ports(0, 0, 0)) as server:
            tables = {
                "One call": _calls(args, server.url, model, texts),
                "Channels": _channels(args, server.url, model, texts),
                "Streams": _streams(args, server.url, model, texts, scratch),
            }
    args.out.mkdir(parents=True, exist_ok=True)
    command = f"python -m benchmarks.calls {shlex.join(sys.argv[1:])}"
    machine = this_machine()
    figures = {name: table.to_dict(orient="records") for name, table in tables.items()}
    (args.out / "calls.json").write_text(
        as_json({"command": command, "machine": asdict(machine), **figures})
    )
    page = [
        f"# Calls\n\n`{command}`, commit {machine.commit}, {machine.cores} cores of "
        f"{machine.cpu}, {machine.date}. Medians of {args.turns} turns; brackets: lowest, highest."
    ]
    page += [
        f"## {name}\n\n{table.to_markdown(index=False, floatfmt='.4g')}"
        for name, table in tables.items()
    ]
    (args.out / "RESULTS.md").write_text("\n\n".join(page) + "\n")
    print((args.out / "RESULTS.md").read_text())


def _calls(args: argparse.Namespace, url: str, model: str, texts: Sequence[str]) -> pd.DataFrame:
    """CPU and time of a call, one after the other."""
    found: dict[str, list[float]] = defaultdict(list)
    with triton.InferenceServerClient(url) as bare, CascadeClient(url, model, channels=1) as client:
        callers = [bare_caller(bare, model), client_caller(client)]
        call_costs(callers, texts, 20)  # the first calls connect
        for turn in range(args.turns):
            _begin(args, f"one call, turn {turn + 1} of {args.turns}")
            for name, cost in zip(
                ("bare", "client"), call_costs(callers, texts, args.calls), strict=True
            ):
                found[f"{name} CPU us"].append(cost.cpu_us)
                found[f"{name} us"].append(cost.wall_us)
    rows = [
        {
            "of a call": what,
            "tritonclient, us": pd.Series(found[f"bare {what}"]).median(),
            "client, us": pd.Series(found[f"client {what}"]).median(),
            "client / tritonclient": str(ratio_of(found[f"client {what}"], found[f"bare {what}"])),
        }
        for what in ("CPU us", "us")
    ]
    return pd.DataFrame(rows).replace({"CPU us": "CPU", "us": "time"})


def _channels(args: argparse.Namespace, url: str, model: str, texts: Sequence[str]) -> pd.DataFrame:
    """Requests per second by the number of channels."""
    rates: dict[tuple[int, int], list[float]] = defaultdict(list)
    cpu: dict[tuple[int, int], list[float]] = defaultdict(list)
    for turn in range(args.turns):
        for concurrency in (8, 32):
            for channels in _CHANNELS[:: 1 if turn % 2 else -1]:
                _begin(args, f"{channels} channels, {concurrency} in flight, turn {turn + 1}")
                with CascadeClient(url, model, channels=channels) as client:
                    rate, cpu_us = stream_rate(
                        client, texts, rows_per_request=1, concurrency=concurrency,
                        window_s=args.window_s, ramp_s=args.ramp_s,
                    )  # fmt: skip
                rates[concurrency, channels].append(rate)
                cpu[concurrency, channels].append(cpu_us)
    return pd.DataFrame(
        {
            "in flight": concurrency,
            "channels": channels,
            "requests/s": pd.Series(rates[concurrency, channels]).median(),
            "CPU us a request": pd.Series(cpu[concurrency, channels]).median(),
            "over 1 channel": str(
                ratio_of(rates[concurrency, channels], rates[concurrency, _CHANNELS[0]])
            ),
        }
        for concurrency in (8, 32)
        for channels in _CHANNELS
    )


def _streams(
    args: argparse.Namespace, url: str, model: str, texts: Sequence[str], scratch: Path
) -> pd.DataFrame:
    """Requests per second of `classify_stream` and of perf_analyzer."""
    perf = PerfAnalyzer(find_binary(), url)
    data = write_texts(scratch / "texts.json", texts)
    ours: dict[tuple[int, int], list[float]] = defaultdict(list)
    theirs: dict[tuple[int, int], list[float]] = defaultdict(list)
    for turn in range(args.turns):
        for rows, concurrency in _STREAMS:
            _begin(args, f"streams of {rows} rows, {concurrency} in flight, turn {turn + 1}")
            with CascadeClient(url, model) as client:
                rate, _ = stream_rate(
                    client, texts, rows_per_request=rows, concurrency=concurrency,
                    window_s=args.window_s, ramp_s=args.ramp_s,
                )  # fmt: skip
            ours[rows, concurrency].append(rate)
            # perf_analyzer's window includes the ramp.
            load = Load(concurrency, rows, window_s=args.window_s + args.ramp_s)
            theirs[rows, concurrency].append(perf.measure(model, data, load).throughput_rps)
    return pd.DataFrame(
        {
            "rows a request": rows,
            "in flight": concurrency,
            "classify_stream, requests/s": pd.Series(ours[rows, concurrency]).median(),
            "perf_analyzer, requests/s": pd.Series(theirs[rows, concurrency]).median(),
            "ratio": str(ratio_of(ours[rows, concurrency], theirs[rows, concurrency])),
        }
        for rows, concurrency in _STREAMS
    )


def _begin(args: argparse.Namespace, what: str) -> None:
    """Say what is measured next, and wait for a quiet machine."""
    print(what, file=sys.stderr, flush=True)
    _wait_quiet(args)


def _wait_quiet(args: argparse.Namespace) -> None:
    if args.wait_quiet_s > 0:
        wait_until_quiet(args.wait_quiet_s)


if __name__ == "__main__":
    sys.exit(main())
