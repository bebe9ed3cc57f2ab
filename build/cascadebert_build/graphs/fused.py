"""An exported graph with ONNX Runtime's fused transformer operators, in FP32, for the CPU.

A session of ONNX Runtime fuses neither the attention nor the gelu of our exports.
`onnxruntime.transformers.optimizer` fuses both, once the mask and the scale of the attention have
the form that it expects.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np

from cascadebert_core.contract import ATTENTION_MASK

from ..errors import BuildError, CheckFailed, first_cause
from ..extras import needs_extra

# Increase it when the fused graph changes: graphs are then made again.
FUSED_VERSION = 1

_CONTRIB = "com.microsoft"  # the domain of ONNX Runtime's own operators
_ATTENTION = "MultiHeadAttention"
_NORM = "SkipLayerNormalization"
_COUNTED = (_ATTENTION, "BiasGelu", "Gelu", "LayerNormalization")


def fused_graph(source: Path, target: Path) -> dict[str, int]:
    """Write `target`, which computes the same as `source` in fewer passes over memory.

    Args:
        source: An exported graph.
        target: The file to write, atomically.

    Returns:
        The number of fused nodes by their types. Attention of a form that the optimiser does not
        recognise stays as it is.

    Raises:
        MissingExtra: ONNX or ONNX Runtime is not installed.
        CheckFailed: The optimiser fails on the graph.
    """
    with needs_extra("build"):
        import onnx
    with failing_as(
        f"{source} cannot be optimised by ONNX Runtime's transformer optimiser",
        "leave `optimize` and precision = 'int8' out of [runtime]",
    ):
        model = onnx.load(str(source))
        constants = constants_of(model)
        heads, width = _attention_shape(model, constants)
        _known_mask(model)
        if heads:
            _known_scale(model, constants, width // heads)
        fused = _fuse(model, heads, width)
        _plain_norms(fused)
        save_graph(fused, target)
    counts = Counter(node.op_type for node in fused.graph.node)
    return {name: counts[name] for name in _COUNTED if counts[name]}


@contextmanager
def failing_as(what: str, remedy: str) -> Generator[None, None, None]:
    """Turn any exception of a library into one message: what failed, why, and the remedy.

    Raises:
        CheckFailed: The block raised an exception that is not a `BuildError`.
    """
    try:
        yield
    except BuildError:  # a missing package, for example
        raise
    except Exception as exc:
        raise CheckFailed(f"{what} ({first_cause(exc)}): {remedy}") from exc


def save_graph(model: Any, target: Path) -> None:
    """Check a graph and write it atomically."""
    import onnx

    onnx.checker.check_model(model)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    onnx.save(model, str(temporary))
    temporary.replace(target)


def constants_of(model: Any) -> dict[str, Any]:
    """The graph's constants as arrays, by name."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _fuse(model: Any, heads: int, width: int) -> Any:
    with needs_extra("build"), _quiet():
        from onnxruntime.transformers.fusion_options import FusionOptions
        from onnxruntime.transformers.optimizer import optimize_by_fusion
    options = FusionOptions("bert")
    # Unlike Attention, MultiHeadAttention keeps the projections as separate multiplications.
    options.use_multi_head_attention = True
    # The mask itself and not the number of its ones: callers of a stage may mask any token.
    options.use_raw_attention_mask(True)
    options.enable_embed_layer_norm = False
    with _quiet():
        optimised = cast("Any", optimize_by_fusion)(
            model, "bert", num_heads=heads, hidden_size=width, optimization_options=options
        )
        optimised.topological_sort()
    fused = optimised.model
    if not any(opset.domain == _CONTRIB for opset in fused.opset_import):
        fused.opset_import.add(domain=_CONTRIB, version=1)
    return fused


def _scales(model: Any, constants: dict[str, Any]) -> list[Any]:
    """The Mul node of every attention, from its pattern MatMul, Mul, Add, Softmax."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    found: list[Any] = []
    for node in model.graph.node:
        add = made_by.get(node.input[0]) if node.op_type == "Softmax" else None
        if add is None or add.op_type != "Add":
            continue
        for name in add.input:
            scale = made_by.get(name)
            if scale is None or scale.op_type != "Mul" or scale.input[1] not in constants:
                continue
            product = made_by.get(scale.input[0])
            if product is not None and product.op_type == "MatMul":
                found.append(scale)
    return found


def _attention_shape(model: Any, constants: dict[str, Any]) -> tuple[int, int]:
    """Heads and width of the attention, derived from scale and query; zeros if unknown."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    for scale in _scales(model, constants):
        value = constants[scale.input[1]]
        head = round(float(value.item()) ** -2) if value.size == 1 and value.item() > 0 else 0
        node = made_by.get(made_by[scale.input[0]].input[0])  # the query: Transpose, Reshape, Add
        while node is not None and node.op_type in {"Transpose", "Reshape", "Add"}:
            node = next((made_by[name] for name in node.input if name in made_by), None)
        if head and node is not None and node.op_type == "MatMul" and node.input[1] in constants:
            width = int(constants[node.input[1]].shape[1])
            if width % head == 0:
                return width // head, width
    return 0, 0


def _known_mask(model: Any) -> None:
    """Rewrite the plain mask of our exports: add its axes one by one, then cast it."""
    from onnx import TensorProto, helper

    graph = model.graph
    old = [node for node in graph.node if node.output[0] in {"mask_float", "mask_4d"}]
    if len(old) != 2:  # a mask of another form stays as it is
        return
    for node in old:
        graph.node.remove(node)
    for axis in (1, 2):
        graph.initializer.append(
            helper.make_tensor(f"mask_axis_{axis}", TensorProto.INT64, [1], [axis])
        )
    nodes = [
        helper.make_node("Unsqueeze", [ATTENTION_MASK, "mask_axis_1"], ["mask_3d"]),
        helper.make_node("Unsqueeze", ["mask_3d", "mask_axis_2"], ["mask_4d_int"]),
        helper.make_node("Cast", ["mask_4d_int"], ["mask_4d"], to=TensorProto.FLOAT),
    ]
    for i, node in enumerate(nodes):
        node.name = node.output[0]
        graph.node.insert(i, node)


def _known_scale(model: Any, constants: dict[str, Any], head: int) -> None:
    """Replace multiplications by 1 / sqrt(width of a head) with divisions.

    The fused operator applies this scale itself. A multiplication by another scale stays, and the
    optimiser does not fuse it. If all scales are those of another head width, they become divisions
    too, but then the optimiser finds no number of heads that fits its reshapes.
    """
    from onnx import numpy_helper

    root = np.sqrt(np.float32(head))
    model.graph.initializer.append(numpy_helper.from_array(root, "attention_root"))
    for scale in _scales(model, constants):
        if np.allclose(constants[scale.input[1]] * root, 1.0, rtol=1e-5):
            scale.op_type = "Div"
            scale.input[1] = "attention_root"


def _plain_norms(model: Any) -> None:
    """Replace every SkipLayerNormalization with a sum and a LayerNormalization.

    The CPU kernel of SkipLayerNormalization takes twelve times as long (ONNX Runtime 1.32). A
    session would fuse additions again when it loads the graph, but not a Sum of three.
    """
    from onnx import helper

    nodes: list[Any] = []
    for node in model.graph.node:
        if node.op_type != _NORM or any(node.output[1:]):  # its other outputs are used
            nodes.append(node)
            continue
        inputs = [name for name in (*node.input[:2], *node.input[4:5]) if name]
        epsilon = {a.name: helper.get_attribute_value(a) for a in node.attribute}["epsilon"]
        total = f"{node.output[0]}_sum"
        nodes.append(helper.make_node("Sum", inputs, [total], total))
        nodes.append(
            helper.make_node(
                "LayerNormalization", [total, *node.input[2:4]], node.output[:1], node.name,
                axis=-1, epsilon=epsilon,
            )
        )  # fmt: skip
    del model.graph.node[:]
    model.graph.node.extend(nodes)


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Silence the optimiser, which also writes to the root logger."""
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.ERROR))
    try:
        yield
    finally:
        logging.disable(disabled)
