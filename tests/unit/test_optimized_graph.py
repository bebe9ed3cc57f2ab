"""Fused and INT8 graphs: what they compute, and that a row's logits are its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from cascadebert_build.checkpoint import checkpoint_from_source, tokenizer_to_json
from cascadebert_build.exact_products import has_exact_products, write_probe
from cascadebert_build.export import onnx_from_checkpoint
from cascadebert_build.fused_graph import fused_graph
from cascadebert_build.int8_graph import int8_graph
from cascadebert_build.logits import StageInput, logits_of_rows
from cascadebert_build.reference import reference_of_texts
from cascadebert_build.session import OnnxSession
from cascadebert_build.verify_graph import verify_graph
from cascadebert_core.tokenization import Encoder
from tests.support.checkpoints import TEXTS, save_checkpoint

BUCKETS = (8, 16, 32)


class Exported:
    """A tiny member as an ONNX file, and how texts become its batches."""

    def __init__(self, folder: Path, family: str) -> None:
        checkpoint = checkpoint_from_source(str(save_checkpoint(folder / family, family)))
        self.onnx = folder / f"{family}.onnx"
        onnx_from_checkpoint(checkpoint, self.onnx)
        tokenizer = folder / f"{family}.json"
        tokenizer.write_text(tokenizer_to_json(checkpoint.tokenizer), encoding="utf-8")
        self.stage = StageInput(Encoder(tokenizer, 32), tuple(checkpoint.inputs), BUCKETS)

    def logits(self, graph: Path, *, regrouped: bool = False) -> np.ndarray:
        run = OnnxSession(graph).logits
        return logits_of_rows(run, self.stage, TEXTS, "", 16, regrouped=regrouped)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(tmp_path_factory.mktemp("bert"), "bert")


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(path)).graph.node]


@pytest.mark.parametrize(
    ("family", "attentions"), [("roberta", 2), ("distilbert", 2), ("deberta-v2", 0)]
)
def test_a_fused_graph_computes_what_the_exported_one_does(
    family: str, attentions: int, tmp_path: Path
) -> None:
    """DeBERTa's attention is of another form: it stays, and the rest is fused."""
    exported = Exported(tmp_path, family)
    fused = tmp_path / "fused.onnx"
    counts = fused_graph(exported.onnx, fused)
    assert counts.get("MultiHeadAttention", 0) == attentions
    assert counts["BiasGelu"] == 2
    assert "SkipLayerNormalization" not in operators(fused)
    np.testing.assert_allclose(
        exported.logits(fused), exported.logits(exported.onnx), rtol=0, atol=1e-4
    )


def test_attention_of_another_scale_is_not_fused(bert: Exported, tmp_path: Path) -> None:
    """The fused operator has 1 / sqrt(head width) built in; any other scale must survive."""
    model = onnx.load(str(bert.onnx))
    scores = next(n.input[0] for n in model.graph.node if n.op_type == "Softmax")
    add = next(n for n in model.graph.node if n.output[0] == scores)
    products = {n.output[0] for n in model.graph.node if n.op_type == "MatMul"}
    scale = next(n for n in model.graph.node if n.output[0] in add.input and n.input[0] in products)
    assert scale.op_type == "Mul"
    constant = next(t for t in model.graph.initializer if t.name == scale.input[1])
    value = onnx.numpy_helper.to_array(constant) * np.float32(0.9)
    constant.CopyFrom(onnx.numpy_helper.from_array(value, constant.name))
    other = tmp_path / "other.onnx"
    onnx.save(model, str(other))
    fused_graph(other, tmp_path / "fused.onnx")
    assert not np.allclose(bert.logits(other), bert.logits(bert.onnx), atol=1e-3)
    np.testing.assert_allclose(
        bert.logits(tmp_path / "fused.onnx"), bert.logits(other), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("bits", [8, 7])
def test_int8_logits_are_near_and_do_not_hang_on_the_batch(
    bert: Exported, bits: int, tmp_path: Path
) -> None:
    fused, int8 = tmp_path / "fused.onnx", tmp_path / "int8.onnx"
    fused_graph(bert.onnx, fused)
    assert int8_graph(fused, int8, bits) == 12  # of each layer: q, k, v, attention, up, down
    assert operators(int8).count("MatMulIntegerToFloat") == 12
    assert operators(int8).count("MatMul") == 0
    weights = [
        onnx.numpy_helper.to_array(t)
        for t in onnx.load(str(int8)).graph.initializer
        if t.data_type == onnx.TensorProto.INT8
    ]
    largest = max(int(np.abs(w.astype(int)).max()) for w in weights)
    assert largest == (127 if bits == 8 else 63)
    exact, logits = bert.logits(bert.onnx), bert.logits(int8)
    assert 0 < np.abs(logits - exact).max() < 0.5 * max(1.0, exact.std())
    np.testing.assert_allclose(bert.logits(int8, regrouped=True), logits, rtol=0, atol=1e-3)


def test_the_check_passes_int8_and_finds_scales_that_rows_share(
    bert: Exported, tmp_path: Path
) -> None:
    """ONNX Runtime's own dynamic quantisation is the graph that the check must refuse."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    fused, int8, shared = (tmp_path / f"{n}.onnx" for n in ("fused", "int8", "shared"))
    fused_graph(bert.onnx, fused)
    int8_graph(fused, int8)
    quantize_dynamic(fused, shared, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
    reference = reference_of_texts(OnnxSession(bert.onnx).logits, bert.stage, TEXTS)
    reports = {
        path.stem: verify_graph(
            OnnxSession(path).logits, reference, bert.stage,
            member="m", precision="fp32" if path is fused else "int8", max_batch_size=16,
        )
        for path in (fused, int8, shared)
    }  # fmt: skip
    assert reports["fused"], reports["fused"].failures()
    assert reports["int8"], reports["int8"].failures()
    assert {case.batch for case in reports["int8"].cases} == {1, 8, 16}
    assert not reports["shared"]
    assert any("hangs on the rest of its batch" in f for f in reports["shared"].failures())


def test_the_check_finds_a_damaged_weight_and_nan(bert: Exported, tmp_path: Path) -> None:
    fused = tmp_path / "fused.onnx"
    fused_graph(bert.onnx, fused)
    reference = reference_of_texts(OnnxSession(bert.onnx).logits, bert.stage, TEXTS)

    def report_with(factor: float) -> list[str]:
        model = onnx.load(str(fused))
        weight = next(t for t in model.graph.initializer if len(t.dims) == 2 and t.dims[1] == 48)
        array = onnx.numpy_helper.to_array(weight) * np.float32(factor)
        weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
        onnx.save(model, str(tmp_path / "damaged.onnx"))
        run = OnnxSession(tmp_path / "damaged.onnx").logits
        return verify_graph(
            run, reference, bert.stage, member="m", precision="fp32", max_batch_size=4
        ).failures()

    assert any("a logit differs by" in failure for failure in report_with(1.5))
    assert any("NaN or infinite" in failure for failure in report_with(float("nan")))


def test_the_probe_tells_exact_sums_from_others(tmp_path: Path) -> None:
    """On this CPU it says what a product of the same kind really gives."""
    probe = tmp_path / "probe.onnx"
    write_probe(probe)
    exact = has_exact_products(probe)
    model = onnx.load(str(probe))
    scale = next(t for t in model.graph.initializer if t.name == "scale")
    half = np.full(scale.dims, 0.5, np.float32)  # as if half of every sum were cut off
    scale.CopyFrom(onnx.numpy_helper.from_array(half, "scale"))
    onnx.save(model, str(probe))
    assert not has_exact_products(probe)
    assert isinstance(exact, bool)
