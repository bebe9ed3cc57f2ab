"""Multiply-accumulates of graphs whose weights are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from cascadebert_build.errors import UsageError
from cascadebert_build.graphs.macs import macs_per_token


def save_graph(
    folder: Path, nodes: Sequence[NodeProto], weights: dict[str, tuple[int, ...]],
    shapes: dict[str, list[int | str]],
) -> Path:  # fmt: skip
    """A graph from "x" (batch, length, 8) to "logits" (batch, 2)."""

    def value(name: str, shape: list[int | str]) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        list(nodes),
        "graph",
        [value("x", ["batch", "length", 8])],
        [value("logits", ["batch", 2])],
        [
            numpy_helper.from_array(np.ones(shape, np.float32), name)
            for name, shape in weights.items()
        ],
        value_info=[value(name, shape) for name, shape in shapes.items()],
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph), str(path))
    return path


def test_products_of_tokens_and_weights_count_and_nothing_else_does(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["embeddings", "ids"], ["looked_up"]),
        helper.make_node("MatMul", ["x", "up"], ["wide"]),  # 8 * 16
        helper.make_node("MatMul", ["wide", "down"], ["narrow"]),  # 16 * 8
        helper.make_node("MatMul", ["narrow", "scores"], ["attention"]),  # two activations
        helper.make_node("MatMul", ["positions", "up"], ["relative"]),  # two constants
        helper.make_node("Identity", ["relative"], ["known"]),
        helper.make_node("MatMul", ["x", "known"], ["with_positions"]),  # not a weight
        helper.make_node("Gather", ["narrow", "zero"], ["first"], axis=1),
        helper.make_node("Gemm", ["first", "head"], ["logits"], transB=1),  # once a row
    ]
    weights = {
        "embeddings": (100, 8), "up": (8, 16), "down": (16, 8), "positions": (4, 8), "head": (2, 8),
    }  # fmt: skip
    path = save_graph(tmp_path, nodes, weights, {"first": ["batch", 8]})
    assert macs_per_token(path) == 8 * 16 + 16 * 8


def test_a_weight_counts_each_time_and_behind_its_transpose(tmp_path: Path) -> None:
    constant = numpy_helper.from_array(np.ones((8, 8), np.float32))
    nodes = [
        helper.make_node("Transpose", ["shared"], ["turned"]),
        helper.make_node("Constant", [], ["inline"], value=constant),
        helper.make_node("MatMul", ["x", "turned"], ["a"]),
        helper.make_node("MatMul", ["a", "shared"], ["b"]),
        helper.make_node("MatMul", ["inline", "b"], ["c"]),  # from the left
    ]
    assert macs_per_token(save_graph(tmp_path, nodes, {"shared": (8, 8)}, {})) == 3 * 64


def test_a_gemm_over_flattened_tokens_counts(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gemm", ["tokens", "weight", "bias"], ["y"])]
    shapes: dict[str, list[int | str]] = {"tokens": ["batch*length", 8]}
    path = save_graph(tmp_path, nodes, {"weight": (8, 5), "bias": (5,)}, shapes)
    assert macs_per_token(path) == 40


def test_no_weight_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    path = save_graph(tmp_path, [helper.make_node("MatMul", ["x", "x"], ["y"])], {}, {})
    with pytest.raises(UsageError, match=r"model\.onnx has no MatMul or Gemm .*export --force"):
        macs_per_token(path)


def test_what_is_no_graph_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(UsageError, match=r"cannot be read as an ONNX graph .*export --force"):
        macs_per_token(path)
    with pytest.raises(UsageError, match="cannot be read"):
        macs_per_token(tmp_path / "absent.onnx")


@pytest.mark.parametrize("family", ["bert", "distilbert", "deberta-v2"])
def test_an_exported_checkpoint_costs_what_its_layers_say(tmp_path: Path, family: str) -> None:
    from tests.support.checkpoints import save_checkpoint
    from tests.support.exports import export_graph

    export_graph(save_checkpoint(tmp_path / family, family), tmp_path / "model.onnx")
    # Two layers: queries, keys, values and output of 32 x 32, and 32 x 48 up and down.
    assert macs_per_token(tmp_path / "model.onnx") == 2 * (4 * 32 * 32 + 2 * 32 * 48)
