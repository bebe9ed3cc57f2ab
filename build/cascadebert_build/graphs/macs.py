"""Multiply-accumulates of one token in an exported graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..extras import needs_extra

if TYPE_CHECKING:
    import onnx

# Operators whose output has all the numbers of their input.
_CARRIERS = ("Cast", "DequantizeLinear", "Identity", "Reshape", "Transpose")


def attention_layers(path: Path) -> int:
    """Number of layers of an exported encoder, counted by its Softmax nodes.

    Raises:
        UsageError: The file is not a graph.
    """
    return sum(node.op_type == "Softmax" for node in _graph(path).node)


def _graph(path: Path) -> onnx.GraphProto:
    with needs_extra("build"):
        import onnx
    try:
        return onnx.load(str(path), load_external_data=False).graph
    except Exception as exc:
        raise UsageError(
            f"{path} cannot be read as an ONNX graph ({type(exc).__name__}): "
            "run `cascadebert export --force`"
        ) from exc


def macs_per_token(path: Path) -> int:
    """Multiply-accumulates of one token in the MatMul and Gemm nodes that have a weight.

    A product with a weight of shape (k, n) costs k * n for each token, transposed or not. Three
    things are not counted: embeddings, which are looked up; products of two activations (attention
    scores), which depend on the length; and products with none or one vector per row (relative
    positions, the pooler and the classifier).

    Args:
        path: An ONNX file.

    Raises:
        UsageError: The file is not a graph, or none of its nodes multiplies tokens by a weight.
    """
    graph = _graph(path)
    sizes = _weight_sizes(graph)
    constants = _constants(graph)
    shapes = _shapes([*graph.value_info, *graph.input, *graph.output])
    batch = shapes[graph.output[0].name][:1] if graph.output else ()
    macs = 0
    for node in graph.node:
        if node.op_type not in {"MatMul", "Gemm"}:
            continue
        operands = node.input[:2]
        weights = [name for name in operands if name in sizes]
        activations = [name for name in operands if name not in constants]
        if len(weights) != 1 or len(activations) != 1:
            continue
        if not _has_one_vector_per_row(shapes.get(activations[0]), batch):
            macs += sizes[weights[0]]
    if not macs:
        raise UsageError(
            f"{path} has no MatMul or Gemm node that multiplies tokens by a constant weight, so "
            "its cost per token is unknown: run `cascadebert export --force`, or evaluate without "
            "--report if the graph is correct"
        )
    return macs


def _weight_sizes(graph: onnx.GraphProto) -> dict[str, int]:
    """The size of every constant of two or more dimensions, under all its names."""
    shapes: dict[str, Sequence[int]] = {value.name: value.dims for value in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    shapes[node.output[0]] = attribute.t.dims
    sizes = {name: prod(dims) for name, dims in shapes.items() if len(dims) > 1}
    for node in graph.node:  # in order of execution, so one pass is enough
        if node.op_type in _CARRIERS and node.input[0] in sizes:
            sizes[node.output[0]] = sizes[node.input[0]]
    return sizes


def _constants(graph: onnx.GraphProto) -> set[str]:
    """Names of the values that do not depend on the graph's inputs."""
    constants = {value.name for value in graph.initializer} | {""}  # "": an omitted input
    for node in graph.node:
        if all(name in constants for name in node.input):
            constants |= set(node.output)
    return constants


def _shapes(values: Iterable[onnx.ValueInfoProto]) -> dict[str, tuple[Any, ...]]:
    """The shape of each value by its name: integers, or names of dynamic dimensions."""
    return {
        value.name: tuple(
            d.dim_param or d.dim_value if d.WhichOneof("value") else None
            for d in value.type.tensor_type.shape.dim
        )
        for value in values
    }


def _has_one_vector_per_row(shape: tuple[Any, ...] | None, batch: tuple[Any, ...]) -> bool:
    """Whether a shape is (batch, width). Unknown shapes count as tokens."""
    return shape is not None and len(shape) == 2 and shape[:1] == batch != (None,)
