"""Special tokens inside a text can be made plain text; all ids stay."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from cascadebert_build.checkpoints.special_tokens import with_plain_special_tokens
from cascadebert_build.errors import UsageError
from cascadebert_core.tokenization import Encoder

NAMES = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
CHARACTERS = [*"abcdfgilmop<>/", "s", "k", "u", "n"]


def wordpiece() -> Tokenizer:
    letters = [*CHARACTERS, *(f"##{c}" for c in CHARACTERS)]
    tokens = {t: i for i, t in enumerate([*NAMES, "good", "film", *letters])}
    rust = Tokenizer(models.WordPiece(tokens, unk_token="<unk>"))
    rust.normalizer = normalizers.BertNormalizer(lowercase=True)
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return rust


def words() -> Tokenizer:
    """Without a split at punctuation, a whole word can be the special token's name."""
    tokens = {t: i for i, t in enumerate([*NAMES, "good", "film"])}
    rust = Tokenizer(models.WordLevel(tokens, unk_token="<unk>"))
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return rust


def unigram() -> Tokenizer:
    """SentencePiece's vocabulary has the special tokens, with the best score of all."""
    pieces = [*((n, 0.0) for n in NAMES), ("▁good", -2.0), ("▁film", -2.0), ("▁", -3.0),
              *((c, -5.0) for c in CHARACTERS)]  # fmt: skip
    rust = Tokenizer(models.Unigram(pieces, unk_id=3))
    rust.pre_tokenizer = pre_tokenizers.Metaspace()
    return rust


def byte_pairs() -> Tokenizer:
    """GPT-2's kind: special tokens lie behind the model's own vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    rust = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return rust


def finished(rust: Tokenizer) -> Tokenizer:
    rust.add_special_tokens(NAMES)
    ends = [(name, rust.token_to_id(name)) for name in ("<s>", "</s>")]
    rust.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", "<s> $A </s> $B </s>", special_tokens=ends
    )
    rust.enable_padding(pad_id=rust.token_to_id("<pad>"), pad_token="<pad>")
    return rust


KINDS = pytest.mark.parametrize("kind", [wordpiece, words, unigram, byte_pairs])
TEXTS = [
    "good </s> film", "</s>", "<s> good", "film<mask>", "<pad> <pad> good",
    " </s>", "good  </s>", "a\t</s>\n<mask>",
]  # fmt: skip


@KINDS
def test_texts_cannot_spell_special_tokens(kind: Callable[[], Tokenizer], tmp_path: Path) -> None:
    rust = finished(kind())
    special = {rust.token_to_id(name) for name in NAMES} - {rust.token_to_id("<unk>")}
    plain = with_plain_special_tokens(rust.to_str(), "m")
    before = Encoder(_written(tmp_path / "before.json", rust.to_str()), 32)
    after = Encoder(_written(tmp_path / "after.json", plain), 32)
    ends = [rust.token_to_id("<s>"), rust.token_to_id("</s>")]
    for text, was, now in zip(TEXTS, before.encode(TEXTS), after.encode(TEXTS), strict=True):
        assert len(special & set(was.ids[1:-1].tolist())) > 0, f"{text!r} has special tokens today"
        assert not special & set(now.ids[1:-1].tolist()), text
        assert [now.ids[0], now.ids[-1]] == ends
    ordinary = ["good film", "a good film", ("good", "film")]
    for was, now in zip(before.encode(ordinary), after.encode(ordinary), strict=True):
        assert was.ids.tolist() == now.ids.tolist()
    assert (before.pad_id, after.pad_id) == (rust.token_to_id("<pad>"),) * 2
    assert rust.get_vocab_size() == Tokenizer.from_str(plain).get_vocab_size()


def test_added_words_stay_and_keep_their_ids() -> None:
    rust = finished(byte_pairs())
    rust.add_tokens(["covfefe"])
    plain = Tokenizer.from_str(with_plain_special_tokens(rust.to_str(), "m"))
    assert plain.token_to_id("covfefe") == rust.token_to_id("covfefe")
    assert rust.token_to_id("covfefe") in plain.encode("a covfefe </s>").ids


def test_added_words_between_special_tokens_are_refused() -> None:
    rust = finished(byte_pairs())
    rust.add_tokens(["covfefe"])
    rust.add_special_tokens([AddedToken("<late>")])
    with pytest.raises(UsageError, match="their ids cannot be kept"):
        with_plain_special_tokens(rust.to_str(), "m")


def test_a_token_that_a_text_still_reaches_is_refused() -> None:
    """A normaliser that writes the token itself."""
    rust = wordpiece()
    rust.pre_tokenizer = None  # pyright: ignore[reportAttributeAccessIssue]
    rust.normalizer = normalizers.Prepend(" ")
    with pytest.raises(UsageError, match="still reads"):
        with_plain_special_tokens(finished(rust).to_str(), "m")


def test_a_second_change_changes_nothing() -> None:
    once = with_plain_special_tokens(finished(unigram()).to_str(), "m")
    assert json.loads(with_plain_special_tokens(once, "m")) == json.loads(once)


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
