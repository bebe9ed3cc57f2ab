"""ONNX graph to TensorRT plan, through Polygraphy. All that talks to the builder is here.

From 10.12 on a network is strongly typed: the FP16 graph says what is computed in which type, and
there is no flag that TensorRT could ignore. 8.6 treats types as hints, so there the FP32 graph is
built with the FP16 flag, which lets TensorRT keep in FP32 what it normalises.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

from .errors import BuildFailed, NoGpu
from .files import sha256_of_file
from .machine import Machine, version_numbers
from .manifest import ENGINE_MANIFEST, PLAN, EngineManifest
from .precision import PrecisionEvidence, evidence_from_inspector
from .request import BuildOptions, EngineRequest

LOG = "build.log"
TIMING_CACHE = "timing.cache"

GRAPHS = ("auto", "fp16", "fp32")

# Strong typing of ONNX graphs is what NVIDIA recommends from here on; 11 has nothing else.
_STRONGLY_TYPED_SINCE = (10, 12, 0)
_NEWEST = 11
# The one weakly typed version that is supported.
_WEAKLY_TYPED = (8, 6)

# Weights are on the device several times while kernels are timed.
_WEIGHT_COPIES = 3


def build_plan(
    request: EngineRequest, folder: Path, machine: Machine, *, graph: str = "auto"
) -> EngineManifest:
    """Build `model.plan` beside the request, and write its manifest.

    Args:
        request: what to build.
        folder: where its graphs are, and where the plan goes.
        machine: this one.
        graph: "fp16", "fp32", or "auto": what suits the TensorRT that is installed.

    Raises:
        NoGpu: there is none, or it has too little memory.
        BuildFailed: TensorRT is missing or not supported, cannot build the graph, or built an
            engine that does not compute in FP16.
    """
    from .cuda import Cuda

    if machine.gpu_problem is not None:
        raise NoGpu(f"an engine is built on the GPU that runs it, and {machine.gpu_problem}")
    trt = import_tensorrt()
    strongly_typed = is_strongly_typed(trt.__version__)
    graph = ("fp16" if strongly_typed else "fp32") if graph == "auto" else graph
    if strongly_typed and graph == "fp32":
        raise BuildFailed(
            f"TensorRT {trt.__version__} computes what the graph says, and the FP32 graph says "
            "FP32: leave --graph out"
        )
    source = request.fp16 if graph == "fp16" else request.fp32
    # What an interrupted build left must not pass for its result.
    for name in (PLAN, ENGINE_MANIFEST):
        (folder / name).unlink(missing_ok=True)
    _require_memory(Cuda().free_bytes(), folder / source.file)
    with _logged(folder / LOG) as log:
        plan = _build(trt, request, folder / source.file, log, strongly_typed=strongly_typed)
    engine = _load(trt, plan, request.options)
    evidence = _evidence(trt, engine)
    # With the flag TensorRT is free to choose, and most of the products must be what was asked for.
    expected = source.half_share if graph == "fp16" else 0.75
    if evidence.verdict(expected) == "fp32":
        raise BuildFailed(
            f"the engine of {request.member!r} fell back to FP32 ({evidence}; {expected:.0%} of "
            f"the matrix products were to be in FP16): see {folder / LOG}; compile the graph "
            "again, and report it if that does not help"
        )
    (folder / PLAN).write_bytes(plan)
    gpu = machine.gpus[0]
    manifest = EngineManifest(
        member=request.member,
        plan_sha256=sha256_of_file(folder / PLAN),
        plan_bytes=len(plan),
        tensorrt=trt.__version__,
        cuda=Cuda().runtime_version(),
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        options=request.options,
        device_memory_bytes=_device_memory(engine),
        inputs=request.inputs,
        n_labels=request.n_labels,
        profiles=request.profiles,
        graph=graph,
        strongly_typed=strongly_typed,
        precision=evidence,
        checkpoint_sha256=request.checkpoint_sha256,
        onnx_sha256=request.onnx_sha256,
        graph_sha256=source.sha256,
    )
    manifest.write(folder / ENGINE_MANIFEST)
    return manifest


def import_tensorrt() -> Any:
    """TensorRT's Python module.

    Raises:
        BuildFailed: it, Polygraphy, or one of their libraries is not installed.
    """
    try:
        importlib.import_module("polygraphy.backend.trt")
        import tensorrt  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as exc:
        raise BuildFailed(
            f"TensorRT cannot be used here ({exc}): build in NVIDIA's TensorRT image, or "
            "install the extra 'tensorrt' on a machine that reaches NVIDIA's package index"
        ) from exc
    return tensorrt


def is_strongly_typed(version: str) -> bool:
    """Whether networks of this TensorRT are strongly typed.

    Raises:
        BuildFailed: the version is not supported.
    """
    numbers = version_numbers(version)
    if numbers >= _STRONGLY_TYPED_SINCE and numbers[0] <= _NEWEST:
        return True
    if numbers[:2] == _WEAKLY_TYPED:
        return False
    raise BuildFailed(
        f"TensorRT {version} is not supported: use 10.12 to {_NEWEST}, or 8.6 to try things out"
    )


def _build(
    trt: Any, request: EngineRequest, graph: Path, log: io.StringIO, *, strongly_typed: bool
) -> bytes:
    """The serialised engine."""
    polygraphy: Any = importlib.import_module("polygraphy.backend.trt")
    from polygraphy.exception import (  # pyright: ignore[reportMissingImports]
        PolygraphyException,
    )

    folder = graph.parent
    cache = str(folder / TIMING_CACHE)
    try:
        network = polygraphy.network_from_onnx_path(str(graph), strongly_typed=strongly_typed)
        options = _config(trt, request, cache, strongly_typed=strongly_typed)
        config = polygraphy.CreateConfig(**options)
        plan = polygraphy.engine_bytes_from_network(network, config=config, save_timing_cache=cache)
    except PolygraphyException as exc:
        raise BuildFailed(_reason(request, log.getvalue(), exc, folder)) from exc
    return bytes(plan)


def _config(
    trt: Any, request: EngineRequest, cache: str, *, strongly_typed: bool
) -> dict[str, Any]:
    """Arguments of Polygraphy's CreateConfig; only those that this TensorRT must be told."""
    polygraphy: Any = importlib.import_module("polygraphy.backend.trt")

    profiles: list[Any] = []
    for profile in request.profiles:
        shapes = polygraphy.Profile()
        for name in request.inputs:
            shapes.add(
                name,
                min=(1, profile.length),
                opt=(profile.opt_batch, profile.length),
                max=(profile.max_batch, profile.length),
            )
        profiles.append(shapes)
    options = request.options
    config: dict[str, Any] = {
        "profiles": profiles,
        # A cache that is not there is no error: Polygraphy starts an empty one.
        "load_timing_cache": cache if Path(cache).is_file() else None,
        # The inspector shows types only then.
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
        "builder_optimization_level": options.optimization_level,
        # An FP32 fallback must show in the logits; TF32 would round like FP16.
        "tf32": False,
    }
    if options.workspace_mib:
        config["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: options.workspace_mib * 2**20}
    if options.hardware_compatibility != "none":
        level = options.hardware_compatibility.upper()
        if not hasattr(trt.HardwareCompatibilityLevel, level):
            raise BuildFailed(
                f"hardware_compatibility {options.hardware_compatibility!r} is not known to "
                f"TensorRT {trt.__version__}: use a newer one, or 'none'"
            )
        config["hardware_compatibility_level"] = getattr(trt.HardwareCompatibilityLevel, level)
    if options.version_compatible:
        config["version_compatible"] = True
    if not strongly_typed:
        config["fp16"] = True
        # TensorRT's own kernels suffice for these graphs, and PyPI's wheel has no cuBLAS and cuDNN.
        config["tactic_sources"] = [
            trt.TacticSource.EDGE_MASK_CONVOLUTIONS,
            trt.TacticSource.JIT_CONVOLUTIONS,
        ]
    return config


def _load(trt: Any, plan: bytes, options: BuildOptions) -> Any:
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    if options.version_compatible:
        runtime.engine_host_code_allowed = True  # such plans carry their own runtime
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildFailed("TensorRT cannot load the plan that it has just built: build it again")
    return engine


def _evidence(trt: Any, engine: Any) -> PrecisionEvidence:
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        return evidence_from_inspector(str(text))
    except ValueError:
        # An inspector that cannot be read proves nothing; the logits will.
        return PrecisionEvidence(half=0, single=0, opaque=1, layers=0)


def _device_memory(engine: Any) -> int:
    # 11 has the second alone, 8.6 the first alone.
    size = getattr(engine, "device_memory_size_v2", None)
    return int(engine.device_memory_size if size is None else size)


def _require_memory(free: int, graph: Path) -> None:
    needed = graph.stat().st_size * _WEIGHT_COPIES
    if free < needed:
        raise NoGpu(
            f"building from {graph.name} takes about {needed / 2**20:.0f} MiB of GPU memory and "
            f"{free / 2**20:.0f} MiB are free: end what else uses the GPU"
        )


def _reason(request: EngineRequest, log: str, exc: Exception, folder: Path) -> str:
    """One sentence from the builder's own log."""
    what = f"TensorRT cannot build {request.member!r}"
    # Warnings tell of tactics that did not fit the memory in nearly every build.
    errors = [line.partition("[E]")[2].strip() for line in log.splitlines() if "[E]" in line]
    text = "\n".join(errors)
    # The words of 10 and 11, and those of 8.6.
    operator = re.search(r"operator: (\w+) \(checkFallbackPlugin|not find plugin: (\w+)", text)
    if operator:
        return (
            f"{what}: it has no operator {operator[1] or operator[2]!r}; use a newer TensorRT, or "
            f"serve this member with engine = 'onnxruntime' (see {folder / LOG})"
        )
    if re.search(r"out of memory|OutOfMemory|insufficient memory", text, re.IGNORECASE):
        return (
            f"{what}: the GPU's memory does not suffice; end what else uses it, or lower "
            f"max_batch_size or workspace_mib (see {folder / LOG})"
        )
    return f"{what}: {errors[0] if errors else exc} (see {folder / LOG})"


@contextlib.contextmanager
def _logged(path: Path) -> Generator[io.StringIO, None, None]:
    """Keep what Polygraphy and TensorRT print in a file, whatever happens."""
    logger: Any = importlib.import_module("polygraphy.logger").G_LOGGER
    logger.colors = False  # its lines end up in sentences
    log = io.StringIO()
    try:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            yield log
    finally:
        path.write_text(log.getvalue(), encoding="utf-8")
