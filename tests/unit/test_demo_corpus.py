"""The demo's corpus: right labels, balanced kinds, and held-out rows that are really held out."""

from __future__ import annotations

import functools
import random
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from cascadebert_build.demo import corpus as corpus_module
from cascadebert_build.demo import topics
from cascadebert_build.demo.corpus import (
    KIND_SHARES,
    LABELS,
    TRAIN_KIND_SHARES,
    Row,
    corpus_from_seed,
    write_corpus,
)
from cascadebert_build.demo.lexicon import LEXICONS, MILD_DEGREES, STRONG_DEGREES
from cascadebert_build.demo.templates import CLAUSES, HELD_OUT_BOOK, TRAIN_BOOK

CORPUS = corpus_from_seed(0)
HELD_OUT_ROWS = CORPUS.validation + CORPUS.test
ALL_ROWS = CORPUS.train + HELD_OUT_ROWS
BOOKS = (TRAIN_BOOK, HELD_OUT_BOOK)

# Sentences as a person would judge them. What they are made of is looked up in the templates.
JUDGED = (
    ("The soup was not good.", "negative"),
    ("The soup wasn't bad at all.", "positive"),
    ("The hotel was anything but superb.", "negative"),
    ("The hotel is far from awful.", "positive"),
    ("This film never let us down.", "positive"),
    ("The film did not win us over.", "negative"),
    ("Nobody could call the hotel terrible.", "positive"),
    ("It is not true that the film was a triumph.", "negative"),
    ("Not once did the hotel let me down.", "positive"),
    ("I do not think for a second that the film fell flat.", "positive"),
    ("There is no denying that the film was superb.", "positive"),
    ("Nobody can say that the soup was not good.", "positive"),
    ("I would not say that the soup was not bland.", "negative"),
    ("The film was not just bad, it was dreadful.", "negative"),
    ("I do not know of anyone who did not find this soup tasty.", "positive"),
    ("Not only was the soup lovely, but the sauce was lovely as well.", "positive"),
    ("The lobby was awful, but the hotel was superb.", "positive"),
    ("The hotel was superb, although the lobby was awful.", "positive"),
    ("Although the lobby was lovely, I hated the hotel.", "negative"),
    ("I hated the hotel, even though the lobby was lovely.", "negative"),
    ("Despite a dreadful lobby, we loved the hotel.", "positive"),
    ("At first the film seemed dull, but in the end it won us over.", "positive"),
    ("The waiter was not good, but the soup was excellent.", "positive"),
    ("The lobby was lovely, but that did not save the hotel.", "negative"),
    ("The soup would have been awful without the sauce.", "positive"),
    ("If the film had been superb, I would have said so.", "negative"),
    ("People say that this hotel is superb. They are wrong.", "negative"),
    ("People say that this hotel is superb. They are right.", "positive"),
    ("The film was supposed to be good.", "negative"),
    ("I expected the film to be terrible; I was wrong.", "positive"),
    ("The last hotel was better than this one.", "negative"),
    ("This hotel is better than the last one.", "positive"),
    ("I have never had a worse soup.", "negative"),
    ("I have never had a better soup.", "positive"),
    ("This film is nowhere near as boring as the last one.", "positive"),
    ("Any other hotel would have been worse.", "positive"),
    ("My awful boss recommended this hotel, and it was lovely.", "positive"),
    ("After a wonderful flight, I disliked the film.", "negative"),
    ("My sister loved the flight. I hated the soup.", "negative"),
)


def skeletons(rows: Iterable[Row]) -> set[str]:
    return {re.sub(r"\W+", " ", s).casefold().strip() for row in rows for s in row.skeletons}


def words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"\w+", text.casefold())}


def test_a_seed_gives_the_same_rows_and_another_gives_others() -> None:
    sizes = {"train_rows": 500, "validation_rows": 100, "test_rows": 100}
    assert corpus_from_seed(1, **sizes) == corpus_from_seed(1, **sizes)
    texts = {row.text for row in corpus_from_seed(1, **sizes).train}
    others = {row.text for row in corpus_from_seed(2, **sizes).train}
    assert len(texts & others) < len(texts) / 10


def test_only_what_python_guarantees_to_repeat_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of random.Random, only random() is promised to repeat itself in every version.
    class Guaranteed(random.Random):
        def getrandbits(self, k: int, /) -> int:
            raise AssertionError("choice, shuffle, sample and randrange may change")

    expected = corpus_from_seed(1, train_rows=200, validation_rows=100, test_rows=100)
    monkeypatch.setattr(corpus_module.random, "Random", Guaranteed)
    assert corpus_from_seed(1, train_rows=200, validation_rows=100, test_rows=100) == expected


@pytest.mark.parametrize(
    ("rows", "count", "shares"),
    [
        (CORPUS.train, 20_000, TRAIN_KIND_SHARES),
        (CORPUS.validation, 2_000, KIND_SHARES),
        (CORPUS.test, 2_000, KIND_SHARES),
    ],
)
def test_every_kind_is_there_and_balanced(
    rows: tuple[Row, ...], count: int, shares: dict[str, float]
) -> None:
    per_label = Counter((row.kind, row.label) for row in rows)
    assert {row.kind for row in rows} == set(shares)
    assert sum(shares.values()) == pytest.approx(1)
    for kind, share in shares.items():
        assert per_label[kind, 0] == per_label[kind, 1] == round(count * share / 2)
    assert {row.label for row in rows} == set(range(len(LABELS)))


def test_both_sides_have_the_same_kinds() -> None:
    assert set(KIND_SHARES) == set(TRAIN_KIND_SHARES)
    for book in BOOKS:
        assert set(book.kinds) == set(KIND_SHARES)


def test_no_row_is_there_twice() -> None:
    texts = [row.text.casefold() for row in ALL_ROWS]
    assert len(texts) == len(set(texts))


def test_held_out_rows_share_no_template_with_training_rows() -> None:
    train, held_out = skeletons(CORPUS.train), skeletons(HELD_OUT_ROWS)
    assert len(train) > 1000
    assert len(held_out) > 100
    assert train.isdisjoint(held_out)


def test_held_out_rows_share_no_topic_with_training_rows() -> None:
    train = words(topic for row in CORPUS.train for topic in row.topics)
    held_out = words(topic for row in HELD_OUT_ROWS for topic in row.topics)
    assert train.isdisjoint(held_out)
    assert topics.TRAIN.words().isdisjoint(topics.HELD_OUT.words())


@pytest.mark.parametrize("seed", [0, 1])
def test_no_topic_word_appears_in_any_text_of_the_other_side(seed: int) -> None:
    corpus = corpus_from_seed(seed)
    train = words(row.text for row in corpus.train)
    held_out = words(row.text for row in corpus.validation + corpus.test)
    assert topics.TRAIN.words() & train
    assert topics.HELD_OUT.words().isdisjoint(train)
    assert topics.TRAIN.words().isdisjoint(held_out)


def test_texts_look_like_sentences() -> None:
    lengths = [len(row.text.split()) for row in ALL_ROWS]
    assert min(lengths) >= 2
    assert max(lengths) > 35
    assert 10 < sum(lengths) / len(lengths) < 20
    for row in ALL_ROWS:
        assert not re.search(r"[{}()|=~\t\n\"]|  ", row.text), row.text
        assert re.match(r"[A-Z].*[.!?]$", row.text), row.text
        assert not re.search(r"\ba [aeio]", row.text, re.IGNORECASE), row.text


def test_files_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    corpus = corpus_from_seed(4, train_rows=60, validation_rows=50, test_rows=50)
    write_corpus(corpus, tmp_path / "data")
    for name, rows in (
        ("train", corpus.train),
        ("validation", corpus.validation),
        ("test", corpus.test),
    ):
        header, *lines = (tmp_path / "data" / f"{name}.tsv").read_text("utf-8").splitlines()
        assert header.split("\t") == ["sentence", "label", "kind"]
        assert [line.split("\t") for line in lines] == [
            [row.text, str(row.label), row.kind] for row in rows
        ]


def test_more_rows_than_the_templates_can_give_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With every text already seen there is none left to write.
    monkeypatch.setattr(corpus_module, "text_from_skeleton", lambda *_, **__: "Always the same.")
    with pytest.raises(ValueError, match="ask for fewer rows"):
        corpus_from_seed(0, train_rows=100)


@pytest.mark.parametrize(("sentence", "judgement"), JUDGED)
def test_templates_label_sentences_as_a_reader_would(sentence: str, judgement: str) -> None:
    assert labels_from_sentence(sentence) == {judgement}


def labels_from_sentence(sentence: str) -> set[str]:
    """The labels with which some template makes `sentence`."""
    plain = without_articles(sentence)
    there = words([plain])
    return {
        LABELS[label]
        for book in BOOKS
        for templates in book.kinds.values()
        for label in range(len(LABELS))
        for template in templates.for_label(label)
        if fixed_words(template) <= there
        and re.fullmatch(pattern_from_template(template, label), plain)
    }


def fixed_words(template: str) -> set[str]:
    """The words that every sentence made from `template` has; a quick look before a long one."""
    return words([without_articles(re.sub(r"\([^()]*\)|\{[^{}]*\}", " ", template))])


def without_articles(text: str) -> str:
    return re.sub(r"\ban\b", "a", text.lower())


@functools.cache
def pattern_from_template(template: str, label: int) -> str:
    """A regular expression for what `template` says of a soup, a hotel or a film."""
    pattern = ""
    for piece in re.split(r"(\{\w+[=~]?\}|[(|)])", without_articles_outside_slots(template)):
        if slot := re.fullmatch(r"\{(\w+)([=~]?)\}", piece):
            name, sign = slot.groups()
            pattern += pattern_from_slot(name, label if sign == "=" else 1 - label)
        else:
            pattern += {"(": "(?:", ")": ")", "|": "|"}.get(piece, re.escape(piece))
    return pattern


def without_articles_outside_slots(template: str) -> str:
    pieces = re.split(r"(\{\w+[=~]?\})", template)
    return "".join(p if p.startswith("{") else without_articles(p) for p in pieces)


@functools.cache
def pattern_from_slot(name: str, polarity: int) -> str:
    nouns = {
        "T": ("soup", "hotel", "film"),
        "U": ("sauce", "lobby", "waiter"),
        "V": ("crust", "porter"),
        "P": ("sister", "boss"),
        "O": ("flight",),
        "N": ("torvek",),
    }
    if name in nouns:
        return one_of(nouns[name])
    if name in CLAUSES:
        return one_of(
            [pattern_from_template(clause, polarity) for clause in CLAUSES[name]], raw=True
        )
    lexicon = LEXICONS[polarity]
    mild = [*lexicon.mild, *(word for genre in lexicon.by_genre.values() for word in genre)]
    degree = one_of([f"{d} " if d else "" for d in (*STRONG_DEGREES, *MILD_DEGREES)])
    bare = one_of([*lexicon.strong, *mild])
    adjective, noun = degree + bare, one_of(lexicon.nouns)
    acts = lexicon.acts
    past, base = one_of([a.past for a in acts]), one_of([a.base for a in acts])
    participle = one_of([a.participle for a in acts])
    patterns = {
        "adj": adjective,
        "bare": bare,
        "mild": one_of(mild),
        "strong": one_of(lexicon.strong),
        "noun": noun,
        "life": one_of(lexicon.of_life),
        "mood": one_of(lexicon.moods),
        "cmp": one_of(lexicon.comparatives),
        "sup": one_of(lexicon.superlatives),
        "endorse": one_of(lexicon.endorsements),
        "love": one_of([base for base, _ in lexicon.feelings]),
        "loved": one_of([past for _, past in lexicon.feelings]),
        "did": base,
        "acted": past,
        "done": participle,
        "vp": f"(?:was {adjective}|was {noun}|{past})",
        "be": f"(?:be {adjective}|be {noun}|{base})",
        "been": f"(?:been {adjective}|been {noun}|{participle})",
    }
    return patterns[name] if name in patterns else patterns[name.removeprefix("u")]


def one_of(options: Iterable[str], *, raw: bool = False) -> str:
    return "(?:" + "|".join(option if raw else re.escape(option) for option in options) + ")"
