"""TensorRT on a machine without a GPU: NVIDIA's own Python bindings, with a builder that pretends.

Every enum, type and name is that of the real bindings. The few classes that need the library are
replaced, and every call of one of their methods is held against the signature in the real class's
docstring: a call that the real TensorRT would refuse fails here too. "Engines" are ONNX graphs that
ONNX Runtime runs in host memory.
"""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
# pyright: reportOptionalSubscript=false, reportOptionalMemberAccess=false

from __future__ import annotations

import ctypes
import functools
import io
import json
import os
import re
import struct

import numpy as np
import onnx
import onnxruntime
import tensorrt_bindings as real
from tensorrt_bindings import __version__  # noqa: F401


def __getattr__(name):
    # What is not replaced below is real. (A star import would hide Python's own bool.)
    return getattr(real, name)


_MAGIC = b"pretended plan\n"
_MAJOR = int(real.__version__.partition(".")[0])


def _parameters(text):
    """Names and whether they have a default, of a pybind11 signature without its self."""
    depth, part, parts = 0, "", []
    for letter in text + ",":
        if letter == "," and depth == 0:
            parts.append(part.strip())
            part = ""
            continue
        depth += (letter in "([") - (letter in ")]")
        part += letter
    named = [(p.partition(":")[0].partition("=")[0].strip(), "=" in p) for p in parts if p]
    return [(name, optional) for name, optional in named if name != "self"]


def _accepts(signature, args, kwargs):
    names = [name for name, _ in signature]
    given = [*names[: len(args)], *kwargs]
    required = [name for name, optional in signature if not optional]
    return (
        len(args) <= len(names)
        and set(kwargs) <= set(names[len(args) :])
        and set(required) <= set(given)
    )


def _check(owner, name, args, kwargs):
    method = getattr(owner, name, None)
    if method is None:
        raise AttributeError(f"TensorRT {real.__version__} has no {owner.__name__}.{name}")
    doc = method.__doc__ or ""
    found = re.findall(rf"^(?:\d+\. )?{name}\((.*)\)(?: ->.*)?$", doc, re.MULTILINE)
    signatures = [_parameters(text) for text in found if text != "*args, **kwargs"]
    if signatures and not any(_accepts(s, args, kwargs) for s in signatures):
        raise TypeError(f"{owner.__name__}.{name}{args}{kwargs}: TensorRT takes {found}")


class _Checked:
    """Base of the stand-ins: nothing can be called or set that the real class does not have."""

    _real = object

    def __init_subclass__(cls):
        cls._real = getattr(real, cls.__name__)
        for name, value in list(vars(cls).items()):
            if callable(value) and (name == "__init__" or not name.startswith("_")):
                setattr(cls, name, cls._checked(name, value))

    @classmethod
    def _checked(cls, name, method):
        @functools.wraps(method)
        def call(self, *args, **kwargs):
            if self._outside(name):
                _check(cls._real, name, args, kwargs)
            return method(self, *args, **kwargs)

        return call

    def _outside(self, name):
        # What this module makes for itself has constructors that the real classes do not show.
        return name != "__init__" or type(self).__name__ in {"Builder", "OnnxParser", "Runtime"}

    def __setattr__(self, name, value):
        if not name.startswith("_") and not hasattr(self._real, name):
            raise AttributeError(f"TensorRT {real.__version__} has no {self._real.__name__}.{name}")
        object.__setattr__(self, name, value)


class Builder(_Checked):
    def __init__(self, logger):
        self._logger = logger

    def create_network(self, flags=0):
        return INetworkDefinition(flags)

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        if os.environ.get("PRETEND_BUILD") == "out of memory":
            self._logger.log(real.Logger.ERROR, "Cuda failure: out of memory")
            return None
        self._logger.log(
            real.Logger.WARNING, "Skipping tactic 0x1 due to insufficient memory on requested size"
        )
        if os.environ.get("PRETEND_BUILD") == "no implementation":
            self._logger.log(real.Logger.ERROR, "Could not find any implementation for node X")
            return None
        if os.environ.get("PRETEND_BUILD") == "fp32":
            network._half = False
        elif not network._strongly_typed:
            network._half = bool(config._flags & {"FP16"})
        profiles = [p._shapes for p in config._profiles]
        detailed = config.profiling_verbosity == real.ProfilingVerbosity.DETAILED
        head = {"profiles": profiles, "half": network._half, "detailed": detailed}
        text = json.dumps(head).encode()
        config._cache._built += 1
        return IHostMemory(
            _MAGIC + struct.pack("<I", len(text)) + text + network._model.SerializeToString()
        )


class INetworkDefinition(_Checked):
    def __init__(self, flags):
        kinds = real.NetworkDefinitionCreationFlag.__members__
        strongly = 1 << int(kinds["STRONGLY_TYPED"]) if "STRONGLY_TYPED" in kinds else 0
        # From 11 on every network is strongly typed.
        self._strongly_typed = bool(flags & strongly) or _MAJOR >= 11
        self._model = None
        self._half = False

    @property
    def num_inputs(self):
        return len(self._model.graph.input)

    @property
    def num_layers(self):
        return len(self._model.graph.node)

    @property
    def num_outputs(self):
        return len(self._model.graph.output)

    def get_input(self, index):
        return _tensor(self._model.graph.input[index])

    def get_output(self, index):
        return _tensor(self._model.graph.output[index])

    def __iter__(self):
        return iter(())

    def __len__(self):
        return self.num_layers


class ITensor(_Checked):
    pass


_TYPES = {
    onnx.TensorProto.INT32: real.DataType.INT32,
    onnx.TensorProto.FLOAT: real.DataType.FLOAT,
}


def _tensor(value):
    tensor = ITensor()
    tensor.name = value.name
    kind = value.type.tensor_type
    tensor.shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
    tensor.dtype = _TYPES[kind.elem_type]
    tensor.is_shape_tensor = False
    tensor.is_execution_tensor = True
    return tensor


class OnnxParser(_Checked):
    def __init__(self, network, logger):
        self._network = network
        self._errors = []

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index]

    def set_flag(self, flag):
        assert isinstance(flag, real.OnnxParserFlag)

    def get_flag(self, flag):
        return False

    def parse_from_file(self, model):
        loaded = onnx.load(model)
        foreign = [node.op_type for node in loaded.graph.node if node.domain not in {"", "ai.onnx"}]
        # As the parsers of 10 and 11 word it; 8.6 says "could not find plugin: X version: 1".
        self._errors = [
            f"In node 0 with name: x and operator: {op} (checkFallbackPluginImporter): "
            'INVALID_NODE: creator && "Plugin not found"'
            for op in foreign
        ]
        self._network._model = loaded
        self._network._half = any(
            t.data_type == onnx.TensorProto.FLOAT16 for t in loaded.graph.initializer
        )
        return not self._errors


class IOptimizationProfile(_Checked):
    def __init__(self):
        self._shapes = {}

    def set_shape(self, input, min, opt, max):
        self._shapes[input] = [list(min), list(opt), list(max)]

    def get_shape(self, input):
        return [tuple(shape) for shape in self._shapes.get(input, [])]

    def __bool__(self):
        return True


class ITimingCache(_Checked):
    def __init__(self, data):
        self._built = int(data or b"0")

    def combine(self, input_cache, ignore_mismatch):
        self._built += input_cache._built
        return True

    def serialize(self):
        return IHostMemory(str(self._built).encode())


class IHostMemory(_Checked):
    def __init__(self, data):
        self._data = data

    @property
    def nbytes(self):
        return len(self._data)

    def __buffer__(self, flags):
        return memoryview(self._data)

    def __bytes__(self):
        return self._data

    def __len__(self):
        return len(self._data)

    def __enter__(self):
        return io.BytesIO(self._data).getbuffer()

    def __exit__(self, *_):
        pass


class IBuilderConfig(_Checked):
    def __init__(self):
        self._flags = set()
        self._profiles = []
        self._cache = None
        self.DLA_core = -1
        self.default_device_type = real.DeviceType.GPU
        self.profiling_verbosity = real.ProfilingVerbosity.LAYER_NAMES_ONLY

    def set_flag(self, flag):
        assert isinstance(flag, real.BuilderFlag)
        self._flags.add(flag.name)

    def clear_flag(self, flag):
        self._flags.discard(flag.name)

    def get_flag(self, flag):
        return flag.name in self._flags

    def add_optimization_profile(self, profile):
        self._profiles.append(profile)
        return len(self._profiles) - 1

    @property
    def num_optimization_profiles(self):
        return len(self._profiles)

    def set_memory_pool_limit(self, pool, pool_size):
        assert isinstance(pool, real.MemoryPoolType)

    def set_tactic_sources(self, tactic_sources):
        return True

    def create_timing_cache(self, serialized_timing_cache):
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache, ignore_mismatch):
        self._cache = cache
        return True

    def get_timing_cache(self):
        return self._cache


class Runtime(_Checked):
    def __init__(self, logger):
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine):
        data = bytes(serialized_engine)
        return ICudaEngine(data) if data.startswith(_MAGIC) else None


class ICudaEngine(_Checked):
    def __init__(self, data):
        start = len(_MAGIC) + 4
        (size,) = struct.unpack("<I", data[len(_MAGIC) : start])
        self._head = json.loads(data[start : start + size])
        self._onnx = data[start + size :]
        self._model = onnx.load_from_string(self._onnx)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            self._onnx, options, providers=["CPUExecutionProvider"]
        )
        self._tensors = {
            value.name: (_tensor(value), mode)
            for mode, values in (
                (real.TensorIOMode.INPUT, self._model.graph.input),
                (real.TensorIOMode.OUTPUT, self._model.graph.output),
            )
            for value in values
        }

    @property
    def num_io_tensors(self):
        return len(self._tensors)

    @property
    def num_optimization_profiles(self):
        return len(self._head["profiles"])

    def __getattr__(self, name):
        # The first is gone in 11, and the second is not there in 8.6.
        if name in {"device_memory_size", "device_memory_size_v2"} and hasattr(self._real, name):
            return 1 << 20
        raise AttributeError(f"TensorRT {real.__version__} has no ICudaEngine.{name}")

    def get_tensor_name(self, index):
        return list(self._tensors)[index]

    def get_tensor_mode(self, name):
        return self._tensors[name][1]

    def get_tensor_dtype(self, name):
        return self._tensors[name][0].dtype

    def get_tensor_shape(self, name):
        return self._tensors[name][0].shape

    def get_tensor_profile_shape(self, name, profile_index):
        return [tuple(shape) for shape in self._head["profiles"][profile_index][name]]

    def create_execution_context(self):
        return IExecutionContext(self)

    def create_engine_inspector(self):
        return EngineInspector(self)


class EngineInspector(_Checked):
    def __init__(self, engine):
        self._engine = engine

    def get_engine_information(self, format):
        assert format == real.LayerInformationFormat.JSON
        nodes = [n for n in self._engine._model.graph.node if n.op_type in {"MatMul", "Gemm"}]
        if not self._engine._head["detailed"]:
            return json.dumps({"Layers": [n.name for n in nodes], "Bindings": []})
        kind = "Half" if self._engine._head["half"] else "Float"
        # The field was split with TensorRT 11.
        tensor = (
            {"Name": "x", "DataType": kind, "Format": "kLINEAR"}
            if _MAJOR >= 11
            else {"Name": "x", "Format/Datatype": kind}
        )
        layers = [
            {"Name": n.name, "LayerType": "gemm", "Inputs": [tensor], "Outputs": [tensor]}
            for n in nodes
        ]
        return json.dumps({"Layers": layers})


# Works that a captured graph runs again; the callback must outlive them.
_works = []


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _run_work(index):
    _works[index]()


class IExecutionContext(_Checked):
    def __init__(self, engine):
        self._engine = engine
        self._profile = None
        self._shapes = {}
        self._addresses = {}

    def set_optimization_profile_async(self, profile_index, stream_handle):
        assert stream_handle
        self._profile = self._engine._head["profiles"][profile_index]
        return True

    def set_input_shape(self, name, shape):
        low, _, high = self._profile[name]
        if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        from polygraphy import cuda

        library = cuda.wrapper().handle
        work = functools.partial(self._compute, dict(self._shapes))
        if library.pretend_is_capturing():
            _works.append(work)
            library.pretend_record(_run_work, len(_works) - 1)
        else:
            work()
        return True

    def _compute(self, shapes):
        feeds = {}
        for name, shape in shapes.items():
            size = int(np.prod(shape)) * 4
            data = ctypes.string_at(self._addresses[name], size)
            feeds[name] = np.frombuffer(data, dtype=np.int32).reshape(shape)
        (logits,) = self._engine._session.run(["logits"], feeds)
        data = np.ascontiguousarray(logits, dtype=np.float32).tobytes()
        ctypes.memmove(self._addresses["logits"], data, len(data))
