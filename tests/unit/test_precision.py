"""The engine inspector's JSON of every generation, read for evidence of FP16."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cascadebert_engine.precision import evidence_from_inspector


def layer(kind: str, key: str, value: str, name: str = "layer") -> dict[str, Any]:
    tensor = {"Name": "x", "Dimensions": [-1, 32, 384], key: value}
    return {"Name": name, "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor]}


@pytest.mark.parametrize(
    ("key", "half", "single"),
    [
        ("Format/Datatype", "Row major linear FP16 format", "Row major linear FP32"),  # 8.6, 10
        ("Format/Datatype", "Half", "Float"),  # 10, shapes not known
        ("DataType", "Half", "Float"),  # 11
    ],
)
def test_types_of_every_generation(key: str, half: str, single: str) -> None:
    layers = [
        layer("gemm", key, half),
        layer("MatrixMultiply", key, half),
        layer("kgen", key, half, name="__mye_fmha_1"),
        layer("gemm", key, single),
        layer("Reformat", key, single),  # multiplies nothing
    ]
    evidence = evidence_from_inspector(json.dumps({"Layers": layers}))
    assert (evidence.half, evidence.single, evidence.opaque, evidence.layers) == (3, 1, 0, 5)
    # Three of four layers: enough for one limit, too little for the other.
    assert evidence.verdict(0.75) == "fp16"
    assert evidence.verdict(1.0) == "fp32"
    single_only = json.dumps({"Layers": [layer("gemm", key, single)] * 3})
    assert evidence_from_inspector(single_only).verdict(0.75) == "fp32"


def test_a_fused_transformer_tells_nothing() -> None:
    """TensorRT 8.6 makes one node of the graph, with INT32 inputs and an FP32 output."""
    node = {
        "Name": "{ForeignNode[bert.embeddings...Gemm_12]}",
        "LayerType": "Myelin",
        "Inputs": [{"Name": "input_ids", "Format/Datatype": "Row major linear INT32"}],
        "Outputs": [{"Name": "logits", "Format/Datatype": "Row major linear FP32"}],
    }
    evidence = evidence_from_inspector(json.dumps({"Layers": [node]}))
    assert (evidence.half, evidence.single, evidence.opaque) == (0, 0, 1)
    assert evidence.verdict(0.75) == "opaque"
    # An FP32 classifier beside it says nothing about the transformer.
    both = json.dumps({"Layers": [node, layer("MatrixMultiply", "Format/Datatype", "FP32")]})
    assert evidence_from_inspector(both).verdict(0.75) == "opaque"


def test_layers_that_only_bear_attention_in_their_names_are_not_counted() -> None:
    norm = layer("kgen", "DataType", "Float", name="/encoder/layer.0/attention/output/LayerNorm")
    assert evidence_from_inspector(json.dumps({"Layers": [norm]})).single == 0


def test_numbers_that_json_has_no_word_for() -> None:
    text = '{"Layers": [{"Name": "MatMul_1", "Alpha": -inf, "Betas": [nan, inf]}]}'
    assert evidence_from_inspector(text).opaque == 1


def test_names_alone_tell_nothing() -> None:
    evidence = evidence_from_inspector(json.dumps({"Layers": ["MatMul_1", "Relu_2"]}))
    assert (evidence.opaque, evidence.layers) == (1, 2)
    assert evidence.verdict(0.75) == "opaque"


@pytest.mark.parametrize("text", ["[]", "{}", '{"Layers": 3}', "no JSON"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Layers|Expecting value"):
        evidence_from_inspector(text)
