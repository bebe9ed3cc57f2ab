"""The plain mask replaces computed padding masks, and no other masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from cascadebert_build.graphs.mask import MASKED_SCORE, plain_mask
from tests.support.checkpoints import FAMILIES, save_checkpoint
from tests.support.exports import export_graph


@pytest.mark.parametrize("family", list(FAMILIES))
def test_exported_families_have_no_composed_mask(family: str, tmp_path: Path) -> None:
    export_graph(save_checkpoint(tmp_path / "c", family), tmp_path / "m.onnx")
    graph = onnx.load(str(tmp_path / "m.onnx")).graph
    if family == "deberta-v2":  # it masks inside its own attention
        return
    assert "GatherND" not in {node.op_type for node in graph.node}
    assert [n for n in graph.initializer if n.name == "mask_score"]
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            assert onnx.numpy_helper.to_array(tensor).min(initial=0) >= MASKED_SCORE


def mask_model(condition: list[Any], inputs: tuple[str, ...] = ("attention_mask",)) -> Any:
    """scores = Where(condition, 0, lowest) over (batch, 1, length, length), as output."""
    lowest = float(torch.finfo(torch.float32).min)
    nodes = [
        *condition,
        helper.make_node("Where", ["condition", "zero", "lowest"], ["scores"]),
        helper.make_node("Identity", ["scores"], ["logits"]),
    ]
    shape = ["batch", "length"]
    graph = helper.make_graph(
        nodes,
        "mask",
        [
            helper.make_tensor_value_info(name, TensorProto.INT32, shape)
            for name in ("input_ids", *inputs)
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, list("abcd"))],
        [
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
            helper.make_tensor("lowest", TensorProto.FLOAT, [], [lowest]),
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("window", TensorProto.INT64, [2], [0, 0]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


PADDING = [
    helper.make_node("Cast", ["attention_mask"], ["visible"], to=TensorProto.BOOL),
    helper.make_node("Unsqueeze", ["visible", "axes"], ["condition"]),
]
CAUSAL = [
    *PADDING[:1],
    helper.make_node("Unsqueeze", ["visible", "axes"], ["columns"]),  # (b, 1, 1, l)
    helper.make_node("Cast", ["columns"], ["columns_int"], to=TensorProto.INT32),
    helper.make_node("Transpose", ["columns_int"], ["rows_int"], perm=[0, 1, 3, 2]),
    helper.make_node("Mul", ["columns_int", "rows_int"], ["square"]),  # (b, 1, l, l)
    helper.make_node("Trilu", ["square"], ["lower"], upper=0),
    helper.make_node("Cast", ["lower"], ["condition"], to=TensorProto.BOOL),
]


def test_a_padding_mask_is_replaced_and_means_the_same() -> None:
    model = mask_model(PADDING)
    before = onnxruntime.InferenceSession(model.SerializeToString())
    assert plain_mask(model) == 1
    onnx.checker.check_model(model)
    assert "Where" not in {node.op_type for node in model.graph.node}
    after = onnxruntime.InferenceSession(model.SerializeToString())
    mask = np.array([[1, 1, 0], [1, 0, 0]], dtype=np.int32)
    feeds = {"input_ids": mask, "attention_mask": mask}
    old, new = (np.asarray(s.run(None, feeds)[0]) for s in (before, after))
    assert old.shape == new.shape == (2, 1, 1, 3)
    np.testing.assert_array_equal(old == 0, new == 0)
    assert set(new.ravel().tolist()) == {0.0, MASKED_SCORE}


def test_a_causal_mask_stays() -> None:
    model = mask_model(CAUSAL)
    text = model.SerializeToString()
    assert plain_mask(model) == 0
    assert model.SerializeToString() == text


def test_a_choice_that_is_no_mask_stays() -> None:
    model = mask_model(PADDING)
    lowest = next(t for t in model.graph.initializer if t.name == "lowest")
    lowest.float_data[0] = -1.0
    assert plain_mask(model) == 0
