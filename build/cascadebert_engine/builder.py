"""Builds a TensorRT plan from an ONNX graph, through Polygraphy.

From 10.12 on a network is strongly typed: the FP16 graph sets the type of each operation, and there
is no flag that TensorRT could ignore. 8.6 treats types as hints, so for it the FP32 graph is built
with the FP16 flag, and TensorRT keeps normalisations in FP32.
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

# NVIDIA recommends strong typing of ONNX graphs from here on; 11 has nothing else.
_STRONGLY_TYPED_SINCE = (10, 12, 0)
_NEWEST = 11
# The one weakly typed version that is supported.
_WEAKLY_TYPED = (8, 6)

# The device holds several copies of the weights while kernels are timed.
_WEIGHT_COPIES = 3


def build_plan(
    request: EngineRequest, folder: Path, machine: Machine, *, graph: str = "auto"
) -> EngineManifest:
    """Build `model.plan` beside the request, and write its manifest.

    Args:
        request: What to build.
        folder: The folder of the request's graphs, in which the plan is written.
        machine: This machine.
        graph: "fp16", "fp32", or "auto" for the one that the installed TensorRT needs.

    Raises:
        NoGpu: There is no GPU, or it has too little memory.
        BuildFailed: TensorRT is missing or not supported, cannot build the graph, or built an
            engine that does not compute in FP16.
    """
    from .cuda import Cuda

    if machine.gpu_problem is not None:
        raise NoGpu(f"an engine must be built on the GPU that runs it, and {machine.gpu_problem}")
    trt = import_tensorrt()
    strongly_typed = is_strongly_typed(trt.__version__)
    graph = _chosen_graph(graph, trt.__version__, strongly_typed=strongly_typed)
    source = request.fp16 if graph == "fp16" else request.fp32
    # Files of an earlier, interrupted build must not look like results.
    for name in (PLAN, ENGINE_MANIFEST):
        (folder / name).unlink(missing_ok=True)
    _require_memory(Cuda().free_bytes(), folder / source.file)
    with _logged(folder / LOG) as log:
        plan = _build(trt, request, folder / source.file, log, strongly_typed=strongly_typed)
    engine = _load(trt, plan, request.options)
    evidence = _evidence(trt, engine)
    # With the flag TensorRT may choose, but most of the products must be in FP16.
    _require_fp16(request, evidence, source.half_share if graph == "fp16" else 0.75, folder / LOG)
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
    """Import TensorRT's Python module.

    Raises:
        BuildFailed: TensorRT, Polygraphy or one of their libraries is not installed.
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
    """Return whether networks of this TensorRT version are strongly typed.

    Raises:
        BuildFailed: The version is not supported.
    """
    numbers = version_numbers(version)
    if numbers >= _STRONGLY_TYPED_SINCE and numbers[0] <= _NEWEST:
        return True
    if numbers[:2] == _WEAKLY_TYPED:
        return False
    raise BuildFailed(
        f"TensorRT {version} is not supported: use 10.12 to {_NEWEST}, or 8.6 to try things out"
    )


def _chosen_graph(graph: str, version: str, *, strongly_typed: bool) -> str:
    if graph == "auto":
        return "fp16" if strongly_typed else "fp32"
    if strongly_typed and graph == "fp32":
        raise BuildFailed(
            f"TensorRT {version} computes what the graph says, and the FP32 graph says FP32: leave "
            "--graph out"
        )
    return graph


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
    """The arguments of Polygraphy's CreateConfig that this TensorRT needs."""
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
        # Without a file Polygraphy starts an empty cache.
        "load_timing_cache": cache if Path(cache).is_file() else None,
        # Otherwise the inspector does not show types.
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
        "builder_optimization_level": options.optimization_level,
        # The logits must reveal an FP32 fallback, and TF32 would round like FP16.
        "tf32": False,
    }
    if options.workspace_mib:
        config["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: options.workspace_mib * 2**20}
    if options.hardware_compatibility != "none":
        level = options.hardware_compatibility.upper()
        if not hasattr(trt.HardwareCompatibilityLevel, level):
            raise BuildFailed(
                f"hardware_compatibility {options.hardware_compatibility!r} is unknown to "
                f"TensorRT {trt.__version__}: use a newer one, or 'none'"
            )
        config["hardware_compatibility_level"] = getattr(trt.HardwareCompatibilityLevel, level)
    if options.version_compatible:
        config["version_compatible"] = True
    if not strongly_typed:
        config["fp16"] = True
        # TensorRT's own kernels are enough for these graphs; PyPI's wheel has no cuBLAS and cuDNN.
        config["tactic_sources"] = [
            trt.TacticSource.EDGE_MASK_CONVOLUTIONS,
            trt.TacticSource.JIT_CONVOLUTIONS,
        ]
    return config


def _load(trt: Any, plan: bytes, options: BuildOptions) -> Any:
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    if options.version_compatible:
        runtime.engine_host_code_allowed = True  # such a plan contains its own runtime
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildFailed("TensorRT cannot load the plan that it has just built: build it again")
    return engine


def _evidence(trt: Any, engine: Any) -> PrecisionEvidence:
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        return evidence_from_inspector(str(text))
    except ValueError:
        # Output that cannot be read proves nothing; the check of the logits decides.
        return PrecisionEvidence(half=0, single=0, opaque=1, layers=0)


def _require_fp16(
    request: EngineRequest, evidence: PrecisionEvidence, expected: float, log: Path
) -> None:
    if evidence.verdict(expected) == "fp32":
        raise BuildFailed(
            f"the engine of {request.member!r} fell back to FP32 ({evidence}; {expected:.0%} of "
            f"the matrix products should be in FP16): see {log}; compile the graph again, and "
            "report it if that does not help"
        )


def _device_memory(engine: Any) -> int:
    # 8.6 has only the attribute without _v2, 11 only the one with it.
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
    # Nearly every build warns about tactics that did not fit the memory, so only errors count.
    errors = [line.partition("[E]")[2].strip() for line in log.splitlines() if "[E]" in line]
    text = "\n".join(errors)
    # The messages of 10 and 11, and of 8.6.
    operator = re.search(r"operator: (\w+) \(checkFallbackPlugin|not find plugin: (\w+)", text)
    if operator:
        return (
            f"{what}: it has no operator {operator[1] or operator[2]!r}; use a newer TensorRT, or "
            f"serve this member with engine = 'onnxruntime' (see {folder / LOG})"
        )
    if re.search(r"out of memory|OutOfMemory|insufficient memory", text, re.IGNORECASE):
        return (
            f"{what}: the GPU has too little memory; end what else uses it, or lower "
            f"max_batch_size or workspace_mib (see {folder / LOG})"
        )
    return f"{what}: {errors[0] if errors else exc} (see {folder / LOG})"


@contextlib.contextmanager
def _logged(path: Path) -> Generator[io.StringIO, None, None]:
    """Write the output of Polygraphy and TensorRT to a file, even after a failure."""
    logger: Any = importlib.import_module("polygraphy.logger").G_LOGGER
    logger.colors = False  # error messages quote its lines
    log = io.StringIO()
    try:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            yield log
    finally:
        path.write_text(log.getvalue(), encoding="utf-8")
