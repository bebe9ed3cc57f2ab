r"""Compare runtimes of a member on one GPU or one CPU thread: latency and throughput.

Every runtime gets the same padded rows of real text in host memory and returns logits in host
memory. Some need an environment of their own: `measure` writes one JSON file for those that it is
given, and `table` combines the files of one machine. The contenders of one `measure` take turns,
call by call, so that a disturbance affects all of them.

    python -m benchmarks.tools.engines measure --config cascade.toml --contender tensorrt --output a
    python -m benchmarks.tools.engines measure --config cascade.toml --contender torch-fp16 \
        --output b
    python -m benchmarks.tools.engines table a b

    python -m benchmarks.tools.engines measure --config cascade.toml --device cpu --batches 1,8,32 \
        --contender onnxruntime onnxruntime-optimized onnxruntime-int8 openvino --output c
    python -m benchmarks.tools.engines table c --ratios onnxruntime

On a CPU everything runs on one thread. OpenVINO is set to FP32: by itself it would choose bfloat16.
`onnxruntime-optimized` and `onnxruntime-int8` run graphs made as by `cascadebert compile`.
`onnxruntime-dynamic` is ONNX Runtime's own dynamic quantisation of the same fused graph, for
comparison: its logits depend on the rest of the batch.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cascadebert_build as cascadebert
from cascadebert_build.config.rows import rows_from_source
from cascadebert_build.config.schema import CascadeConfig, MemberConfig
from cascadebert_build.errors import UsageError
from cascadebert_build.graphs.fused import fused_graph
from cascadebert_build.graphs.int8 import int8_graph
from cascadebert_build.graphs.int8_probe import PROBE, has_exact_products, write_probe
from cascadebert_build.pipeline.context import BuildContext
from cascadebert_build.pipeline.exported import exported_member
from cascadebert_build.pipeline.workspace import Workspace, workspace_of
from cascadebert_build.verification.reference import reference_from_file
from cascadebert_build.verification.sample import sample_of_texts
from cascadebert_core.batching import pad_rows
from cascadebert_engine.files import read_json, write_json
from cascadebert_engine.machine import this_machine as gpu_machine

from .command import new_parser, run_command, say
from .machine import this_machine
from .window import latency_of

_GPU_ONLY = ("tensorrt", "tensorrt-graphs", "torch-fp16")
_CPU_ONLY = ("onnxruntime-optimized", "onnxruntime-int8", "onnxruntime-dynamic", "openvino")
CONTENDERS = (*_GPU_ONLY, "torch-fp32", "onnxruntime", *_CPU_ONLY)
_WARM_UP_CALLS = {"cuda": 10, "cpu": 2}

# Tensors of shape (rows, length) to logits of shape (rows, n_labels), both in host memory.
Tensors = dict[str, NDArray[np.int32]]
Run = Callable[[Tensors], Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands."""
    parser = new_parser("tools.engines", __doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    measure = commands.add_parser("measure", help="measure contenders on all members and shapes")
    measure.add_argument("--config", type=Path, required=True, metavar="cascade.toml")
    measure.add_argument("--contender", choices=CONTENDERS, required=True, nargs="+")
    measure.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    measure.add_argument("--batches", type=_numbers, default=(1, 8, 32, 128))
    measure.add_argument("--lengths", type=_numbers, default=(32, 128))
    measure.add_argument("--seconds", type=float, default=1.0, help="for every shape and contender")
    measure.add_argument("--output", type=Path, required=True)
    measure.set_defaults(run=_measure)
    table = commands.add_parser("table", help="combine the files of `measure` in one table")
    table.add_argument("files", type=Path, nargs="+")
    table.add_argument(
        "--ratios", choices=CONTENDERS, help="show the medians as shares of this contender's"
    )
    table.set_defaults(run=_table)
    return run_command(parser, lambda args: args.run(args), argv)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _measure(args: argparse.Namespace) -> None:
    for contender in args.contender:
        if args.device == "cpu" and contender in _GPU_ONLY:
            raise UsageError(f"--contender {contender} runs on a GPU: leave --device out")
        if args.device == "cuda" and contender in _CPU_ONLY:
            raise UsageError(f"--contender {contender} runs on a CPU: give --device cpu")
    config = cascadebert.load_config(args.config)
    workspace = workspace_of(config, None)
    rows: list[dict[str, Any]] = []
    for member in config.members:
        with ExitStack() as stack:  # frees the memory of the engines
            of: dict[str, Any] = {
                "stack": stack, "config": config, "workspace": workspace, "member": member,
            }  # fmt: skip
            runs = {name: _load(name, args.device, **of) for name in args.contender}
            for length, batch in product(args.lengths, args.batches):
                tensors = _inputs(config, workspace, member, batch, length)
                for name, times_s in _time(runs, tensors, args.device, args.seconds).items():
                    taken = latency_of(1000 * times_s)
                    row = {
                        "contender": name, "member": member.name, "rows": batch, "length": length,
                        "calls": taken.requests, "p50_ms": taken.p50_ms, "p99_ms": taken.p99_ms,
                        "rows_per_s": batch / float(times_s.mean()),
                    }  # fmt: skip
                    rows.append(row)
                    say(
                        f"{name:21} {member.name:10} {batch:4} x {length:3}: "
                        f"{row['p50_ms']:8.2f} ms, {row['rows_per_s']:9.0f} rows/s"
                    )
    gpus = [gpu.name for gpu in gpu_machine().gpus]
    write_json(
        args.output,
        {
            "command": f"python -m benchmarks.tools.engines {shlex.join(sys.argv[1:])}",
            "machine": asdict(this_machine()),
            "device": gpus[0] if args.device == "cuda" and gpus else "cpu",
            "rows": rows,
        },
    )


def _inputs(
    config: CascadeConfig, workspace: Workspace, member: MemberConfig, batch: int, length: int
) -> Tensors:
    """Fill a batch with real rows that fit the length, repeated if there are too few."""
    stage = exported_member(BuildContext(config, workspace), member).stage_input
    path = workspace.engine(member) / "reference.npz"
    if path.is_file():  # kept for a machine that does not have the data
        known = list(reference_from_file(path).rows)
    else:
        texts = rows_from_source(config.data_source()).texts
        known = stage.encoder.encode(sample_of_texts(texts, stage).texts)
    fitting = [row for row in known if len(row) <= length]
    if not fitting:
        raise UsageError(f"no row of {member.name!r} has {length} tokens or less")
    rows = [fitting[i % len(fitting)] for i in range(batch)]
    return pad_rows(rows, stage.inputs, [length], stage.encoder.pad_id).tensors


def _time(
    runs: Mapping[str, Run], tensors: Tensors, device: str, seconds: float
) -> dict[str, NDArray[np.float64]]:
    """Return the seconds of each contender's calls, in turn for `seconds` times their number."""
    for run in runs.values():
        for _ in range(_WARM_UP_CALLS[device]):
            run(tensors)
    times_s: dict[str, list[float]] = {name: [] for name in runs}
    end_s = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end_s:
        for name, run in runs.items():
            began_s = time.perf_counter()
            run(tensors)
            times_s[name].append(time.perf_counter() - began_s)
    return {name: np.array(of) for name, of in times_s.items()}


def _load(
    contender: str,
    device: str,
    *,
    stack: ExitStack,
    config: CascadeConfig,
    workspace: Workspace,
    member: MemberConfig,
) -> Run:
    """Return how to run a member. `stack` frees its memory."""
    if contender.startswith("tensorrt"):
        from cascadebert_engine.manifest import PLAN
        from cascadebert_engine.session import EngineSession

        plan = workspace.engine(member) / PLAN
        session = EngineSession(plan, cuda_graphs=contender == "tensorrt-graphs")
        stack.callback(session.close)
        return session.logits
    if contender.startswith("torch"):
        return _torch(config.checkpoint(member), device, half=contender == "torch-fp16")
    if contender == "openvino":
        return _openvino(workspace.onnx(member))
    return _onnxruntime(_graph(contender, workspace, member), device)


def _torch(checkpoint: str, device: str, *, half: bool) -> Run:
    import torch
    import transformers

    if device == "cpu":
        torch.set_num_threads(1)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        checkpoint, dtype=torch.float16 if half else torch.float32, attn_implementation="sdpa"
    )
    model = model.to(device).eval()

    def run(tensors: Tensors) -> Any:
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
    options = onnxruntime.SessionOptions()
    if device == "cpu":  # as a stage is served
        options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise UsageError(f"ONNX Runtime's {provider} does not start: see its reason above")
    return lambda tensors: session.run(["logits"], tensors)[0]


def _graph(contender: str, workspace: Workspace, member: MemberConfig) -> Path:
    """Return the exported graph, or the one that a contender makes of it."""
    if contender == "onnxruntime":
        return workspace.onnx(member)
    folder = workspace.folder / member.name / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    fused, target = folder / "fused.onnx", folder / f"{contender}.onnx"
    fused_graph(workspace.onnx(member), fused)
    if contender == "onnxruntime-optimized":
        return fused
    if contender == "onnxruntime-int8":
        write_probe(folder / PROBE)
        int8_graph(fused, target, 8 if has_exact_products(folder / PROBE) else 7)
        return target
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        fused, target, op_types_to_quantize=["MatMul"], per_channel=True,
        weight_type=QuantType.QInt8,
    )  # fmt: skip
    return target


def _openvino(path: Path) -> Run:
    try:
        import openvino
    except ModuleNotFoundError as exc:
        raise UsageError("openvino is not installed: pip install openvino") from exc
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    model: Any = openvino.Core().compile_model(str(path), "CPU", settings)
    request = model.create_infer_request()

    def run(tensors: Tensors) -> Any:
        request.infer(tensors)
        return request.get_output_tensor(0).data.copy()

    return run


def _table(args: argparse.Namespace) -> None:
    import pandas as pd

    results: list[dict[str, Any]] = []
    for path in args.files:
        result = read_json(path)
        if result is None:
            raise UsageError(f"{path} is not a result of `measure`: measure again")
        results.append(result)
    devices = sorted({result["device"] for result in results})
    if len(devices) > 1:
        raise UsageError(f"the files are of several devices, {', '.join(devices)}: compare one")
    shape, base = ["member", "length", "rows"], args.ratios
    rows: Any = pd.concat([pd.DataFrame(result["rows"]) for result in results])
    rows = rows.drop_duplicates([*shape, "contender"], keep="last").set_index(shape)
    contenders = [name for name in CONTENDERS if name in set(rows["contender"])]
    if base is not None and base not in contenders:
        raise UsageError(f"--ratios {base}: the files have {', '.join(contenders)}")
    rows["beside"] = rows["rows_per_s"].map("{:.0f}/s".format)
    if base is not None:
        of_base = rows.loc[rows["contender"] == base, "p50_ms"]
        rows = rows.join(of_base.rename("of_base"))
        shares = rows["p50_ms"] / rows["of_base"]
        rows["beside"] = shares.map("{:.2f}".format).where(shares.notna(), rows["beside"])
    rows["cell"] = rows["p50_ms"].map("{:.2f} ms, ".format) + rows["beside"]
    cells = rows.pivot_table("cell", shape, "contender", aggfunc="last", sort=False)
    what = "and rows/s" if base is None else f"and its share of {base}'s"
    print(f"Device: {devices[0]}. Median of a call in ms, {what}.\n")
    shown = cells[contenders].fillna("").reset_index()
    align = ["left", *["right"] * (len(shown.columns) - 1)]
    print(shown.to_markdown(index=False, colalign=align, disable_numparse=True))


if __name__ == "__main__":
    sys.exit(main())
