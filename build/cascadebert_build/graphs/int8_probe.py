"""A probe for CPUs whose sums of 8-bit products saturate.

x86 without VNNI adds pairs of products in 16 bits, and two products of 255 * 127 exceed them: the
sum saturates without an error. Sums with weights of 7 bits always fit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..extras import needs_extra
from .fused import save_graph

# Published with weights of 8 bits. A stage runs it when it loads, since its CPU may be another one.
PROBE = "probe.onnx"

_K, _N = 64, 16


def write_probe(path: Path) -> None:
    """Write a product of the largest 8-bit integers: uint8 `x` (rows, 64) -> FP32 `y` (rows, 16).

    For a row of 255, every element of `y` must be 64 * 255 * 127.
    """
    with needs_extra("build"):
        from onnx import TensorProto, helper, numpy_helper
    tensors = {
        "w": np.full((_K, _N), 127, np.int8),
        "one": np.float32(1),
        "scale": np.ones(_N, np.float32),
        "zero": np.uint8(0),
    }
    product = helper.make_node(
        "MatMulIntegerToFloat", ["x", "w", "one", "scale", "zero"], ["y"], domain="com.microsoft"
    )
    graph = helper.make_graph(
        [product],
        "exact_products",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", _K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", _N])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    save_graph(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


def has_exact_products(path: Path) -> bool:
    """Run the probe on this CPU, as a stage does when it loads."""
    with needs_extra("build"):
        from ..stages import onnxruntime_session
    return onnxruntime_session.has_exact_products(path)
