"""A plan that runs in TensorRT's Python runtime."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .builder import import_tensorrt
from .cuda import Cuda, Graph, Memory, padded_to_rows
from .errors import CudaError, NoGpu, PlanMisfit
from .machine import this_machine
from .manifest import ENGINE_MANIFEST, EngineManifest, check_machine, check_plan, manifest_from_file
from .profiles import graph_batches

LOGITS = "logits"


class EngineSession:
    """A context for each profile, device buffers for the largest call, and one stream.

    Call it from one thread at a time.
    """

    def __init__(self, plan: Path, *, device: int = 0, cuda_graphs: bool = False) -> None:
        """Load `plan`, which must fit its manifest and this machine.

        Args:
            plan: The plan, with its manifest beside it.
            device: The GPU to run on.
            cuda_graphs: Whether to launch all kernels of a call together. A call is padded to the
                next captured size.

        Raises:
            PlanMisfit: There is no GPU, or the plan is damaged, belongs to another machine, or has
                other tensors than its manifest says.
            NoGpu: The GPU has too little memory.
            CudaError: The CUDA runtime refused another call.
        """
        self.manifest = manifest_from_file(plan.with_name(ENGINE_MANIFEST))
        machine = this_machine(of_python=True)
        check_machine(self.manifest, machine, device)
        check_plan(plan, self.manifest)
        trt = import_tensorrt()
        self._cuda = Cuda(device)
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        if self.manifest.options.version_compatible:
            self._runtime.engine_host_code_allowed = True
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            raise PlanMisfit(
                f"TensorRT {trt.__version__} cannot load {plan}: build it again on this machine "
                "with `cascadebert compile`"
            )
        check_bindings(trt, self._engine, self.manifest)
        self._contexts = [self._context(i) for i in range(len(self.manifest.profiles))]
        self._inputs, self._logits = self._buffers()
        for context in self._contexts:
            for name, memory in self._inputs.items():
                context.set_tensor_address(name, memory.pointer)
            context.set_tensor_address(LOGITS, self._logits.pointer)
        self._graphs: dict[tuple[int, int], Graph] = {}
        if cuda_graphs:
            self._capture_graphs()

    def logits(self, tensors: Mapping[str, NDArray[np.int32]]) -> NDArray[np.float32]:
        """Return logits of shape (rows, n_labels) in the checkpoint's own order.

        Args:
            tensors: Every input of the plan, int32 of shape (rows, length), with the length of one
                of the profiles.

        Raises:
            PlanMisfit: No profile accepts the call.
        """
        rows, length = tensors[self.manifest.inputs[0]].shape
        profile = self.manifest.profile_for(length)
        if profile is None or rows > self.manifest.profiles[profile].max_batch:
            held = [(p.max_batch, p.length) for p in self.manifest.profiles]
            raise PlanMisfit(
                f"a call of {rows} rows of {length} tokens fits none of the plan's profiles (most "
                f"rows, length) {held}: pad to one of them, or compile with other buckets"
            )
        shapes = {name: tensors[name].shape for name in self._inputs}
        if set(shapes.values()) != {(rows, length)}:
            raise PlanMisfit(f"the tensors of a call have the shapes {shapes}: give all one shape")
        size = self._captured_size(profile, rows)
        # The arrays must live until the stream has read them.
        hosts = {name: padded_to_rows(tensors[name], size or rows) for name in self._inputs}
        for name, host in hosts.items():
            self._inputs[name].copy_from(host)
        if size is None:
            self._set_shape(profile, rows)
            self._execute(profile)
        else:
            self._graphs[profile, size].launch()
        logits = np.empty((size or rows, self.manifest.n_labels), dtype=np.float32)
        self._logits.copy_to(logits)
        self._cuda.synchronize()
        return logits[:rows]

    def close(self) -> None:
        """Free device memory and contexts."""
        for graph in self._graphs.values():
            graph.destroy()
        for memory in (*self._inputs.values(), self._logits):
            memory.free()
        self._graphs, self._inputs, self._contexts = {}, {}, []
        self._engine = self._runtime = None
        self._cuda.close()

    def _context(self, profile: int) -> Any:
        context = self._engine.create_execution_context()
        if context is None or not context.set_optimization_profile_async(
            profile, self._cuda.stream
        ):
            raise NoGpu(
                f"TensorRT cannot set up profile {profile} of {self.manifest.member!r} with "
                f"{self._cuda.free_bytes() / 2**20:.0f} MiB of GPU memory free: lower "
                "max_batch_size or the instances, or end what else uses the GPU"
            )
        self._cuda.synchronize()
        return context

    def _buffers(self) -> tuple[dict[str, Memory], Memory]:
        tokens = max(p.max_batch * p.length for p in self.manifest.profiles)
        rows = max(p.max_batch for p in self.manifest.profiles)
        inputs = {
            name: self._cuda.allocate(tokens * np.dtype(np.int32).itemsize)
            for name in self.manifest.inputs
        }
        size = rows * self.manifest.n_labels * np.dtype(np.float32).itemsize
        return inputs, self._cuda.allocate(size)

    def _set_shape(self, profile: int, rows: int) -> None:
        context, length = self._contexts[profile], self.manifest.profiles[profile].length
        if not all(context.set_input_shape(name, (rows, length)) for name in self._inputs):
            raise PlanMisfit(
                f"TensorRT refuses {rows} rows of {length} tokens in profile {profile} of "
                f"{self.manifest.member!r}: build the plan again with `cascadebert compile`"
            )

    def _execute(self, profile: int) -> None:
        if not self._contexts[profile].execute_async_v3(self._cuda.stream):
            raise CudaError(
                f"TensorRT could not run profile {profile} of {self.manifest.member!r}: see its "
                "messages above, and `nvidia-smi`"
            )

    def _capture_graphs(self) -> None:
        for i, profile in enumerate(self.manifest.profiles):
            ones = np.ones((profile.max_batch, profile.length), dtype=np.int32)
            for memory in self._inputs.values():
                memory.copy_from(ones)
            for size in graph_batches(profile.max_batch):
                # The first run of a shape may allocate, which a capture must not do.
                self._set_shape(i, size)
                self._execute(i)
                self._cuda.synchronize()
                with self._cuda.capture() as captured:
                    self._execute(i)
                self._graphs[i, size] = captured[0]

    def _captured_size(self, profile: int, rows: int) -> int | None:
        """The rows of the smallest captured graph for the call; None without graphs."""
        if not self._graphs:
            return None
        sizes = graph_batches(self.manifest.profiles[profile].max_batch)
        return sizes[bisect_left(sizes, rows)]


def check_bindings(trt: Any, engine: Any, manifest: EngineManifest) -> None:
    """Check that an engine's tensors and profiles are those of its manifest.

    Raises:
        PlanMisfit: They are not; the message says what they should be.
    """
    wanted: dict[str, tuple[str, Any, tuple[int, int]]] = dict.fromkeys(
        manifest.inputs, ("INPUT", trt.DataType.INT32, (-1, -1))
    )
    wanted[LOGITS] = ("OUTPUT", trt.DataType.FLOAT, (-1, manifest.n_labels))
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    again = "build it again with `cascadebert compile`"
    if sorted(names) != sorted(wanted):
        raise PlanMisfit(
            f"the plan of {manifest.member!r} has the tensors {names} and its manifest names "
            f"{list(wanted)}: {again}"
        )
    for name, (mode, dtype, shape) in wanted.items():
        # A fixed length is -1 if there are several profiles, and the number if there is one.
        found = tuple(engine.get_tensor_shape(name))
        fits = len(found) == 2 and (mode == "INPUT" or found[1] in {-1, shape[1]})
        if engine.get_tensor_mode(name) != getattr(trt.TensorIOMode, mode) or not fits:
            raise PlanMisfit(
                f"the plan's {name} has the shape {found} and {shape} is wanted: {again}"
            )
        if engine.get_tensor_dtype(name) != dtype:
            raise PlanMisfit(
                f"the plan's {name} has the type {engine.get_tensor_dtype(name)} and {dtype} is "
                f"wanted: {again}"
            )
    if engine.num_optimization_profiles != len(manifest.profiles):
        raise PlanMisfit(
            f"the plan has {engine.num_optimization_profiles} profiles and its manifest "
            f"{len(manifest.profiles)}: {again}"
        )
    for i, profile in enumerate(manifest.profiles):
        shapes = engine.get_tensor_profile_shape(manifest.inputs[0], i)
        limits = [tuple(shape) for shape in shapes]
        held = [(rows, profile.length) for rows in (1, profile.opt_batch, profile.max_batch)]
        if limits != held:
            raise PlanMisfit(
                f"profile {i} of the plan holds {limits} and its manifest says {held}: {again}"
            )
