"""Rewrites the attention mask of an exported graph in the plain form that runtimes recognise.

transformers computes the mask with ranges, comparisons and a GatherND, and gives masked positions
the lowest float32. TensorRT and the fusions of ONNX Runtime expect (1 - mask) * c instead. FP16
must be able to hold c: its lowest number is -65504, and an infinite c turns a row of padding into
NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cascadebert_core.contract import ATTENTION_MASK, INPUT_IDS

# BERT itself was trained with it. exp(-10000) is 0 in float32 and in float16, and adding a score to
# it stays far from the end of float16's range.
MASKED_SCORE = -1e4

# Shapes on which the plain mask must equal the computed one before it replaces it. The long one is
# wider than the windows of local attention.
_PROBES = ((1, 2), (3, 7), (2, 600))


def plain_mask(model: Any) -> int:
    """Replace computed padding masks in an ONNX model, in place.

    A mask is replaced only if it equals the plain one on probing inputs. Causal masks and local
    windows stay as they are.

    Args:
        model: An onnx.ModelProto, as exported.

    Returns:
        The number of masks that were replaced.
    """
    from onnx import TensorProto, helper

    masks = [node for node in model.graph.node if node.op_type == "Where" and _lowest(model, node)]
    replaced = [node for node in masks if _is_padding_mask(model, node.output[0])]
    if not replaced:
        return 0
    # (batch, length) of 0 and 1 -> (batch, 1, 1, length) of MASKED_SCORE and 0
    nodes = [
        helper.make_node("Cast", [ATTENTION_MASK], ["mask_float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask_float", "mask_axes"], ["mask_4d"]),
        helper.make_node("Sub", ["mask_one", "mask_4d"], ["mask_inverted"]),
        helper.make_node("Mul", ["mask_inverted", "mask_score"], ["mask_scores"]),
    ]
    model.graph.initializer.extend(
        [
            helper.make_tensor("mask_axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("mask_one", TensorProto.FLOAT, [], [1.0]),
            helper.make_tensor("mask_score", TensorProto.FLOAT, [], [MASKED_SCORE]),
        ]
    )
    renamed = {node.output[0]: "mask_scores" for node in replaced}
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
    for node in replaced:
        model.graph.node.remove(node)
    for i, node in enumerate(nodes):
        node.name = node.output[0]
        model.graph.node.insert(i, node)
    _remove_unused(model.graph)
    return len(replaced)


def plain_mask_in_file(path: Path) -> int:
    """`plain_mask` on a saved model; the file is written again if a mask was replaced."""
    import onnx

    model = onnx.load(str(path))
    replaced = plain_mask(model)
    if replaced:
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
    return replaced


def _lowest(model: Any, node: Any) -> bool:
    """Whether a Where node chooses between 0 and a score that masks a token."""
    from onnx import numpy_helper

    constants = {t.name: t for t in model.graph.initializer}
    if any(name not in constants for name in node.input[1:]):
        return False
    values = [numpy_helper.to_array(constants[name]) for name in node.input[1:]]
    if any(value.size != 1 or value.dtype != np.float32 for value in values):
        return False
    visible, masked = (float(value.reshape(())) for value in values)
    return visible == 0.0 and masked < MASKED_SCORE


def _is_padding_mask(model: Any, output: str) -> bool:
    """Whether a tensor of the graph equals the plain mask, up to the score, on all probes."""
    import onnxruntime
    from onnx import ModelProto, helper

    part = ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:]
    part.graph.output.append(helper.make_tensor_value_info(output, 1, None))
    _remove_unused(part.graph)
    used = {name for node in part.graph.node for name in node.input}
    names = [value.name for value in part.graph.input]
    if ATTENTION_MASK not in used:
        return False
    session = onnxruntime.InferenceSession(
        part.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return all(
        _equals_plain(session.run([output], feeds)[0], feeds[ATTENTION_MASK])
        for feeds in _probing_inputs(names)
    )


def _probing_inputs(names: list[str]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    rng = np.random.default_rng(0)
    for rows, length in _PROBES:
        ones = {name: np.ones((rows, length), dtype=np.int32) for name in names}
        mask = (rng.random((rows, length)) < 0.5).astype(np.int32)
        mask[:, 0] = 1
        yield {**ones, ATTENTION_MASK: mask, INPUT_IDS: ones[INPUT_IDS]}


def _equals_plain(computed: Any, mask: Any) -> bool:
    """Whether scores are 0 where `mask` is 1 and masked elsewhere, for every query."""
    if computed.ndim != 4:
        return False
    wanted = np.broadcast_to(mask[:, None, None, :] == 1, computed.shape)
    return bool(((computed == 0) == wanted).all() and (computed[~wanted] < MASKED_SCORE).all())


def _remove_unused(graph: Any) -> None:
    """Remove nodes and constants that no output needs."""
    needed = {value.name for value in graph.output}
    kept: list[Any] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    values = [value for value in graph.value_info if value.name in needed]
    del graph.value_info[:]
    graph.value_info.extend(values)
