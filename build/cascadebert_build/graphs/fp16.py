"""The FP16 graph of an exported member, for strongly typed TensorRT networks.

ModelOpt's AutoCast decides node by node, from the ranges that real text reaches, and puts casts
where the type changes. What it is told here, and why:

- LayerNormalization stays in FP32: it squares, and its input holds the outliers of a transformer.
- The scale of the scores moves from the product of queries and keys to the queries, so that the
  product stays far below 65504; it is also the form in which TensorRT fuses attention.
- The mask is -10000 already (`mask.py`): FP16 holds it, and exp(-10000) is 0 in every type. Softmax
  subtracts the largest score first and so reaches no end of FP16's range.
- Embedding tables go to FP16. AutoCast sees token ids of 30000 at a Gather and would keep them.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.schema import FP32_OPS
from ..errors import CheckFailed, UsageError
from ..extras import needs_extra

# TensorRT 8.6 reads ONNX up to here, and newer versions read it too.
TENSORRT_OPSET = 17


# Largest magnitude seen on real text with which a node still goes to FP16, whose end is 65504: text
# that was not seen may reach four times as far.
RANGE_LIMIT = 16384.0


@dataclass(frozen=True, slots=True)
class HalfGraph:
    """What became of a graph.

    Attributes:
        opset: of both graphs.
        nodes: of the FP16 graph, casts not counted.
        half_nodes: those among them that compute in FP16.
        single_ops: types of the others that compute in FP32, with how many there are.
        half_share: share of its matrix products that are in FP16.
    """

    opset: int
    nodes: int
    half_nodes: int
    single_ops: dict[str, int]
    half_share: float

    def __str__(self) -> str:
        kept = ", ".join(f"{n} {op}" for op, n in sorted(self.single_ops.items()))
        return f"{self.half_nodes} of {self.nodes} nodes in FP16; FP32: {kept or 'none'}"


def tensorrt_graph(exported: Path, target: Path) -> int:
    """Write the FP32 graph that TensorRT reads, scaled queries and all.

    Returns:
        Its opset: 17 where that can express the graph, else that of the exported one.
    """
    import onnx
    from onnx import version_converter

    model = onnx.load(str(exported))
    scale_queries(model)
    try:
        converted = version_converter.convert_version(model, TENSORRT_OPSET)
        onnx.checker.check_model(converted)
        model = converted
    except (RuntimeError, onnx.checker.ValidationError):
        pass  # TensorRT 10 and newer read the exporter's own opset
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(target))
    return _opset(model)


def half_graph(
    fp32: Path,
    target: Path,
    calibration: Sequence[Mapping[str, NDArray[np.int32]]],
    fp32_ops: Sequence[str] = FP32_OPS,
) -> HalfGraph:
    """Write the FP16 graph of `fp32`; inputs and logits keep their types.

    Args:
        fp32: as `tensorrt_graph` wrote it.
        target: file to write.
        calibration: batches of real, padded text, of one shape.
        fp32_ops: types of nodes that stay in FP32.

    Raises:
        MissingExtra: ModelOpt is not installed.
        UsageError: `fp32_ops` names a type that the graph does not have.
        CheckFailed: AutoCast cannot convert the graph.
    """
    import onnx

    there = sorted({node.op_type for node in onnx.load(str(fp32)).graph.node})
    unknown = [op for op in fp32_ops if op not in there]
    if unknown:
        raise UsageError(
            f"[compile] fp32_ops names {unknown[0]!r}, and the graph has no such node: it has "
            f"{', '.join(there)}"
        )
    with needs_extra("fp16"):
        from modelopt.onnx.autocast import (  # pyright: ignore[reportMissingImports]
            convert_to_mixed_precision,
        )
    with tempfile.TemporaryDirectory() as folder, _quiet():
        data = Path(folder) / "calibration.npz"
        names = calibration[0].keys()
        np.savez(data, **{n: np.concatenate([batch[n] for batch in calibration]) for n in names})
        try:
            model = convert_to_mixed_precision(
                str(fp32),
                low_precision_type="fp16",
                keep_io_types=True,
                calibration_data=str(data),
                op_types_to_exclude=list(fp32_ops),
                nodes_to_include=[f"^{re.escape(name)}$" for name in _float_gathers(fp32)],
                data_max=RANGE_LIMIT,
            )
        except Exception as exc:
            raise CheckFailed(
                f"AutoCast cannot convert {fp32}: {type(exc).__name__}: {exc}; serve this member "
                "with engine = 'onnxruntime'"
            ) from exc
    # The shapes that AutoCast noted between the nodes are not always right (DeBERTa's are not), and
    # whoever reads the graph infers its own.
    del model.graph.value_info[:]
    onnx.save(model, str(target))
    return _summary(model)


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Keep a line for every node off the terminal; AutoCast sets its logger up at every call."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def scale_queries(model: Any) -> int:
    """Move constant scales of attention scores onto the queries, in place.

    softmax((Q K^T) s + mask) equals softmax((s Q) K^T + mask), and its product is smaller by 1/s.

    Returns:
        How many were moved.
    """
    from onnx import numpy_helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producer = {output: node for node in graph.node for output in node.output}
    uses: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    moved = 0
    for scale in list(graph.node):
        if scale.op_type not in {"Mul", "Div"} or scale.input[1] not in constants:
            continue
        product = producer.get(scale.input[0])
        factor = numpy_helper.to_array(constants[scale.input[1]])
        if (
            product is None
            or product.op_type != "MatMul"
            or uses[product.output[0]] != 1
            or factor.size != 1
            # A product with weights is no product of queries and keys.
            or any(name in constants for name in product.input)
        ):
            continue
        scaled = f"{product.output[0]}_scaled_queries"
        queries, keys = product.input
        # The scale takes the queries' place before the product, and the product gives what the
        # scale gave.
        result = scale.output[0]
        index = list(graph.node).index(product)
        graph.node.remove(scale)
        scale.input[0], scale.output[0] = queries, scaled
        graph.node.insert(index, scale)
        product.input[0], product.input[1], product.output[0] = scaled, keys, result
        moved += 1
    return moved


def _float_gathers(path: Path) -> list[str]:
    """Names of the nodes that look up rows of a float table."""
    import onnx

    graph = onnx.load(str(path)).graph
    tables = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    return [n.name for n in graph.node if n.op_type == "Gather" and n.input[0] in tables]


def _summary(model: Any) -> HalfGraph:
    """Count the nodes by the type of their first float output."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    types.update({v.name: v.type.tensor_type.elem_type for v in inferred.graph.output})
    half = nodes = products = half_products = 0
    single: dict[str, int] = {}
    for node in inferred.graph.node:
        kind = types.get(node.output[0])
        if node.op_type == "Cast" or kind not in {
            onnx.TensorProto.FLOAT,
            onnx.TensorProto.FLOAT16,
        }:
            continue
        nodes += 1
        multiplies = node.op_type in {"MatMul", "Gemm"}
        products += multiplies
        if kind == onnx.TensorProto.FLOAT16:
            half += 1
            half_products += multiplies
        else:
            single[node.op_type] = single.get(node.op_type, 0) + 1
    return HalfGraph(_opset(model), nodes, half, single, half_products / max(1, products))


def _opset(model: Any) -> int:
    """Version of the default domain."""
    return next(int(o.version) for o in model.opset_import if o.domain in {"", "ai.onnx"})
