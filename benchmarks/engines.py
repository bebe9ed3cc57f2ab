"""Engines against PyTorch and ONNX Runtime on one GPU: latency and throughput, member by member.

Every contender gets the same padded rows of real text in host memory and gives logits in host
memory. Contenders may need environments of their own: `measure` writes one JSON file for one of
them, and `table` puts the files of one machine together.

    python -m benchmarks.engines prepare --folder shapes DATA --vocabulary CHECKPOINT
    python -m benchmarks.engines measure --config cascade.toml --contender tensorrt --output a
    python -m benchmarks.engines measure --config cascade.toml --contender torch-fp16 --output b
    python -m benchmarks.engines table a b
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.config import CascadeConfig, MemberConfig, config_from_file
from cascadebert_build.errors import BuildError, UsageError
from cascadebert_build.logits import stage_input
from cascadebert_build.reference import reference_from_file
from cascadebert_build.workspace import Workspace, workspace_of
from cascadebert_core.batching import pad_rows
from cascadebert_engine.errors import EngineError
from cascadebert_engine.files import read_json, write_json
from cascadebert_engine.machine import this_machine as gpu_machine

from .machine import this_machine

CONTENDERS = ("tensorrt", "tensorrt-graphs", "torch-fp16", "torch-fp32", "onnxruntime")
_WARM_UP_CALLS = 10

# Members that people run, with random weights: layers and width.
_SHAPES = {"l2-h128": (2, 128), "l12-h768": (12, 768)}

# Tensors of shape (rows, length) to logits of shape (rows, n_labels), both in host memory.
Run = Callable[[dict[str, NDArray[np.int32]]], Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One contender, member and shape.

    Attributes:
        rows, length: of a call.
        p50_ms, p99_ms: of a call's latency.
        rows_per_s: one call after the other.
    """

    contender: str
    member: str
    rows: int
    length: int
    calls: int
    p50_ms: float
    p99_ms: float
    rows_per_s: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    prepare = commands.add_parser("prepare", help="random members of the shapes that people run")
    prepare.add_argument("data", type=Path, help="a tsv file with a column `sentence`")
    prepare.add_argument("--folder", type=Path, required=True)
    prepare.add_argument("--vocabulary", required=True, help="a checkpoint with the tokenizer")
    prepare.set_defaults(run=_prepare)
    measure = commands.add_parser("measure", help="one contender, all members and shapes")
    measure.add_argument("--config", type=Path, required=True, metavar="cascade.toml")
    measure.add_argument("--contender", choices=CONTENDERS, required=True)
    measure.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    measure.add_argument("--batches", type=_numbers, default=(1, 8, 32, 128))
    measure.add_argument("--lengths", type=_numbers, default=(32, 128))
    measure.add_argument("--seconds", type=float, default=1.0, help="for every shape")
    measure.add_argument("--output", type=Path, required=True)
    measure.set_defaults(run=_measure)
    table = commands.add_parser("table", help="the files of `measure` as one table")
    table.add_argument("files", type=Path, nargs="+")
    table.set_defaults(run=_table)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except (BuildError, EngineError) as exc:
        sys.stderr.write(f"engines: {exc}\n")
        return 1


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _prepare(args: argparse.Namespace) -> int:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(args.vocabulary)
    lines = ['name = "shapes"']
    for name, (layers, width) in _SHAPES.items():
        transformers.set_seed(0)
        config = transformers.BertConfig(
            vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers,
            num_attention_heads=width // 64, intermediate_size=4 * width,
        )  # fmt: skip
        folder = args.folder / name
        transformers.BertForSequenceClassification(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        lines += ["[[members]]", f'name = "{name}"', f'checkpoint = "{name}"']
        # The same for both, though one stands behind the other here.
        lines += ["max_batch_size = 128", "opt_batch_size = 32"]
    lines += ["[data]", f'path = "{args.data.resolve()}"', 'text = "sentence"']
    lines += ["[runtime]", 'engine = "tensorrt"', "buckets = [32, 128]"]
    path = args.folder / "cascade.toml"
    path.write_text("\n".join(lines) + "\n")
    print(f"{path}: next, cascadebert export, verify and compile --step graph")
    return 0


def _measure(args: argparse.Namespace) -> int:
    if args.device == "cpu" and args.contender.startswith("tensorrt"):
        raise UsageError(f"--contender {args.contender} runs on a GPU: leave --device out")
    config = config_from_file(args.config)
    workspace = workspace_of(config, None)
    rows: list[Row] = []
    for member in config.members:
        run, close = _load(args.contender, args.device, config, workspace, member)
        for length in args.lengths:
            for batch in args.batches:
                tensors = _inputs(config, workspace, member, batch, length)
                rows.append(_time(run, tensors, args.contender, member.name, args.seconds))
                row = rows[-1]
                sys.stderr.write(
                    f"{row.contender:16} {row.member:10} {batch:4} x {length:3}: "
                    f"{row.p50_ms:8.2f} ms, {row.rows_per_s:9.0f} rows/s\n"
                )
        close()
    gpus = [gpu.name for gpu in gpu_machine().gpus]
    write_json(
        args.output,
        {
            "command": f"python -m benchmarks.engines {shlex.join(sys.argv[1:])}",
            "machine": asdict(this_machine()),
            "device": gpus[0] if args.device == "cuda" and gpus else "cpu",
            "rows": [asdict(row) for row in rows],
        },
    )
    return 0


def _inputs(
    config: CascadeConfig, workspace: Workspace, member: MemberConfig, batch: int, length: int
) -> dict[str, NDArray[np.int32]]:
    """Real rows that fit the length, each as often as it takes to fill the batch."""
    reference = reference_from_file(workspace.engine(member) / "reference.npz")
    fitting = [row for row in reference.rows if len(row) <= length]
    if not fitting:
        raise UsageError(f"no row of {member.name!r} has {length} tokens or less")
    rows = [fitting[i % len(fitting)] for i in range(batch)]
    stage = stage_input(config, workspace, member)
    return pad_rows(rows, stage.inputs, [length], stage.encoder.pad_id).tensors


def _time(
    run: Run, tensors: dict[str, NDArray[np.int32]], contender: str, member: str, seconds: float
) -> Row:
    for _ in range(_WARM_UP_CALLS):
        run(tensors)
    times: list[float] = []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        run(tensors)
        times.append(time.perf_counter() - before)
    batch, length = next(iter(tensors.values())).shape
    p50, p99 = (float(value) * 1e3 for value in np.percentile(times, (50, 99)))
    return Row(
        contender, member, batch, length, len(times), p50, p99, batch * len(times) / sum(times)
    )


def _load(
    contender: str, device: str, config: CascadeConfig, workspace: Workspace, member: MemberConfig
) -> tuple[Run, Callable[[], None]]:
    """How to run a member, and how to give its memory back."""
    if contender.startswith("tensorrt"):
        from cascadebert_engine.manifest import PLAN
        from cascadebert_engine.session import EngineSession

        plan = workspace.engine(member) / PLAN
        session = EngineSession(plan, cuda_graphs=contender == "tensorrt-graphs")
        return session.logits, session.close
    if contender == "onnxruntime":
        return _onnxruntime(workspace.onnx(member), device), lambda: None
    half = contender == "torch-fp16"
    return _torch(config.checkpoint(member), device, half=half), lambda: None


def _torch(checkpoint: str, device: str, *, half: bool) -> Run:
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        checkpoint, dtype=torch.float16 if half else torch.float32, attn_implementation="sdpa"
    )
    model = model.to(device).eval()

    def run(tensors: dict[str, NDArray[np.int32]]) -> Any:
        with torch.inference_mode():
            moved = {name: torch.from_numpy(array).to(device) for name, array in tensors.items()}
            return model(**moved).logits.float().cpu().numpy()

    return run


def _onnxruntime(path: Path, device: str) -> Run:
    import onnxruntime

    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise UsageError(
            f"ONNX Runtime has no {provider} here: install onnxruntime-gpu, or measure it on a cpu"
        )
    session = onnxruntime.InferenceSession(str(path), providers=[provider])
    if session.get_providers()[0] != provider:
        raise UsageError(f"ONNX Runtime's {provider} does not start: see its reason above")

    def run(tensors: dict[str, NDArray[np.int32]]) -> Any:
        return session.run(["logits"], tensors)[0]

    return run


def _table(args: argparse.Namespace) -> int:
    found = [read_json(path) or _unreadable(path) for path in args.files]
    devices = sorted({result["device"] for result in found})
    if len(devices) > 1:
        raise UsageError(f"the files are of several devices, {', '.join(devices)}: compare one")
    rows = [Row(**row) for result in found for row in result["rows"]]
    contenders = [name for name in CONTENDERS if any(row.contender == name for row in rows)]
    print(f"Device: {devices[0]}. Median of a call in ms, and rows/s.\n")
    print("| member | length | rows | " + " | ".join(contenders) + " |")
    print("|---|---:|---:|" + "---:|" * len(contenders))
    for member, length, batch in dict.fromkeys((r.member, r.length, r.rows) for r in rows):
        cells: list[str] = []
        for contender in contenders:
            row = next(
                (
                    r
                    for r in rows
                    if (r.contender, r.member, r.length, r.rows)
                    == (contender, member, length, batch)
                ),
                None,
            )
            cells.append("" if row is None else f"{row.p50_ms:.2f} ms, {row.rows_per_s:.0f}/s")
        print(f"| {member} | {length} | {batch} | " + " | ".join(cells) + " |")
    return 0


def _unreadable(path: Path) -> dict[str, Any]:
    raise UsageError(f"{path} is not a result of `measure`: measure again")


if __name__ == "__main__":
    sys.exit(main())
