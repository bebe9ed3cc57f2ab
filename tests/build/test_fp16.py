"""Graphs for TensorRT: scaled queries, and FP16 with some operators in FP32."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from cascadebert_build.errors import UsageError
from cascadebert_build.graphs.fp16 import TENSORRT_OPSET, fp16_graph, scale_queries, tensorrt_graph
from tests.support.checkpoints import FAMILIES, save_checkpoint
from tests.support.exports import export_graph


@pytest.fixture(scope="module", params=list(FAMILIES))
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp(request.param)
    export_graph(save_checkpoint(folder / "c", request.param), folder / "model.onnx")
    yield request.param, folder / "model.onnx"


def feeds(path: Path) -> dict[str, NDArray[np.int32]]:
    """Padded rows; the last one is nearly all padding."""
    rng = np.random.default_rng(0)
    ids = rng.integers(4, 40, (6, 20)).astype(np.int32)
    mask = (np.arange(20) < np.array([[20], [17], [9], [5], [3], [2]])).astype(np.int32)
    values = {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": 0 * mask}
    names = [value.name for value in onnx.load(str(path)).graph.input]
    return {name: values[name] for name in names}


def run(path: Path, batch: dict[str, NDArray[np.int32]]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], batch)[0])


def test_the_fp32_graph_is_for_8_6_too_and_computes_the_same(
    exported: tuple[str, Path], tmp_path: Path
) -> None:
    _, path = exported
    assert tensorrt_graph(path, tmp_path / "fp32.onnx") == TENSORRT_OPSET
    batch = feeds(path)
    np.testing.assert_allclose(run(tmp_path / "fp32.onnx", batch), run(path, batch), atol=1e-4)


def test_the_fp16_graph_keeps_layer_norm_and_its_borders(
    exported: tuple[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("modelopt")
    family, path = exported
    fp32, fp16 = tmp_path / "fp32.onnx", tmp_path / "fp16.onnx"
    tensorrt_graph(path, fp32)
    batch = feeds(path)
    graph = fp16_graph(fp32, fp16, [batch])
    assert graph.fp16_nodes > 0.7 * graph.nodes
    norms = sum(n.op_type == "LayerNormalization" for n in onnx.load(str(fp32)).graph.node)
    assert graph.fp32_nodes.get("LayerNormalization", 0) == norms > 0
    logits = run(fp16, batch)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    # Weights with a standard deviation of 0.3 give larger activations than a trained member has.
    np.testing.assert_allclose(logits, run(path, batch), atol=0.1)
    graph = onnx.load(str(fp16)).graph
    tables = {t.name: t for t in graph.initializer}
    looked_up = [
        tables[n.input[0]] for n in graph.node if n.op_type == "Gather" and n.input[0] in tables
    ]
    words = max(looked_up, key=lambda table: int(np.prod(table.dims)))
    assert words.data_type == TensorProto.FLOAT16, f"{family}: the embeddings stayed in FP32"


def test_more_operators_can_be_kept(tmp_path: Path) -> None:
    pytest.importorskip("modelopt")
    export_graph(save_checkpoint(tmp_path / "c"), tmp_path / "model.onnx")
    tensorrt_graph(tmp_path / "model.onnx", tmp_path / "fp32.onnx")
    graph = fp16_graph(
        tmp_path / "fp32.onnx",
        tmp_path / "fp16.onnx",
        [feeds(tmp_path / "model.onnx")],
        ("LayerNormalization", "Softmax"),
    )
    assert graph.fp32_nodes["Softmax"] == 2  # one a layer


def test_scales_move_to_the_queries_and_weights_are_left_alone(tmp_path: Path) -> None:
    export_graph(save_checkpoint(tmp_path / "c"), tmp_path / "model.onnx")
    model: Any = onnx.load(str(tmp_path / "model.onnx"))
    products = sum(node.op_type == "MatMul" for node in model.graph.node)
    assert scale_queries(model) == 2  # one a layer
    onnx.checker.check_model(model)
    assert sum(node.op_type == "MatMul" for node in model.graph.node) == products
    assert scale_queries(model) == 0


def test_an_operator_that_the_graph_does_not_have_is_refused(tmp_path: Path) -> None:
    """Otherwise a typo would silently remove the protection of the default."""
    export_graph(save_checkpoint(tmp_path / "c"), tmp_path / "model.onnx")
    tensorrt_graph(tmp_path / "model.onnx", tmp_path / "fp32.onnx")
    with pytest.raises(UsageError, match=r"'LayerNorm', .* it has Add, .*LayerNormalization"):
        fp16_graph(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx", [], ("LayerNorm",))
