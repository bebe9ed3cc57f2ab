"""Tensors that transformers would leave out or replace by random ones are named by their names."""

from __future__ import annotations

import pytest

from cascadebert_build.checkpoints.weight_names import check_names, check_prefix, check_unused
from cascadebert_build.errors import UsageError

USED = {
    "bert.embeddings.word_embeddings.weight",
    "bert.encoder.layer.0.attention.self.query.weight",
    "bert.encoder.layer.0.output.dense.bias",
    "bert.pooler.dense.weight",
    "classifier.weight",
    "classifier.bias",
}


def test_the_names_of_a_plain_model_pass() -> None:
    check_names(USED, "x")
    assert check_unused((), USED, "x") == ()
    check_prefix((), {"other.weight"}, "x")


@pytest.mark.parametrize(
    ("prefix", "wrapper"),
    [("module.", "DataParallel"), ("_orig_mod.", "compile"), ("base_model.model.", "PEFT")],
)
def test_a_wrapped_model_is_named_by_its_wrapper(prefix: str, wrapper: str) -> None:
    with pytest.raises(UsageError, match=wrapper) as caught:
        check_names({prefix + name for name in USED}, "x")
    assert repr(prefix) in str(caught.value)
    check_names({*USED, prefix + "classifier.weight"}, "x")  # one alone is no wrapper


@pytest.mark.parametrize("prefix", ["model.", "net.encoder.", "0."])
def test_the_same_words_before_every_missing_name_are_found(prefix: str) -> None:
    unused = {prefix + name for name in USED} | {"loss.weight"}
    with pytest.raises(UsageError) as caught:
        check_prefix(USED, unused, "x")
    assert repr(prefix) in str(caught.value)
    check_prefix(USED, unused - {prefix + "classifier.bias"}, "x")


@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.0.attention.self.query.lora_A.default.weight",
        "bert.encoder.layer.0.attention.self.query.lora_B.weight",
        "bert.encoder.layer.0.attention.self.query.base_layer.weight",
        "classifier.modules_to_save.default.weight",
        "bert.encoder.layer.0.output.adapters.mine.adapter_up.weight",
    ],
)
def test_an_adapter_that_is_not_merged_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="merge_and_unload") as caught:
        check_names({*USED, name}, "x")
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "part", ["SCB", "weight.absmax", "weight.quant_state.bitsandbytes__nf4", "qweight"]
)
def test_quantised_weights_are_refused(part: str) -> None:
    with pytest.raises(UsageError, match="quantized"):
        check_names({*USED, f"bert.encoder.layer.0.output.dense.{part}"}, "x")


def test_layers_that_config_json_does_not_describe_are_refused() -> None:
    name = "bert.encoder.layer.1.output.dense.bias"
    with pytest.raises(UsageError, match="num_hidden_layers") as caught:
        check_unused({name}, USED, "x")
    assert name in str(caught.value)


def test_what_checkpoints_keep_of_their_pretraining_passes() -> None:
    relics = {
        "cls.predictions.bias",
        "lm_head.dense.weight",
        "roberta.pooler.dense.weight",
        "bert.embeddings.position_ids",
        "transformer.h.0.attn.bias",
        "transformer.h.0.attn.masked_bias",
        "model.encoder.version",
        "vocab_projector.bias",
        "loss_fct.weight",
    }
    assert check_unused(relics, USED, "x") == ()
    check_names(USED | relics, "x")


def test_other_tensors_are_returned_to_be_said() -> None:
    unused = {"pre_classifier.weight", "cls.predictions.bias", "layer_weights"}
    assert check_unused(unused, USED, "x") == ("layer_weights", "pre_classifier.weight")
