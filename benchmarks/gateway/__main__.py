"""What the gateway costs over the asyncio client, beside Triton's own ways to take JSON.

    python -m benchmarks.gateway --glue GLUE
    python -m benchmarks.gateway --quick

A cascade whose stages cost nothing is asked by 16 callers, each with one text at a time: with the
asyncio client; over HTTP through the gateway (`/classify`, `/predict`); over HTTP to Triton itself
(`generate`, and KServe's protocol as JSON). They take turns. "CPU" is microseconds of a process
for a request: of the client or the gateway, of tritonserver, and of the cascade's Python model.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.server.ports import Ports
from cascadebert_build.server.serve import serve_cascades
from cascadebert_build.server.tritonserver import TritonServer

from ..ceiling.processes import BLS, SERVER, cpu_seconds, processes_of_triton
from ..ceiling.repository import NULL, cascade_name, publish, write_tokenizer
from ..peers.triton_http import GENERATE, INFER
from ..suite.corpora import corpora
from ..tools.command import (
    add_common,
    add_number,
    as_json,
    new_parser,
    run_command,
    say,
)
from ..tools.machine import this_machine, wait_until_quiet
from ..tools.ratio import ratio_of
from .loads import Loop, Shape, client_loop, http_loop, in_own_process

_DEFERRED = 0.25
_CLIENT = "asyncio client"
_ON_UVLOOP = "asyncio client, uvloop"
_CLASSIFY = "gateway, /classify"
_PREDICT = "gateway, /predict"
_GENERATE = "Triton, generate"
_INFER = "Triton, KServe JSON"
_GATEWAY = "gateway"
_CALLERS = "callers"
_MOST = 1.3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench."""
    return run_command(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("gateway", __doc__)
    add_number(parser, "--turns", 5, "turns of each way")
    add_number(parser, "--clients", 16, "callers, each with one request in flight")
    add_number(parser, "--window-s", 5.0, "seconds of a window, after one of ramp")
    add_common(parser, "gateway", before="window")
    return parser


def _run(args: argparse.Namespace) -> None:
    if min(args.turns, args.clients) < 1:
        raise UsageError("--turns and --clients: give 1 or more")
    if args.quick:
        args.turns, args.window_s = 1, min(args.window_s, 1.0)
    texts = [text for text in corpora(args.glue)["short"].texts if isinstance(text, str)]
    model = cascade_name(_DEFERRED)
    with tempfile.TemporaryDirectory(prefix="cascadebert-gateway-") as folder:
        scratch = Path(folder)
        tokenizer = write_tokenizer(scratch / "tokenizer.json", texts)
        publish(scratch / "repository", tokenizer, NULL, [_DEFERRED])
        with (
            serve_cascades(scratch / "repository", [model], ports=Ports(0, 0, 0)) as server,
            _gateway(server.url, model) as gateway,
        ):
            table, ratios = _measure(args, server, gateway, model, texts)
    _write(args, table, ratios)


@contextmanager
def _gateway(url: str, model: str) -> Generator[tuple[int, int], None, None]:
    """Run a gateway as a user starts it, and give its port and its process."""
    script = "import sys; from cascadebert_build.cli import main; sys.exit(main())"
    command = [
        sys.executable, "-c", script, "gateway", "--url", url, "--model", model, "--port", "0",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        if not first.startswith("gateway: http://"):
            raise CheckFailed(f"the gateway did not start: {first!r}")
        yield int(first.split("/")[2].rpartition(":")[2]), process.pid
    finally:
        process.terminate()
        process.wait(60)


def _measure(
    args: argparse.Namespace,
    server: TritonServer,
    gateway: tuple[int, int],
    model: str,
    texts: Sequence[str],
) -> tuple[pd.DataFrame, dict[str, str]]:
    port, pid = gateway
    triton_port = server.ports.http
    shape = Shape(args.clients, args.window_s)

    def http(at: int, path: str, payload: Callable[[str], object]) -> Callable[[], Loop]:
        bodies = [json.dumps(payload(text)).encode() for text in texts]
        return lambda: in_own_process(http_loop, at, path, bodies, shape)

    def client(*, on_uvloop: bool) -> Loop:
        return in_own_process(client_loop, server.url, model, texts, shape, on_uvloop=on_uvloop)

    ways: dict[str, Callable[[], Loop]] = {
        _CLIENT: lambda: client(on_uvloop=False),
        _ON_UVLOOP: lambda: client(on_uvloop=True),
        _CLASSIFY: http(port, "/classify", lambda text: {"text": text}),
        _PREDICT: http(port, "/predict", lambda text: {"inputs": text}),
        _GENERATE: http(triton_port, GENERATE.path(model), GENERATE.payload),
        _INFER: http(triton_port, INFER.path(model), INFER.payload),
    }
    processes = {**processes_of_triton(server, model), _GATEWAY: [pid]}
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for turn in range(args.turns):
        for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
            if args.wait_quiet_s > 0:
                wait_until_quiet(args.wait_quiet_s)
            before = cpu_seconds(processes)
            loop = ways[name]()
            after = cpu_seconds(processes)
            figures = found[name]
            figures["requests/s"].append(loop.requests / loop.wall_s)
            figures[_CALLERS].append(1e6 * loop.cpu_s / loop.requests)
            for kind, used in after.items():
                figures[kind].append(1e6 * (used - before[kind]) / loop.all_requests)
            say(f"turn {turn + 1}, {name}: {loop.requests / loop.wall_s:.0f} requests/s")
    return _table(found), _ratios(found)


def _table(found: Mapping[str, Mapping[str, Sequence[float]]]) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for name, figures in found.items():
        middle = {kind: float(pd.Series(values).median()) for kind, values in figures.items()}
        ours = {_CLIENT: _CALLERS, _ON_UVLOOP: _CALLERS, _CLASSIFY: _GATEWAY, _PREDICT: _GATEWAY}
        rows.append(
            {
                "way": name,
                "requests/s": middle["requests/s"],
                "client or gateway, CPU us": middle[ours[name]] if name in ours else 0.0,
                "tritonserver, CPU us": middle[SERVER],
                "cascade, CPU us": middle[BLS],
            }
        )
    return pd.DataFrame(rows)


def _ratios(found: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, str]:
    client, on_uvloop = found[_CLIENT][_CALLERS], found[_ON_UVLOOP][_CALLERS]
    return {
        f"{name}, over {over}": str(ratio_of(found[name][_GATEWAY], figures))
        for name in (_CLASSIFY, _PREDICT)
        for over, figures in ((_CLIENT, client), (_ON_UVLOOP, on_uvloop))
    }


def _write(args: argparse.Namespace, table: pd.DataFrame, ratios: Mapping[str, str]) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "-m", "benchmarks.gateway", *sys.argv[1:]])
    machine = this_machine()
    record = {
        "command": command,
        "machine": asdict(machine),
        "ways": table.to_dict(orient="records"),
        "CPU of the gateway": ratios,
    }
    (args.out / "gateway.json").write_text(as_json(record), encoding="utf-8")
    lines = [f"| {name} | {ratio} |" for name, ratio in ratios.items()]
    page = [
        "# Gateway",
        f"`{command}`, commit {machine.commit}, {machine.cores} cores of {machine.cpu}, "
        f"{machine.date}. {args.clients} callers with one text each; "
        f"medians of {args.turns} turns.",
        str(table.to_markdown(index=False, floatfmt=".0f")),
        f"CPU of a request in the gateway, over that in the client; the target is {_MOST} for "
        f"{_CLASSIFY} over {_CLIENT}. Brackets: lowest, highest.",
        "\n".join(["| | ratio |", "|---|---|", *lines]),
    ]
    (args.out / "RESULTS.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    print((args.out / "RESULTS.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
