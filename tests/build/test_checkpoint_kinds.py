"""Checkpoints of many kinds, as people have them: loaded right, or refused with a remedy."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from cascadebert_build.checkpoints.checkpoint import (
    Checkpoint,
    checkpoint_from_source,
    config_from_source,
    sha256_of_checkpoint,
)
from cascadebert_build.checkpoints.logits import logits_of_checkpoint
from cascadebert_build.cli import main
from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_build.errors import UsageError
from cascadebert_build.pipeline import export as export_module
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.pipeline.member_warnings import warn_of_unused_weights
from cascadebert_build.pipeline.workspace import workspace_of
from cascadebert_core.policy import policy_from_json, policy_to_json
from tests.support.checkpoints import make_tokenizer, save_checkpoint, write_config
from tests.support.families import trained_tokenizer

_SIZES = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "max_position_embeddings": 66,
    "embedding_size": 32,
    "n_embd": 32,
    "n_head": 2,
    "n_layer": 2,
    "n_positions": 66,
    "head_dim": 16,
}


def save_family(folder: Path, family: str, **config: Any) -> Path:
    """A small random classifier of any family of transformers, with BERT's tokenizer."""
    tokenizer = make_tokenizer()
    config_class = transformers.CONFIG_MAPPING[family]
    default = config_class()
    sizes: dict[str, Any] = {key: value for key, value in _SIZES.items() if hasattr(default, key)}
    sizes |= {"vocab_size": len(tokenizer), "pad_token_id": 0, "num_labels": 2}
    settings = config_class(**{**sizes, **config})
    transformers.set_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(settings)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def edit(folder: Path, name: str = "config.json", **changes: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def steps_of(folder: Path, checkpoint: Path, **keys: Any) -> CascadeBuild:
    config = config_from_file(write_config(folder, {"only": checkpoint}, **keys))
    return CascadeBuild(config, workspace_of(config, None))


def loaded(folder: Path, **keys: Any) -> Checkpoint:
    return checkpoint_from_source(str(folder), **keys)


def message_of(folder: Path, **keys: Any) -> str:
    """The sentence that refuses a checkpoint."""
    with pytest.raises(UsageError) as caught:
        loaded(folder, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("family", "positions"),
    [
        ("roformer", 66),  # its sinusoidal table has an end, too
        ("gpt2", 66),
        ("ibert", 65),  # a table that is no nn.Embedding, after the padding id
        ("mra", 66),  # two more rows than positions
        ("modernbert", 66),  # rotary
        ("t5", None),  # relative
    ],
)
def test_the_longest_sequence_is_known(tmp_path: Path, family: str, positions: int | None) -> None:
    assert loaded(save_family(tmp_path / family, family)).max_positions() == positions


def test_a_length_past_the_positions_is_refused_before_the_export(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, save_family(tmp_path / "a", "roformer"), max_length=67)
    with pytest.raises(UsageError, match=r"max_length is 67 .* positions for 66"):
        steps.export(steps.config.members[0])
    assert not steps.workspace.folder.exists()


def test_a_decoder_with_an_underscore_and_a_tokenizer_without_mask_reach_a_policy(
    tmp_path: Path,
) -> None:
    folder = save_family(tmp_path / "a", "gpt_neox")
    edit(folder, "tokenizer_config.json", model_input_names=["input_ids"])
    steps = steps_of(tmp_path, folder)
    (member,) = steps.config.members
    manifest = steps.export(member).manifest
    assert manifest.inputs == ("input_ids", "attention_mask")
    assert manifest.tokenizer.startswith("gpt-neox-")
    assert steps.verify(member)
    policy = steps.draft()
    assert policy_from_json(policy_to_json(policy)) == policy


@pytest.mark.parametrize("pad", [None, 3])
def test_a_decoder_must_know_the_padding_of_its_tokenizer(tmp_path: Path, pad: int | None) -> None:
    folder = edit(save_family(tmp_path / "a", "gpt2"), pad_token_id=pad)
    message = message_of(folder)
    assert f"pad_token_id = {json.dumps(pad)}" in message
    assert "write 0 there" in message
    assert loaded(edit(folder, pad_token_id=0)).inputs == ("input_ids", "attention_mask")
    encoder = edit(save_checkpoint(tmp_path / "b"), pad_token_id=pad)
    assert loaded(encoder).labels == ("negative", "positive"), "an encoder has a mask"


def without_files(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


def with_files_of_another_kind(folder: Path) -> None:
    without_files(folder)
    (folder / "vocab.json").write_text('{"<s>": 0, "<unk>": 1, "t": 2}')
    (folder / "merges.txt").write_text("#version: 0.2\n")


def with_more_tokens(folder: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["newword"])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("family", ["bert", "electra", "roberta", "deberta-v2"])
@pytest.mark.parametrize("spoil", [without_files, with_files_of_another_kind, with_more_tokens])
def test_a_vocabulary_that_is_not_the_members_is_refused(
    tmp_path: Path, family: str, spoil: Callable[[Path], None]
) -> None:
    folder = save_checkpoint(tmp_path / "a", family)
    spoil(folder)
    assert "tokenizer" in message_of(folder)


def test_weights_of_other_shapes_are_named_whatever_their_format(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "a")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert loaded(folder).labels == ("negative", "positive")
    message = message_of(edit(folder, intermediate_size=96))
    assert "[48]" in message
    assert "[96]" in message
    edit(folder, intermediate_size=48, id2label={str(i): f"l{i}" for i in range(3)}, label2id=None)
    assert "classifier" in message_of(folder)


def rename_weights(folder: Path, rename: Callable[[str], str]) -> None:
    weights = load_file(folder / "model.safetensors")
    renamed = {rename(name): weight for name, weight in weights.items()}
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})


def test_layers_that_config_json_does_not_describe_are_not_left_out(tmp_path: Path) -> None:
    folder = edit(save_checkpoint(tmp_path / "a"), num_hidden_layers=1)
    assert "encoder.layer.1." in message_of(folder)
    assert "merge_and_unload" not in message_of(folder)
    assert loaded(edit(folder, num_hidden_layers=2)).unused == ()
    assert "fine-tune" in message_of(edit(folder, num_hidden_layers=3)), "and none is random"


def test_weights_of_a_class_around_the_model_are_named(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "a")
    rename_weights(folder, lambda name: f"net.{name}")
    assert "'net.'" in message_of(folder)
    rename_weights(folder, lambda name: name.removeprefix("net."))
    assert loaded(folder).unused == ()


def test_old_names_of_weights_are_read_and_unknown_ones_are_kept_to_be_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_checkpoint(tmp_path / "a", dtype=torch.bfloat16)
    now = loaded(folder).model.state_dict()
    rename_weights(
        folder,
        lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ),
    )
    weights = load_file(folder / "model.safetensors")
    weights["pre_classifier.weight"] = torch.zeros(32, 32)
    weights["cls.predictions.bias"] = torch.zeros(9)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    checkpoint = loaded(folder)
    assert all(torch.equal(now[name], each) for name, each in checkpoint.model.state_dict().items())
    assert checkpoint.unused == ("pre_classifier.weight",)
    assert "LOAD REPORT" not in capsys.readouterr().err
    warn_of_unused_weights("small", checkpoint)
    assert "pre_classifier.weight" in capsys.readouterr().err


def test_a_checkpoint_of_torchscript_gives_logits_and_not_tuples(tmp_path: Path) -> None:
    texts = ["the film was good", "dull, really"]
    folder = save_checkpoint(tmp_path / "a")
    expected = logits_of_checkpoint(str(folder), texts, ["negative", "positive"], 16, "")
    edit(folder, return_dict=False, torchscript=True, output_attentions=True)
    found = logits_of_checkpoint(str(folder), texts, ["negative", "positive"], 16, "")
    assert np.array_equal(found, expected)


def test_a_model_that_labels_tokens_is_refused_although_its_head_would_fit(tmp_path: Path) -> None:
    folder = save_family(tmp_path / "a", "qwen2")
    config = transformers.AutoConfig.from_pretrained(folder)
    transformers.AutoModelForTokenClassification.from_config(config).save_pretrained(folder)
    assert "Qwen2ForTokenClassification" in message_of(folder)


def test_a_tokenizer_that_transformers_reads_otherwise_is_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "a", tokenizer=trained_tokenizer("causal"))
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    split = {"type": "Split", "pattern": {"String": "o"}, "behavior": "Isolated", "invert": False}
    own = content["pre_tokenizer"]
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, own]}
    path.write_text(json.dumps(content))
    written = Tokenizer.from_file(str(path)).encode("good film").ids
    assert loaded(folder).tokenizer("good film")["input_ids"] == written
    edit(folder, "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    assert "PreTrainedTokenizerFast" in message_of(folder)
    edit(folder, "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert loaded(folder).tokenizer("good film")["input_ids"] == written


def test_weights_that_are_not_finite_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "a")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    steps = steps_of(tmp_path, folder)
    with pytest.raises(UsageError, match="not finite"):
        steps.export(steps.config.members[0])
    assert not (tmp_path / "work").exists()


def test_a_family_that_cannot_be_traced_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("cannot be traced " * 2000 + "\nmore")

    monkeypatch.setattr(torch.onnx, "export", fail)
    config = write_config(tmp_path, {"only": save_checkpoint(tmp_path / "a")})
    assert main(["export", str(config)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "cannot be exported to ONNX" in error
    assert len(error) < 800
    assert not (tmp_path / "work").exists()


def without_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "score" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def not_finite(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"][0, 0] = float("inf")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (without_head, "no classification head"),
        (not_finite, "not finite"),
        (lambda folder: edit(folder, pad_token_id=None), "pad_token_id = null"),
        (lambda folder: edit(folder, problem_type="regression"), "regression head"),
        (lambda folder: edit(folder, "tokenizer_config.json", pad_token=None), "padding token"),
        (None, "positions for 66"),
    ],
)
@pytest.mark.parametrize("command", ["build", "export"])
def test_the_last_member_is_loaded_before_the_first_is_exported(
    command: str,
    spoil: Callable[[Path], object] | None,
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def reached(*_: object) -> NoReturn:
        raise AssertionError("an export began")

    monkeypatch.setattr(export_module, "onnx_from_checkpoint", reached)
    # A bare table of positions has no name by which its rows are known without loading it.
    family = "gpt2" if spoil else "roformer"
    last = save_family(tmp_path / "last", family, num_hidden_layers=1, n_layer=1)
    names = {"0": "negative", "1": "positive"}
    edit(last, id2label=names, label2id={name: int(i) for i, name in names.items()})
    if spoil:
        spoil(last)
    members = {"first": save_checkpoint(tmp_path / "first"), "last": last}
    config = write_config(tmp_path, members, max_length=32 if spoil else 67)
    if not spoil:
        save_checkpoint(tmp_path / "first", max_position_embeddings=80)
    more = ["--model-repository", str(tmp_path / "repository")] if command == "build" else []
    assert main([command, str(config), *more]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert word in error
    assert not (tmp_path / "work").exists()
    assert not (tmp_path / "repository").exists()


# --- code that a checkpoint brings


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint whose classes are in a file beside its weights."""
    from transformers import dynamic_module_utils

    # The modules of the cache are imported through this folder.
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = edit(
        save_checkpoint(tmp_path / "own"),
        model_type="mine",
        auto_map={
            "AutoConfig": "mine.MineConfig",
            "AutoModelForSequenceClassification": "mine.Mine",
        },
    )
    (folder / "mine.py").write_text(
        "from pathlib import Path\n"
        "from transformers import BertConfig, BertForSequenceClassification\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class MineConfig(BertConfig):\n    model_type = 'mine'\n"
        "class Mine(BertForSequenceClassification):\n    config_class = MineConfig\n"
    )
    return folder


def test_code_of_a_checkpoint_runs_only_for_members_that_are_trusted(
    own_code: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def keep(checkpoint: Checkpoint, path: Path) -> None:
        path.write_bytes(type(checkpoint.model).__name__.encode())

    monkeypatch.setattr(export_module, "onnx_from_checkpoint", keep)
    members = {"first": save_checkpoint(tmp_path / "first"), "only": own_code}
    config = write_config(tmp_path, members)
    assert main(["export", str(config)]) == 2, "before the first member is exported"
    assert "trust_remote_code = true" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "work").exists()
    with pytest.raises(UsageError, match="brings its own code"):
        config_from_source(str(own_code))
    config = write_config(tmp_path, members, trust_remote_code="true")
    assert main(["export", str(config)]) == 0
    assert "warning  only " in capsys.readouterr().err
    assert (tmp_path / "ran").exists()
    assert (tmp_path / "work" / "cascade" / "only" / "model.onnx").read_bytes() == b"Mine"


def test_a_family_that_transformers_does_not_know_is_refused_before_the_first_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = edit(save_checkpoint(tmp_path / "unknown"), model_type="of-tomorrow")
    members = {"first": save_checkpoint(tmp_path / "first"), "only": unknown}
    assert main(["build", str(write_config(tmp_path, members))]) == 2
    assert "'of-tomorrow'" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_code_is_part_of_what_a_checkpoint_is(own_code: Path) -> None:
    before = sha256_of_checkpoint(str(own_code))
    with (own_code / "mine.py").open("a") as file:
        file.write("# changed\n")
    assert sha256_of_checkpoint(str(own_code)) != before


# --- files of SentencePiece


def test_a_checkpoint_with_only_a_sentencepiece_file_is_read(tmp_path: Path) -> None:
    spm = pytest.importorskip("sentencepiece", reason="of the build extra")
    texts = [f"the film was {word} and {other}" for word in ["good", "bad", "dull"] for other in
             ("vivid", "flat", "grim", "superb", "tired")]  # fmt: skip
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(tmp_path / "spm"), vocab_size=60,
        hard_vocab_limit=False, bos_id=-1, eos_id=-1, pad_id=-1, minloglevel=2,
    )  # fmt: skip
    folder = tmp_path / "a"
    save_family(folder, "deberta-v2", vocab_size=64)
    without_files(folder)
    (tmp_path / "spm.model").rename(folder / "spm.model")
    tokens = loaded(folder).tokenizer.tokenize("the film was good")
    assert "".join(tokens) == "▁the▁film▁was▁good"
