"""The FP16 graph of an exported member, for strongly typed TensorRT networks.

ModelOpt's AutoCast chooses the type of each node by the ranges of its values on real text, and adds
casts where the type changes. It is called with these settings, for these reasons:

- LayerNormalization stays in FP32: it squares, and its input has the outliers of a transformer.
- The scale of the scores moves from the product of queries and keys to the queries, so the product
  stays far below 65504. TensorRT also fuses attention in this form.
- The mask is already -10000 (`mask.py`), which FP16 can hold, and exp(-10000) is 0 in every type.
  Softmax subtracts the largest score first, so it stays within FP16's range.
- Embedding tables become FP16. AutoCast would keep them, since a Gather also reads token ids of
  30000.
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

# The newest opset that TensorRT 8.6 reads; newer versions read it too.
TENSORRT_OPSET = 17

# A node becomes FP16 if its values on real text stay below this. FP16 ends at 65504, so other text
# may reach four times as far.
RANGE_LIMIT = 16384.0


@dataclass(frozen=True, slots=True)
class Fp16Graph:
    """The types of the nodes in an FP16 graph.

    Attributes:
        opset: Of the default domain.
        nodes: Number of nodes that compute floats, without casts.
        fp16_nodes: Number of them that compute in FP16.
        fp32_nodes: Number of them that compute in FP32, by type of node.
        fp16_share: Share of the matrix products that are in FP16.
    """

    opset: int
    nodes: int
    fp16_nodes: int
    fp32_nodes: dict[str, int]
    fp16_share: float

    def __str__(self) -> str:
        fp32 = ", ".join(f"{n} {op}" for op, n in sorted(self.fp32_nodes.items()))
        return f"{self.fp16_nodes} of {self.nodes} nodes in FP16; FP32: {fp32 or 'none'}"


def tensorrt_graph(exported: Path, target: Path) -> int:
    """Write the FP32 graph that TensorRT reads, with scaled queries.

    Returns:
        Its opset: 17 if the graph can be converted, else that of the exported graph.
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


def fp16_graph(
    fp32: Path,
    target: Path,
    calibration: Sequence[Mapping[str, NDArray[np.int32]]],
    fp32_ops: Sequence[str] = FP32_OPS,
) -> Fp16Graph:
    """Write the FP16 graph of `fp32`; inputs and logits keep their types.

    Args:
        fp32: The result of `tensorrt_graph`.
        target: The file to write.
        calibration: Batches of real, padded text, of one shape.
        fp32_ops: Types of nodes that stay in FP32.

    Raises:
        MissingExtra: ModelOpt is not installed.
        UsageError: `fp32_ops` names a type that the graph does not have.
        CheckFailed: AutoCast cannot convert the graph.
    """
    import onnx

    present = sorted({node.op_type for node in onnx.load(str(fp32)).graph.node})
    unknown = [op for op in fp32_ops if op not in present]
    if unknown:
        raise UsageError(
            f"[compile] fp32_ops names {unknown[0]!r}, and the graph has no such node: it has "
            f"{', '.join(present)}"
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
    # Shapes that AutoCast writes between nodes can be wrong (they are for DeBERTa). Readers of the
    # graph infer their own.
    del model.graph.value_info[:]
    onnx.save(model, str(target))
    return _summary(model)


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Silence AutoCast, which logs a line per node and configures its logger in every call."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def scale_queries(model: Any) -> int:
    """Apply constant scales of attention scores to the queries instead, in place.

    softmax((Q K^T) s + mask) equals softmax((s Q) K^T + mask), and its product is s times as large.

    Returns:
        The number of scales that were moved.
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
            # Queries and keys are no weights.
            or any(name in constants for name in product.input)
        ):
            continue
        scaled = f"{product.output[0]}_scaled_queries"
        queries, keys = product.input
        # The scale now reads the queries, and the product writes the former output of the scale.
        result = scale.output[0]
        index = list(graph.node).index(product)
        graph.node.remove(scale)
        scale.input[0], scale.output[0] = queries, scaled
        graph.node.insert(index, scale)
        product.input[0], product.input[1], product.output[0] = scaled, keys, result
        moved += 1
    return moved


def _float_gathers(path: Path) -> list[str]:
    """Names of the Gather nodes that look up rows of a float table."""
    import onnx

    graph = onnx.load(str(path)).graph
    tables = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    return [n.name for n in graph.node if n.op_type == "Gather" and n.input[0] in tables]


def _summary(model: Any) -> Fp16Graph:
    """Count the nodes by the type of their first float output."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    types.update({v.name: v.type.tensor_type.elem_type for v in inferred.graph.output})
    fp16_nodes = nodes = products = fp16_products = 0
    fp32_nodes: dict[str, int] = {}
    for node in inferred.graph.node:
        elem_type = types.get(node.output[0])
        if node.op_type == "Cast" or elem_type not in {
            onnx.TensorProto.FLOAT,
            onnx.TensorProto.FLOAT16,
        }:
            continue
        nodes += 1
        multiplies = node.op_type in {"MatMul", "Gemm"}
        products += multiplies
        if elem_type == onnx.TensorProto.FLOAT16:
            fp16_nodes += 1
            fp16_products += multiplies
        else:
            fp32_nodes[node.op_type] = fp32_nodes.get(node.op_type, 0) + 1
    share = fp16_products / max(1, products)
    return Fp16Graph(_opset(model), nodes, fp16_nodes, fp32_nodes, share)


def _opset(model: Any) -> int:
    """The opset version of the default domain."""
    return next(int(o.version) for o in model.opset_import if o.domain in {"", "ai.onnx"})
