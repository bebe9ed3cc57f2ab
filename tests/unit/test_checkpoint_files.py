"""Checkpoints that cannot be members are refused by their files alone, with a remedy."""

from __future__ import annotations

import json
import math
import shutil
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

from cascadebert_build.checkpoints import vocabulary
from cascadebert_build.checkpoints.families import (
    REFUSED_FAMILIES,
    check_code,
    check_dense_attention,
)
from cascadebert_build.checkpoints.inspection import Inspection, inspect_base, inspect_checkpoint
from cascadebert_build.checkpoints.labels import are_unnamed, labels_of_config
from cascadebert_build.config.schema import MemberConfig
from cascadebert_build.errors import UsageError
from cascadebert_build.pipeline.exported import Exported, MemberManifest
from cascadebert_build.pipeline.member_warnings import warn_of_capitals, warn_of_unknown_tokens

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"word{i}" for i in range(196))]
TABLE = "bert.embeddings.word_embeddings.weight"
CONFIG = {
    "model_type": "bert",
    "vocab_size": 200,
    "id2label": {"0": "negative", "1": "positive"},
    "label2id": {"negative": 0, "positive": 1},
}


def write_safetensors(path: Path, shapes: Mapping[str, Sequence[int]]) -> None:
    """A safetensors file with zeros."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = 4
        for n in shape:
            size *= n
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def with_header(path: Path, name: str, shape: Sequence[int], dtype: str, width: int) -> None:
    """A safetensors file of one tensor whose zeros take no space on the disk."""
    size = math.prod(shape) * width
    header = {name: {"dtype": dtype, "shape": list(shape), "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with path.open("r+b") as file:
        file.truncate(8 + len(text) + size)


def write_tokenizer(path: Path, tokens: Sequence[str] = TOKENS, added: int = 0) -> None:
    """A tokenizer.json of these tokens and a few that were added later."""
    extra = [{"id": len(tokens) + i, "content": f"<extra{i}>"} for i in range(added)]
    model = {"type": "WordPiece", "vocab": {t: i for i, t in enumerate(tokens)}}
    path.write_text(json.dumps({"version": "1.0", "added_tokens": extra, "model": model}))


def write_checkpoint(folder: Path, config: Mapping[str, Any] = CONFIG) -> Path:
    """What a fine-tuned BERT leaves in a folder, as far as an inspection reads it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(
        folder / "model.safetensors",
        {TABLE: (200, 4), "pre_classifier.weight": (4, 4), "classifier.weight": (2, 4)},
    )
    write_tokenizer(folder / "tokenizer.json")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "member")


def inspected(folder: Path) -> Inspection:
    inspection = inspect_checkpoint(str(folder))
    assert inspection is not None
    return inspection


def test_a_whole_checkpoint_passes_with_shapes_and_labels(folder: Path) -> None:
    inspection = inspected(folder)
    assert inspection.shapes is not None
    assert inspection.shapes[TABLE] == (200, 4)
    assert inspection.table_rows == 200
    assert labels_of_config(inspection.config, "x") == ("negative", "positive")
    assert inspect_checkpoint("org/model") is None, "a hub id has no folder"


# --- where the files are


def test_a_hub_cache_stands_for_its_snapshot(tmp_path: Path) -> None:
    cache = tmp_path / "models--org--name"
    one = write_checkpoint(cache / "snapshots" / "1111")
    assert inspected(cache).folder == one
    two = write_checkpoint(cache / "snapshots" / "2222")
    with pytest.raises(UsageError, match="2 snapshots"):
        inspected(cache)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("2222\n")
    assert inspected(cache).folder == two


@pytest.mark.parametrize("inside", ["snapshots/1111", "blobs"])
def test_a_cache_without_a_checkpoint_says_what_to_download(tmp_path: Path, inside: str) -> None:
    cache = tmp_path / "models--org--name"
    (cache / inside).mkdir(parents=True)
    with pytest.raises(UsageError, match="hf download org/name"):
        inspected(cache)


def test_folders_near_the_checkpoint_are_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'member'"):
        inspected(tmp_path / "membre")
    with pytest.raises(UsageError, match=r"has no config\.json: .* member"):
        inspected(tmp_path)
    with pytest.raises(UsageError, match=f"give the folder {folder}$"):
        inspected(folder / "model.safetensors")
    with pytest.raises(UsageError, match="nor does"):
        inspected(tmp_path / "no" / "where")
    hub = tmp_path / "hub"
    (hub / "models--org--name").mkdir(parents=True)
    with pytest.raises(UsageError, match="models--org--name"):
        inspected(hub)


# --- the files themselves


def lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 133\n")


def web_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html>Not Found</html>")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("../../blobs/gone")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lfs_pointer, "git lfs pull"),
        (web_page, "web page"),
        (empty, "is empty"),
        (broken_link, "is a link"),
    ],
)
def test_files_that_are_something_else_are_named(
    folder: Path, name: str, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder / name)
    with pytest.raises(UsageError) as caught:
        inspected(folder)
    if not (name == "config.json" and spoil is broken_link):  # then there is no checkpoint
        assert message in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_weights_that_are_cut_off_are_named(folder: Path, kept: float) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: max(4, int(len(whole) * kept))])
    with pytest.raises(UsageError, match=r"model\.safetensors is damaged"):
        inspected(folder)
    path.write_bytes(whole + b"\0")
    with pytest.raises(UsageError, match="too long"):
        inspected(folder)


def test_every_shard_must_be_there(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    write_safetensors(folder / names[0], {TABLE: (200, 4)})
    index = {"weight_map": {TABLE: names[0], "classifier.weight": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match=f"lacks 1 of its 2 weight files \\({names[1]}\\)"):
        inspected(folder)
    write_safetensors(folder / names[1], {"classifier.weight": (2, 4)})
    assert dict(inspected(folder).shapes or {}) == {TABLE: (200, 4), "classifier.weight": (2, 4)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pytorch_model.bin", b"PK\x03\x04cut off", "is damaged"),
        ("pytorch_model.bin", b"something else", "is damaged"),
        ("tf_model.h5", b"\x89HDF", "TensorFlow"),
        ("best.ckpt", b"PK", "Lightning"),
        ("weights.safetensors", b"x", r"rename it"),
        ("README.md", b"x", r"copy model\.safetensors"),
    ],
)
def test_weights_of_other_kinds_are_named(
    folder: Path, name: str, content: bytes, message: str
) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        inspected(folder)


@pytest.mark.parametrize("dtype", ["I8", "U8", "F8_E4M3"])
def test_weights_of_eight_bits_are_refused(folder: Path, dtype: str) -> None:
    path = folder / "model.safetensors"
    with_header(path, "bert.encoder.layer.0.output.dense.weight", (4, 4), dtype, 1)
    with pytest.raises(UsageError, match="quantized"):
        inspected(folder)
    with_header(path, "transformer.h.0.attn.bias", (1, 1, 4, 4), dtype, 1)
    assert inspected(folder), "a mask is no weight"


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_a_graph_past_the_size_of_an_onnx_file_is_refused(folder: Path, dtype: str) -> None:
    path, width = folder / "model.safetensors", 4 if dtype == "F32" else 2
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    with_header(path, name, (1 << 19, 1 << 10), dtype, width)
    with pytest.raises(UsageError, match="2 GiB"):
        inspected(folder)
    assert inspect_base(str(folder)), "a base is trained, and not exported"
    with_header(path, name, ((1 << 19) - 1, 1 << 10), dtype, width)
    assert inspected(folder)


@pytest.mark.parametrize("task", ["TokenClassification", "MultipleChoice", "QuestionAnswering"])
def test_models_of_other_tasks_are_refused(folder: Path, task: str) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps({**CONFIG, "architectures": [f"BertFor{task}"]}))
    with pytest.raises(UsageError, match="BertForSequenceClassification"):
        inspected(folder)
    assert inspect_base(str(folder)), "it can be trained further"
    for classes in (["BertForSequenceClassification"], ["BertForMaskedLM"], [], None, "Bert"):
        config.write_text(json.dumps({**CONFIG, "architectures": classes}))
        assert inspected(folder), classes


def test_a_setfit_head_is_named(folder: Path) -> None:
    (folder / "model_head.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(UsageError, match="SetFit"):
        inspected(folder)
    assert inspect_base(str(folder))


def test_wrapped_weights_are_refused_before_anything_is_loaded(folder: Path) -> None:
    write_safetensors(folder / "model.safetensors", {f"module.{TABLE}": (200, 4)})
    with pytest.raises(UsageError, match="DataParallel"):
        inspected(folder)


@pytest.mark.parametrize("text", ["{", "[]", "\ufeff{}x", "3"])
def test_a_config_that_is_no_object_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"config\.json"):
        inspected(folder)


# --- what kind of model it is


@pytest.mark.parametrize("family", sorted(REFUSED_FAMILIES))
def test_families_that_cannot_be_members_are_refused(folder: Path, family: str) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": family}))
    with pytest.raises(UsageError, match=f"is a {family}, which cannot be a member"):
        inspected(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", None, "no model_type"),
        ("quantization_config", {"quant_method": "bitsandbytes"}, "bitsandbytes"),
    ],
)
def test_other_configs_that_cannot_be_served(
    folder: Path, key: str, value: Any, message: str
) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, key: value}))
    with pytest.raises(UsageError, match=message):
        inspected(folder)


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [("LORA", "merge_and_unload"), ("IA3", "merge_and_unload"), ("PREFIX_TUNING", "LoRA")],
)
def test_adapters_are_told_from_models(folder: Path, kind: str, remedy: str) -> None:
    adapter = {"peft_type": kind, "base_model_name_or_path": "org/base"}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(UsageError, match=r"remove adapter_config\.json"):
        inspected(folder)
    (folder / "model.safetensors").unlink()
    for without_config in (False, True):
        if without_config:
            (folder / "config.json").unlink()
        with pytest.raises(UsageError, match=remedy) as caught:
            inspected(folder)
        assert "org/base" in str(caught.value)


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"model_type": "big_bird"}, 704),
        ({"model_type": "big_bird", "block_size": 4, "num_random_blocks": 1}, 28),
        ({"model_type": "bigbird_pegasus", "attention_type": "block_sparse"}, 704),
        ({"model_type": "big_bird", "attention_type": "original_full"}, None),
        ({"model_type": "bert", "attention_type": "block_sparse"}, None),
    ],
)
def test_blocks_of_bigbird_are_refused_where_they_begin(
    config: dict[str, Any], longest: int | None
) -> None:
    if longest is None:
        check_dense_attention(config, "x", 4096)
        return
    check_dense_attention(config, "x", longest)
    with pytest.raises(UsageError, match=f"more than {longest} tokens.*original_full"):
        check_dense_attention(config, "x", longest + 1)


def code(trusted: bool | None, **config: Any) -> bool:
    return check_code(config, "x", trusted=trusted, known={"bert", "clip"}, classified={"bert"})


def test_code_of_a_checkpoint_runs_only_if_it_is_trusted() -> None:
    own = {"AutoModelForSequenceClassification": "modeling_mine.Mine"}
    assert not code(False, model_type="bert")
    assert not code(False, model_type="bert", auto_map=own), "transformers' own class serves"
    assert code(True, model_type="mine", auto_map=own)
    with pytest.raises(UsageError, match=r"modeling_mine\.py.*trust_remote_code = true"):
        code(False, model_type="mine", auto_map=own)
    with pytest.raises(UsageError, match=r"a training does not run it; .* as a member") as caught:
        code(None, model_type="mine", auto_map=own)
    assert "cascade.toml" not in str(caught.value), "which a training does not read"
    with pytest.raises(UsageError, match="no sequence classification"):
        code(True, model_type="clip")
    with pytest.raises(UsageError, match="'mine'"):
        code(True, model_type="mine", auto_map={"AutoModel": "modeling_mine.Base"})


# --- labels and head


@pytest.mark.parametrize(
    ("id2label", "expected"),
    [
        ({"0": "a", "1": "b"}, ("a", "b")),
        ({"1": "b", "0": "a"}, ("a", "b")),
        ({"0": 1, "1": 2}, ("1", "2")),
        (None, ("LABEL_0", "LABEL_1")),
    ],
)
def test_names_are_in_the_order_of_their_numbers(id2label: Any, expected: tuple[str, ...]) -> None:
    assert labels_of_config({"id2label": id2label}, "x") == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id2label": {"1": "a", "2": "b"}}, r'the numbers 1, 2, .*\{"0": "a", "1": "b"\}'),
        ({"id2label": {"0": "a", "2": "b"}}, "the numbers 0, 2"),
        ({"id2label": ["a", "b"]}, r'is a list: write \{"0": "a", "1": "b"\}'),
        ({"id2label": "a"}, "'a'"),
        ({"id2label": {"a": 0, "b": 1}}, "label2id"),
        ({"id2label": {"x": "a", "y": "b"}}, "'x'"),
        ({"id2label": {"0": "a", "1": "a"}}, "one name, 'a'"),
        ({"id2label": {"0": "a", "1": None}}, "label 1 None"),
        ({"id2label": {"0": "a", "1": ""}}, "label 1 ''"),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}}, "correct the wrong one"),
    ],
)
def test_labels_that_logits_cannot_have_are_refused(
    folder: Path, config: dict[str, Any], message: str
) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, "label2id": None, **config}))
    with pytest.raises(UsageError, match=message):
        inspected(folder)


def test_relics_in_label2id_are_ignored() -> None:
    config = {"id2label": {"0": "a", "1": "b"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    assert labels_of_config(config, "x") == ("a", "b")
    assert are_unnamed(("LABEL_1", "LABEL_0"))
    assert not are_unnamed(("LABEL_1", "LABEL_2"))


@pytest.mark.parametrize(
    "name", ["classifier.weight", "classifier.out_proj.weight", "model.score.weight"]
)
def test_a_head_has_a_row_for_every_label(folder: Path, name: str) -> None:
    write_safetensors(folder / "model.safetensors", {TABLE: (200, 4), name: (3, 4)})
    with pytest.raises(UsageError, match=r"a head of 3 labels .* names 2"):
        inspected(folder)
    assert inspect_base(str(folder)) is not None, "a base gets another head"
    config = {**CONFIG, "id2label": {str(i): f"l{i}" for i in range(3)}, "label2id": None}
    (folder / "config.json").write_text(json.dumps(config))
    assert inspected(folder)


# --- the vocabulary


@pytest.mark.parametrize("kept", [[], ["tokenizer_config.json"], ["vocab.json"], ["merges.txt"]])
def test_a_checkpoint_without_a_vocabulary_is_refused(folder: Path, kept: list[str]) -> None:
    (folder / "tokenizer.json").unlink()
    for name in kept:
        (folder / name).write_text("{}")
    with pytest.raises(UsageError, match="save_pretrained"):
        inspected(folder)


@pytest.mark.parametrize("names", [["vocab.txt"], ["vocab.json", "merges.txt"], ["qwen.tiktoken"]])
def test_other_vocabularies_are_left_to_transformers(
    folder: Path, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tokenizer.json").unlink()
    for name in names:
        (folder / name).write_text("x")
    monkeypatch.setattr(vocabulary, "has_extra", lambda _: True)
    assert inspected(folder)


@pytest.mark.parametrize("name", ["spm.model", "sentencepiece.bpe.model", "tokenizer.model"])
def test_sentencepiece_asks_for_the_package_and_version_that_fit(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / name).write_bytes(b"\n\x0e")
    assert inspected(folder), "beside a tokenizer.json it is not read"
    (folder / "tokenizer.json").unlink()
    monkeypatch.setattr(vocabulary, "has_extra", lambda module: module != "sentencepiece")
    with pytest.raises(UsageError, match=r"sentencepiece>=.*<") as caught:
        inspected(folder)
    assert "tiktoken" not in str(caught.value)
    monkeypatch.setattr(vocabulary, "has_extra", lambda _: True)
    package = ModuleType("sentencepiece")
    monkeypatch.setitem(sys.modules, package.__name__, package)
    part = f"{package.__name__}.sentencepiece_model_pb2"
    monkeypatch.setitem(sys.modules, part, ModuleType(part))
    assert inspected(folder)
    monkeypatch.setattr(vocabulary.importlib, "import_module", incompatible)
    with pytest.raises(UsageError, match=r"does not fit .*gencode 7.*sentencepiece>=.*<"):
        inspected(folder)


def incompatible(_: str) -> NoReturn:
    raise RuntimeError("gencode 7.36.1 runtime 6.33.6")  # protobuf's VersionError


def test_tiktoken_is_asked_for_only_by_its_own_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    monkeypatch.setattr(vocabulary, "has_extra", lambda module: module != "tiktoken")
    with pytest.raises(UsageError, match="pip install tiktoken"):
        inspected(folder)
    monkeypatch.setattr(vocabulary, "has_extra", lambda _: True)
    assert inspected(folder)


@pytest.mark.parametrize(
    ("tokens", "added", "message"),
    [
        (TOKENS[:5], 0, "5 tokens, and the embedding table 200"),
        (TOKENS[:130], 0, "130 tokens"),
        (TOKENS, 1, "ids up to 200, and the embedding table 200 rows"),
    ],
)
def test_a_vocabulary_of_another_size_is_refused(
    folder: Path, tokens: list[str], added: int, message: str
) -> None:
    write_tokenizer(folder / "tokenizer.json", tokens, added)
    with pytest.raises(UsageError, match=message):
        inspected(folder)


@pytest.mark.parametrize("n", [200, 190, 140])
def test_padded_tables_pass(folder: Path, n: int) -> None:
    write_tokenizer(folder / "tokenizer.json", TOKENS[:n])
    assert inspected(folder)


@pytest.mark.parametrize("text", ["{}", '{"model": 3}', '{"model": {"vocab": null}}', "[]", "{"])
def test_a_damaged_tokenizer_is_named(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(UsageError, match=r"tokenizer\.json"):
        inspected(folder)


def test_the_share_of_unknown_tokens_is_counted(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {token: i for i, token in enumerate(["<unk>", "a", "b"])}
    pieces = [("<unk>", 0.0), ("a", -1.0), ("b", -1.0)]
    for model in (
        models.WordLevel(words, unk_token="<unk>"),
        models.WordPiece(words, unk_token="<unk>"),
        models.Unigram(pieces, unk_id=0),
    ):
        rust = Tokenizer(model)
        rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        path = tmp_path / "tokenizer.json"
        rust.save(str(path))
        assert vocabulary.unknown_share(path, ["a b", ("a", "z")]) == 0.25
        assert vocabulary.unknown_share(path, ["ж я", "ю"]) == 1.0
        assert vocabulary.unknown_share(path, []) == 0.0
    rust = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    rust.save(str(tmp_path / "bytes.json"))
    assert vocabulary.unknown_share(tmp_path / "bytes.json", ["ab"]) == 0.0


def test_nothing_is_written_by_an_inspection(folder: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    inspected(folder)
    shutil.rmtree(folder)
    with pytest.raises(UsageError):
        inspected(folder)
    assert sorted(tmp_path.rglob("*")) == [p for p in before if folder not in [p, *p.parents]]


def exported_tokenizer(path: Path) -> Exported:
    """A member whose tokenizer is the file."""
    manifest = MemberManifest("", "x", "", "", "bert-0", ("a", "b"), (), None)
    return Exported(MemberConfig("small", "x"), manifest, path.parent / "model.onnx", path, (128,))


@pytest.mark.parametrize(("lowercase", "capitals"), [(True, 4), (True, 0), (False, 4)])
def test_a_cased_vocabulary_under_a_tokenizer_of_lower_case_is_warned_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lowercase: bool, capitals: int
) -> None:
    from tokenizers import Tokenizer, models, normalizers

    words = ["[UNK]", *(f"word{i}" for i in range(15)), *(f"Word{i}" for i in range(capitals))]
    rust = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    rust.add_special_tokens(["[UNK]", "[CLS]"])
    rust.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    path = tmp_path / "tokenizer.json"
    rust.save(str(path))
    share = warn_of_capitals(exported_tokenizer(path))
    warned = lowercase and capitals > 0
    assert share == (pytest.approx(4 / 19) if warned else 0.0)
    assert ("do_lower_case" in capsys.readouterr().err) is warned


def test_many_unknown_tokens_are_warned_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    rust = Tokenizer(models.WordLevel({"<unk>": 0, "good": 1}, unk_token="<unk>"))
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    path = tmp_path / "tokenizer.json"
    rust.save(str(path))
    exported = exported_tokenizer(path)
    assert warn_of_unknown_tokens(exported, ["good good good"] * 3000) == 0
    assert capsys.readouterr().err == ""
    assert warn_of_unknown_tokens(exported, ["good film"] * 3000) == 0.5
    assert capsys.readouterr().err.startswith("warning  small        50%")
