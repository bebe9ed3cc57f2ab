"""Fused and INT8 graphs: what they compute, and that a row's logits are its own.

Weights of 8 bits are tested for their accuracy if the CPU adds their products up exactly. If it
does not, they are tested for being refused. Weights of 7 bits have the same accuracy everywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from cascadebert_build.checkpoints.checkpoint import checkpoint_from_source, tokenizer_to_json
from cascadebert_build.errors import CheckFailed
from cascadebert_build.graphs.fused import failing_as, fused_graph
from cascadebert_build.graphs.int8 import int8_graph
from cascadebert_build.graphs.int8_probe import PROBE, has_exact_products, write_probe
from cascadebert_build.graphs.logits import StageInput, logits_of_rows
from cascadebert_build.graphs.session import OnnxSession
from cascadebert_build.stages import onnxruntime_session
from cascadebert_build.verification.comparison import ComparedCalls
from cascadebert_build.verification.optimized import verify_graph
from cascadebert_build.verification.reference import reference_of_texts
from cascadebert_core.batching import StageBatch
from cascadebert_core.tokenization import Encoder
from tests.support.checkpoints import TEXTS, save_checkpoint
from tests.support.cpu import this_cpu
from tests.support.exports import export_graph

BUCKETS = (8, 16, 32)


class Exported:
    """A tiny member as an ONNX file, with its stage input."""

    def __init__(self, folder: Path, family: str, seed: int = 0) -> None:
        source = save_checkpoint(folder / family, family, seed=seed)
        checkpoint = checkpoint_from_source(str(source))
        self.onnx = folder / f"{family}.onnx"
        export_graph(source, self.onnx)
        tokenizer = folder / f"{family}.json"
        tokenizer.write_text(tokenizer_to_json(checkpoint.tokenizer), encoding="utf-8")
        self.stage = StageInput(Encoder(tokenizer, 32), tuple(checkpoint.inputs), BUCKETS)

    def logits(self, graph: Path, *, regrouped: bool = False) -> np.ndarray:
        run = OnnxSession(graph).logits
        return logits_of_rows(run, self.stage, TEXTS, "", 16, regrouped=regrouped)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    # With this seed, random weights lose no more with 8 and 7 bits than trained ones do.
    return Exported(tmp_path_factory.mktemp("bert"), "bert", seed=2)


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(path)).graph.node]


@pytest.mark.parametrize(
    ("family", "attentions"), [("roberta", 2), ("distilbert", 2), ("deberta-v2", 0)]
)
def test_a_fused_graph_computes_what_the_exported_one_does(
    family: str, attentions: int, tmp_path: Path
) -> None:
    """DeBERTa has another form of attention, which stays; the rest is fused."""
    exported = Exported(tmp_path, family)
    fused = tmp_path / "fused.onnx"
    counts = fused_graph(exported.onnx, fused)
    assert counts.get("MultiHeadAttention", 0) == attentions
    assert counts["BiasGelu"] == 2
    assert "SkipLayerNormalization" not in operators(fused)
    np.testing.assert_allclose(
        exported.logits(fused), exported.logits(exported.onnx), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(
    ("factors", "fused_layers"),
    [((0.9, 1.0), 1), ((0.9, 0.9), 0), ((2**0.5, 2**0.5), 0)],
    ids=["first layer", "both layers", "both layers, that of half the width"],
)
def test_attention_of_another_scale_is_not_fused(
    bert: Exported, factors: tuple[float, float], fused_layers: int, tmp_path: Path
) -> None:
    """The fused operator has the scale 1 / sqrt(head width); any other scale must stay."""
    model = onnx.load(str(bert.onnx))
    constants = {t.name: t for t in model.graph.initializer}
    made_by = {n.output[0]: n for n in model.graph.node}
    adds = [made_by[n.input[0]] for n in model.graph.node if n.op_type == "Softmax"]
    assert len(adds) == len(factors)
    for layer, (add, factor) in enumerate(zip(adds, factors, strict=True)):
        scale = next(
            made_by[name]
            for name in add.input
            if name in made_by and made_by[made_by[name].input[0]].op_type == "MatMul"
        )
        assert scale.op_type == "Mul"
        value = onnx.numpy_helper.to_array(constants[scale.input[1]]) * np.float32(factor)
        scale.input[1] = f"scale_{layer}"  # the layers share theirs
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, scale.input[1]))
    other, fused = tmp_path / "other.onnx", tmp_path / "fused.onnx"
    onnx.save(model, str(other))
    assert fused_graph(other, fused).get("MultiHeadAttention", 0) == fused_layers
    assert not np.allclose(bert.logits(other), bert.logits(bert.onnx), atol=1e-3)
    np.testing.assert_allclose(bert.logits(fused), bert.logits(other), rtol=0, atol=1e-4)


@pytest.mark.parametrize("bits", [8, 7])
def test_int8_logits_are_near_and_independent_of_the_batch(
    bert: Exported, bits: int, tmp_path: Path
) -> None:
    fused, int8 = tmp_path / "fused.onnx", tmp_path / "int8.onnx"
    fused_graph(bert.onnx, fused)
    assert int8_graph(fused, int8, bits) == 12  # of each layer: q, k, v, attention, up, down
    weights = [
        onnx.numpy_helper.to_array(t)
        for t in onnx.load(str(int8)).graph.initializer
        if t.data_type == onnx.TensorProto.INT8
    ]
    largest = max(int(np.abs(w.astype(int)).max()) for w in weights)
    assert largest == (127 if bits == 8 else 63)
    check_int8(bert, int8, 12, bits)


@pytest.mark.parametrize(
    ("family", "products", "seed"),
    [("electra", 13, 2), ("roberta", 12, 3), ("distilbert", 12, 0)],
    ids=["electra", "roberta", "distilbert"],
)
def test_int8_graphs_of_other_families(
    family: str, products: int, seed: int, tmp_path: Path
) -> None:
    """ELECTRA's embeddings also have a product of all tokens, to the width of the layers."""
    exported = Exported(tmp_path, family, seed=seed)
    fused = tmp_path / "fused.onnx"
    fused_graph(exported.onnx, fused)
    for bits in (8, 7):
        int8 = tmp_path / f"int8-{bits}.onnx"
        assert int8_graph(fused, int8, bits) == products
        check_int8(exported, int8, products, bits)


def check_int8(exported: Exported, int8: Path, products: int, bits: int) -> None:
    """All products of all tokens are INT8, logits are near, and rows' own.

    If this CPU cuts off the sums of 8 bits, logits are far, and a stage refuses to load the graph.
    """
    assert operators(int8).count("MatMulIntegerToFloat") == products
    assert operators(int8).count("MatMul") == 0
    assert operators(int8).count("Gemm") == 2  # of one token: the pooler or its like, the labels
    assert unused_constants(int8) == set()  # ONNX Runtime warns of each, at every load
    exact, logits = exported.logits(exported.onnx), exported.logits(int8)
    near = np.abs(logits - exact).max() < 0.5 * max(1.0, exact.std())
    assert (logits != exact).any()
    assert near == (bits == 7 or this_cpu().is_exact), str(this_cpu())
    if bits == 8:
        check_a_stage_loads_it_if_sums_are_exact(int8)
    np.testing.assert_allclose(exported.logits(int8, regrouped=True), logits, rtol=0, atol=1e-3)


def check_a_stage_loads_it_if_sums_are_exact(int8: Path) -> None:
    """A published version folder with the probe."""
    folder = int8.parent / "version"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(int8.read_bytes())
    write_probe(folder / PROBE)
    if this_cpu().is_exact:
        onnxruntime_session.open_session(folder, None, {}).close()
        return
    with pytest.raises(RuntimeError, match="weights of 8 bits, and this CPU has no instructions"):
        onnxruntime_session.open_session(folder, None, {})


def unused_constants(path: Path) -> set[str]:
    graph = onnx.load(str(path)).graph
    return {t.name for t in graph.initializer} - {name for n in graph.node for name in n.input}


def one_product(path: Path, weight: np.ndarray, activation: str = "") -> Path:
    """x (rows, length, k) -> y = x · W, after an activation."""
    nodes = [helper.make_node("MatMul", ["a" if activation else "x", "w"], ["y"])]
    if activation:
        nodes.insert(0, helper.make_node(activation, ["x"], ["a"], domain="com.microsoft"))
    k, n = weight.shape
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["rows", "length", k])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["rows", "length", n])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path


@pytest.mark.parametrize("activation", ["", "Gelu"])
def test_a_token_of_nan_stays_nan_and_leaves_the_others_alone(
    activation: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    weight, x = (rng.normal(size=s).astype(np.float32) for s in ((16, 8), (2, 3, 16)))
    graph, int8 = one_product(tmp_path / "product.onnx", weight, activation), tmp_path / "int8.onnx"
    assert int8_graph(graph, int8, 7) == 1
    assert unused_constants(int8) == set()
    sound, exact = (run(path, x) for path in (int8, graph))
    np.testing.assert_allclose(sound, exact, rtol=0, atol=0.1 * np.abs(exact).max())
    x[1, 2] = np.nan
    y = run(int8, x)
    assert np.isnan(y[1, 2]).all()
    y[1, 2] = sound[1, 2]
    np.testing.assert_array_equal(y, sound)


def run(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": x})[0])


def test_a_graph_without_products_for_int8_is_refused(tmp_path: Path) -> None:
    graph = one_product(tmp_path / "product.onnx", np.ones((4, 4), np.float32))
    model = onnx.load(str(graph))
    model.graph.node[0].op_type = "Add"
    onnx.save(model, str(graph))
    with pytest.raises(CheckFailed, match=r"no product of all tokens .*leave precision = 'int8' o"):
        int8_graph(graph, tmp_path / "int8.onnx")
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize(
    ("make", "remedy"),
    [(fused_graph, "leave `optimize` and precision"), (int8_graph, "leave precision = 'int8' out")],
)
def test_what_libraries_raise_becomes_a_sentence(
    make: Callable[[Path, Path], object], remedy: str, tmp_path: Path
) -> None:
    """A graph that ONNX's checker refuses, because of an unknown operator."""
    graph = one_product(tmp_path / "product.onnx", np.ones((4, 4), np.float32))
    model = onnx.load(str(graph))
    model.graph.node[0].output[0] = "product"
    model.graph.node.append(helper.make_node("NoSuchOperator", ["product"], ["y"]))
    onnx.save(model, str(graph))
    with pytest.raises(CheckFailed, match=rf"\(ValidationError: .*NoSuchOperator.*\): {remedy}"):
        make(graph, tmp_path / "made.onnx")
    assert not (tmp_path / "made.onnx").exists()


def test_a_bare_assertion_of_a_library_is_named() -> None:
    with pytest.raises(CheckFailed, match=r"^it failed \(AssertionError\): do so$"):
        with failing_as("it failed", "do so"):
            raise AssertionError


def test_fusing_leaves_logging_as_it_was(bert: Exported, tmp_path: Path) -> None:
    logging.disable(logging.INFO)
    try:
        fused_graph(bert.onnx, tmp_path / "fused.onnx")
        assert logging.root.manager.disable == logging.INFO
    finally:
        logging.disable(logging.NOTSET)


def test_the_check_passes_int8_and_finds_scales_that_rows_share(
    bert: Exported, tmp_path: Path
) -> None:
    """ONNX Runtime's own dynamic quantisation is the graph that the check must refuse.

    It must refuse weights of 8 bits too if this CPU cuts off their sums.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    fused, int8, int7, shared = (
        tmp_path / f"{n}.onnx" for n in ("fused", "int8", "int7", "shared")
    )
    fused_graph(bert.onnx, fused)
    int8_graph(fused, int8, 8)
    int8_graph(fused, int7, 7)
    quantize_dynamic(fused, shared, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
    reference = reference_of_texts(OnnxSession(bert.onnx).logits, bert.stage, TEXTS)
    reports = {
        path.stem: verify_graph(
            OnnxSession(path).logits, reference, bert.stage,
            member="m", precision="fp32" if path is fused else "int8", max_batch_size=16,
            weight_bits=7 if path is int7 else 8,
        )
        for path in (fused, int8, int7, shared)
    }  # fmt: skip
    assert reports["fused"], reports["fused"].failures()
    assert reports["int7"], reports["int7"].failures()
    assert bool(reports["int8"]) == this_cpu().is_exact, reports["int8"].failures()
    assert {case.batch for case in reports["int8"].cases} <= {1, 4, 8, 16}
    every = reports["int8"].cases[0]
    assert (every.length, every.batch, every.rows) == (None, 1, len(reference.rows))
    assert not reports["shared"]
    assert any("depends on the rest of its batch" in f for f in reports["shared"].failures())


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


def test_the_check_compares_every_row_alone(bert: Exported) -> None:
    """An error in any row is found, although padded calls have only some of the rows."""
    exact = OnnxSession(bert.onnx).logits
    reference = reference_of_texts(exact, bert.stage, TEXTS)

    def failures(wrong: int, error: float) -> list[str]:
        ids = reference.rows[wrong].ids

        def damaged(batch: StageBatch) -> np.ndarray:
            logits = exact(batch).copy()
            tokens = batch.tensors["input_ids"][:, : len(ids)]
            if len(logits) == 1 and tokens.shape[1] == len(ids) and (tokens == ids).all():
                logits += np.float32(error)
            return logits

        return verify_graph(
            damaged, reference, bert.stage, member="m", precision="fp32", max_batch_size=4
        ).failures()

    last = reference.plain - 2  # no row of the few calls of one row
    assert any(
        "1 row of its own bucket: a logit differs by 5.0e-01" in f for f in failures(last, 0.5)
    )
    found = failures(last, float("nan"))
    assert any("1 row of its own bucket: 2 logits are NaN" in f for f in found)


def test_nan_alone_is_no_answer_of_its_own(bert: Exported) -> None:
    """A graph that fails for single rows: its full batches have no reference."""
    exact = OnnxSession(bert.onnx).logits
    reference = reference_of_texts(exact, bert.stage, TEXTS)

    def damaged(batch: StageBatch) -> np.ndarray:
        return exact(batch) * np.float32(np.nan if len(batch.tensors["input_ids"]) == 1 else 1)

    report = verify_graph(
        damaged, reference, bert.stage, member="m", precision="fp32", max_batch_size=4
    )
    assert any("4 rows" in f and "depends on the rest of its batch, by nan" in f
               for f in report.failures())  # fmt: skip


def test_fp32_logits_of_any_spread_have_one_tolerance(bert: Exported) -> None:
    """Logits ten times as large, and an error of twice the tolerance in all of them."""
    exact = OnnxSession(bert.onnx).logits
    small = reference_of_texts(exact, bert.stage, TEXTS)
    large = replace(small, logits=small.logits * np.float32(10))
    assert large.logits.std() > 4

    def slightly_off(batch: StageBatch) -> np.ndarray:
        return exact(batch) * np.float32(10) + np.float32(2e-3)

    fp32, int8 = (
        verify_graph(
            slightly_off, large, bert.stage, member="m", precision=precision, max_batch_size=4
        )
        for precision in ("fp32", "int8")
    )
    assert any("a logit differs by 2.0e-03 (tolerance 0.001)" in f for f in fp32.failures())
    assert int8
    assert int8.spread == float(large.logits[: large.plain].std())


def test_weights_of_7_bits_may_be_further_from_fp32(bert: Exported) -> None:
    """An error of 0.3 of the spread is out of tolerance for 8 bits only."""
    exact = OnnxSession(bert.onnx).logits
    reference = reference_of_texts(exact, bert.stage, TEXTS)
    spread = np.float32(max(1.0, reference.logits.std()))

    def off(batch: StageBatch) -> np.ndarray:
        return exact(batch) + np.float32(0.3) * spread

    of_8, of_7 = (
        verify_graph(
            off, reference, bert.stage,
            member="m", precision="int8", max_batch_size=4, weight_bits=bits,
        )
        for bits in (8, 7)
    )  # fmt: skip
    assert any("1% of the logits differ by more than" in failure for failure in of_8.failures())
    assert of_7, of_7.failures()


def test_tolerances_refuse_nan() -> None:
    calls = ComparedCalls(None, 1, 10, 1, 2e-3, 2e-3, 2e-3, 2e-3, 1.0, 0, 0.0, "row 1", "")
    assert not calls.failures(2e-3, 2e-3)
    assert len(calls.failures(1e-3, 1e-3)) == 2
    assert len(replace(calls, max_difference=float("nan")).failures(1.0, 1.0)) == 1


def test_the_probe_tells_exact_sums_from_others(tmp_path: Path) -> None:
    """The probe agrees with products of large integers on this CPU, in another order too."""
    probe = tmp_path / "probe.onnx"
    write_probe(probe)
    assert has_exact_products(probe) == adds_exactly(tmp_path / "products.onnx")
    model = onnx.load(str(probe))
    scale = next(t for t in model.graph.initializer if t.name == "scale")
    half = np.full(scale.dims, 0.5, np.float32)  # as if half of every sum were cut off
    scale.CopyFrom(onnx.numpy_helper.from_array(half, "scale"))
    onnx.save(model, str(probe))
    assert not has_exact_products(probe)


def adds_exactly(path: Path) -> bool:
    """Products of {0, 255} and {-127, 127} at random, against numpy's in 32 bits."""
    rng = np.random.default_rng(0)
    weight = rng.choice(np.array([-127, 127], np.int8), (192, 24))
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "products",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["rows", 192])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT32, ["rows", 24])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    inputs = [rng.choice(np.array([0, 255], np.uint8), (rows, 192)) for rows in (1, 4, 17)]
    return all((run(path, x) == x.astype(np.int32) @ weight.astype(np.int32)).all() for x in inputs)


def test_builder_and_stage_call_the_probe_the_same() -> None:
    assert onnxruntime_session._PROBE == PROBE  # pyright: ignore[reportPrivateUsage]
