"""Quantises a fused graph: matrix products of 8-bit integers, with one scale for each token.

ONNX Runtime's own dynamic quantisation uses one activation scale per call, padding included, so
predictions depend on the composition of a batch and thresholds become unreliable. Here every token
has its own scale, so the logits of a row do not depend on other rows.

    x (batch, length, k) -> scale (batch, length, 1) = max |x| / 127
    y = (round(x / scale) · W) * column scale * scale,  W of int8, a scale for each column

ONNX Runtime calls this per-channel weights and per-token dynamic activations. A token whose
elements are all NaN stays NaN. A token with a single NaN that is not its first element can give
finite products.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckFailed
from ..extras import needs_extra
from .fused import constants_of, failing_as, save_graph

# Increase it when the quantised graph changes: graphs are then made again.
INT8_VERSION = 1

# The zero point of tokens with values of both signs. The output of a gelu is never below -0.17005,
# so a zero point of 16 leaves nearly all of the 8 bits for positive values.
_MIDDLE = 128
_GELU_ZERO = 16
_GELU_LOWEST = 0.1701
_GELU = {"Gelu", "BiasGelu"}

# The scale of a token of zeros, which stays zero.
_TINY = 1e-12

_REMEDY = "leave precision = 'int8' out of [runtime]"


def int8_graph(source: Path, target: Path, weight_bits: int = 8) -> int:
    """Write `target`: `source` with its products of activations and constant matrices in INT8.

    These are the products of all tokens: in the layers, and in ELECTRA's embeddings. Pooler and
    classifier, which read one token, attention scores and normalisations stay FP32.

    Args:
        source: A fused graph.
        target: The file to write, atomically.
        weight_bits: 8, or 7 (ONNX Runtime: reduce_range) for CPUs that add products in 16 bits; see
            `int8_probe`.

    Returns:
        The number of products that were replaced.

    Raises:
        MissingExtra: ONNX is not installed.
        CheckFailed: The graph has no such product, or cannot be read or written.
    """
    with needs_extra("build"):
        import onnx
    with failing_as(f"{source} cannot be quantised", _REMEDY):
        model = onnx.load(str(source))
        replaced = _quantise(model, weight_bits)
        if not replaced:
            raise CheckFailed(
                f"{source} has no product of all tokens with a constant matrix to compute in 8-bit "
                f"integers: {_REMEDY}"
            )
        save_graph(model, target)
    return replaced


def _quantise(model: Any, weight_bits: int) -> int:
    """Replace the products in place and return their number."""
    builder = _Builder(model, constants_of(model), (1 << (weight_bits - 1)) - 1)
    nodes: list[Any] = []
    for node in model.graph.node:
        if node.op_type == "MatMul" and builder.takes(node):
            nodes += builder.product(node)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *builder.tensors()])
    return builder.replaced


@dataclass
class _Builder:
    """Builds the integer products of one graph.

    Attributes:
        model: The graph's model.
        constants: Constants of the graph.
        largest: The largest weight as an integer.
        made: New constants.
        tokens: The zero point of each input that is already quantised.
        replaced: Number of products so far.
    """

    model: Any
    constants: dict[str, Any]
    largest: int
    made: dict[str, Any] = field(default_factory=dict[str, Any])
    tokens: dict[str, str] = field(default_factory=dict[str, str])
    replaced: int = 0

    def __post_init__(self) -> None:
        self._made_by = {name: node for node in self.model.graph.node for name in node.output}

    def takes(self, node: Any) -> bool:
        """Whether the second factor is a constant matrix."""
        return getattr(self.constants.get(node.input[1]), "ndim", 0) == 2

    def product(self, node: Any) -> list[Any]:
        """The nodes of y = x · W, with those that quantise x if it is not quantised yet."""
        from onnx import helper

        x, y = node.input[0], node.output[0]
        weight = self.constants[node.input[1]]
        nodes = [] if x in self.tokens else self._quantise(x, weight.shape[0])
        # (k, n) -> int8 (k, n) and float32 (n)
        scale = np.abs(weight).max(axis=0) / self.largest
        scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
        self.made[f"{y}_w"] = np.rint(weight / scale).astype(np.int8)
        self.made[f"{y}_w_scale"] = scale
        nodes.append(
            helper.make_node(
                "MatMulIntegerToFloat",
                [f"{x}_q", f"{y}_w", self._one(), f"{y}_w_scale", self.tokens[x]],
                [f"{y}_scaled"], f"{y}_int8", domain="com.microsoft",
            )
        )  # fmt: skip
        nodes.append(helper.make_node("Mul", [f"{y}_scaled", f"{x}_scale"], [y], f"{y}_float"))
        self.replaced += 1
        return nodes

    def tensors(self) -> list[Any]:
        """The new constants."""
        from onnx import numpy_helper

        return [numpy_helper.from_array(np.asarray(v), name) for name, v in self.made.items()]

    def _one(self) -> str:
        # The operator has one scale for all tokens; the scale of each token is applied afterwards.
        self.made.setdefault("int8_one", np.float32(1))
        return "int8_one"

    def _quantise(self, x: str, k: int) -> list[Any]:
        """From x (batch, length, k) to x_scale (batch, length, 1) and uint8 x_q, like x."""
        from onnx import TensorProto, helper

        producer = self._made_by.get(x)
        gelu = producer is not None and producer.op_type in _GELU
        zero = _GELU_ZERO if gelu else _MIDDLE
        self.tokens[x] = f"int8_zero_{zero}"
        steps = 255 - zero
        self.made.update(
            {
                f"int8_zero_{zero}": np.uint8(zero),
                f"int8_step_{zero}": np.float32(1 / steps),
                "int8_last": np.array([-1], np.int64),
                f"int8_matrix_{k}": np.array([-1, k], np.int64),
            }
        )

        def node(op: str, inputs: list[str], output: str, **attributes: Any) -> Any:
            return helper.make_node(op, inputs, [output], output, **attributes)

        highest = node("ReduceMax", [x, "int8_last"], f"{x}_max", keepdims=1)
        if gelu:  # the scale must also cover the lowest value
            self.made["int8_gelu"] = np.float32(_GELU_LOWEST / _GELU_ZERO)
            scale = [
                highest,
                node("Mul", [f"{x}_max", f"int8_step_{zero}"], f"{x}_high"),
                node("Max", [f"{x}_high", "int8_gelu"], f"{x}_scale"),
            ]
        else:
            self.made["int8_tiny"] = np.float32(_TINY)
            scale = [
                highest,
                node("ReduceMin", [x, "int8_last"], f"{x}_min", keepdims=1),
                node("Neg", [f"{x}_min"], f"{x}_low"),
                node("Max", [f"{x}_max", f"{x}_low", "int8_tiny"], f"{x}_high"),
                node("Mul", [f"{x}_high", f"int8_step_{zero}"], f"{x}_scale"),
            ]
        value = helper.make_tensor("value", TensorProto.UINT8, [1], [zero])
        return [
            *scale,
            # One scale and one zero point for each row of a matrix of all tokens.
            node("Reshape", [f"{x}_scale", "int8_last"], f"{x}_scales"),
            node("Shape", [f"{x}_scales"], f"{x}_count"),
            node("ConstantOfShape", [f"{x}_count"], f"{x}_zeros", value=value),
            node("Reshape", [x, f"int8_matrix_{k}"], f"{x}_matrix"),
            node(
                "QuantizeLinear", [f"{x}_matrix", f"{x}_scales", f"{x}_zeros"], f"{x}_codes",
                axis=0,
            ),
            node("Shape", [x], f"{x}_shape"),
            node("Reshape", [f"{x}_codes", f"{x}_shape"], f"{x}_q"),
        ]  # fmt: skip
