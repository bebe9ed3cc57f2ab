"""The demo's corpus: synthetic short reviews in English, written for a given label.

Most reviews use plain words. The others must be understood: what a "not" applies to, which clause
of a contrast counts, what would have been but was not, which of two things is better, and which
words are about something else. A small member that mostly counts words gets the plain ones right
and fails on many of the others. That is the case for a cascade.

Validation and test rows share no template and no noun with the training rows. They share the
sentiment lexicon.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from . import topics
from .templates import (
    HELD_OUT_BOOK,
    TRAIN_BOOK,
    Nouns,
    TemplateBook,
    nouns_in_text,
    pick,
    skeleton_from_template,
    text_from_skeleton,
    with_front,
    with_tail,
)
from .topics import Topics

LABELS: Final = ("negative", "positive")

#: Kind of difficulty → its share of the held-out rows: seven reviews of ten are plain.
KIND_SHARES: Final[Mapping[str, float]] = MappingProxyType(
    {
        "plain": 0.70,
        "negation": 0.07,
        "scope": 0.05,
        "contrast": 0.07,
        "counterfactual": 0.04,
        "comparative": 0.03,
        "distractor": 0.04,
    }
)

#: The same for training rows, with more of the hard kinds, which are harder to learn.
TRAIN_KIND_SHARES: Final[Mapping[str, float]] = MappingProxyType(
    {
        "plain": 0.32,
        "negation": 0.14,
        "scope": 0.11,
        "contrast": 0.13,
        "counterfactual": 0.10,
        "comparative": 0.11,
        "distractor": 0.09,
    }
)

# Shares of rows that get a neutral frame, and of nouns that get a proper name or a typing error.
_OPENER_SHARE: Final = 0.3
_CLOSER_SHARE: Final = 0.2
_FRONT_SHARE: Final = 0.25
_TAIL_SHARE: Final = 0.15
_NAMED_SHARE: Final = 0.2
_TYPO_SHARE: Final = 0.08

_VOWELS: Final = tuple("aeiou")
_CONSONANTS: Final = (*tuple("bcdfghjklmnprstvwz"), "br", "cl", "dr", "fl", "gr", "sh", "st", "th")

_WORD: Final = re.compile(r"\w+")
_MAX_DUPLICATES_IN_A_ROW: Final = 1000


@dataclass(frozen=True)
class Row:
    """One review.

    Attributes:
        text: What the reviewer wrote.
        label: Index into `LABELS`.
        kind: Kind of difficulty, a key of `KIND_SHARES`.
        skeletons: The templates it was made from, slots open: opener, body, closer.
        topics: The nouns it is about.
    """

    text: str
    label: int
    kind: str
    skeletons: tuple[str, ...]
    topics: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """The three splits: `train` to fit, `validation` to choose thresholds, `test` to report."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]


def corpus_from_seed(
    seed: int, *, train_rows: int = 20_000, validation_rows: int = 2_000, test_rows: int = 2_000
) -> Corpus:
    """Generate the corpus. The same arguments give the same rows in every Python version.

    Args:
        seed: Any integer.
        train_rows: The approximate number of training rows; each kind gets an even number.
        validation_rows: The approximate number of validation rows.
        test_rows: The approximate number of test rows.

    Returns:
        Three splits that share no text. In each kind, half of the rows are positive.

    Raises:
        ValueError: The templates cannot give this many different rows.
    """
    seen: set[str] = set()
    writer = _Writer(TRAIN_BOOK, topics.TRAIN, topics.HELD_OUT, random.Random(2 * seed), seen)
    train = writer.rows(train_rows, TRAIN_KIND_SHARES)
    held_out = _Writer(
        HELD_OUT_BOOK, topics.HELD_OUT, topics.TRAIN, random.Random(2 * seed + 1), seen,
        used=frozenset(_words(topic for row in train for topic in row.topics)),
    )  # fmt: skip
    return Corpus(
        train=train,
        validation=held_out.rows(validation_rows, KIND_SHARES),
        test=held_out.rows(test_rows, KIND_SHARES),
    )


def write_tsv(rows: Iterable[Row], path: Path) -> None:
    """Write `rows` as tab-separated columns sentence, label (0 or 1) and kind, with a header."""
    lines = ["sentence\tlabel\tkind"]
    lines += [f"{row.text}\t{row.label}\t{row.kind}" for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_corpus(corpus: Corpus, folder: Path) -> None:
    """Write train.tsv, validation.tsv and test.tsv into `folder`; create it if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tsv(corpus.train, folder / "train.tsv")
    write_tsv(corpus.validation, folder / "validation.tsv")
    write_tsv(corpus.test, folder / "test.tsv")


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in _WORD.findall(text.casefold())}


class _Writer:
    """Writes rows from the templates and nouns of one side of the split.

    It never writes a row that is in `seen`, nor one with a word of `others`, the nouns of the other
    side, nor a noun with a word of `used`, what the other side's nouns became: an invented name or
    a typing error could make one.
    """

    def __init__(
        self,
        book: TemplateBook,
        nouns: Topics,
        others: Topics,
        rng: random.Random,
        seen: set[str],
        *,
        used: frozenset[str] = frozenset(),
    ) -> None:
        self._book = book
        self._topics = nouns
        self._foreign = others.words()
        self._rng = rng
        self._seen = seen
        self._used = used

    def rows(self, count: int, shares: Mapping[str, float]) -> tuple[Row, ...]:
        """Return about `count` new rows in random order, balanced within each kind."""
        rows = [
            self._new_row(kind, label)
            for kind, share in shares.items()
            for label in range(len(LABELS))
            for _ in range(round(count * share / len(LABELS)))
        ]
        order = [self._rng.random() for _ in rows]
        return tuple(row for _, row in sorted(zip(order, rows, strict=True), key=lambda x: x[0]))

    def _new_row(self, kind: str, label: int) -> Row:
        for _ in range(_MAX_DUPLICATES_IN_A_ROW):
            row = self._row(kind, label)
            key = row.text.casefold()
            if (
                key not in self._seen
                and self._foreign.isdisjoint(_WORD.findall(key))
                and self._used.isdisjoint(_words(row.topics))
            ):
                self._seen.add(key)
                return row
        raise ValueError(
            f"the templates of kind {kind!r} give no more different {LABELS[label]} rows: "
            "ask for fewer rows"
        )

    def _row(self, kind: str, label: int) -> Row:
        nouns = self._nouns()
        skeletons = self._skeletons(pick(self._rng, self._book.kinds[kind].for_label(label)), nouns)
        text = " ".join(
            text_from_skeleton(skeleton, label=label, nouns=nouns, rng=self._rng)
            for skeleton in skeletons
        )
        return Row(text, label, kind, skeletons, nouns_in_text(nouns, text))

    def _skeletons(self, template: str, nouns: Nouns) -> tuple[str, ...]:
        """Return the sentence of `template` and those around it, with slots still open."""
        rng, frames = self._rng, self._book.frames
        body = skeleton_from_template(template, rng)
        if rng.random() < _FRONT_SHARE:
            body = with_front(body, skeleton_from_template(pick(rng, frames.fronts), rng))
        if rng.random() < _TAIL_SHARE:
            body = with_tail(body, skeleton_from_template(pick(rng, frames.tails), rng))
        skeletons = [body]
        if rng.random() < _OPENER_SHARE:
            opener = pick(rng, frames.openers["any"] + frames.openers[nouns.genre])
            skeletons.insert(0, skeleton_from_template(opener, rng))
        if rng.random() < _CLOSER_SHARE:
            skeletons.append(skeleton_from_template(pick(rng, frames.closers), rng))
        return tuple(skeletons)

    def _nouns(self) -> Nouns:
        rng, topics_ = self._rng, self._topics
        domain = pick(rng, topics_.domains)
        first = int(rng.random() * len(domain.parts))
        step = 1 + int(rng.random() * (len(domain.parts) - 1))
        parts = (domain.parts[first], domain.parts[(first + step) % len(domain.parts)])
        whole, person = self._noun(domain.wholes), self._noun(topics_.people)
        if domain.genre != "food" and rng.random() < _NAMED_SHARE:
            whole = f"{self._name()} {whole}"
        if rng.random() < _NAMED_SHARE:
            person = f"{person} {self._name()}"
        return Nouns(
            genre=domain.genre,
            whole=whole,
            parts=(self._typed(parts[0]), self._typed(parts[1])),
            person=person,
            occasion=self._noun(topics_.occasions),
            name=self._name(),
        )

    def _noun(self, nouns: tuple[str, ...]) -> str:
        return self._typed(pick(self._rng, nouns))

    def _typed(self, noun: str) -> str:
        """Return `noun`, sometimes with a typing error: two letters swapped or one lost."""
        chance, place = self._rng.random(), 1 + int(self._rng.random() * max(1, len(noun) - 3))
        before, here, after = noun[:place], noun[place : place + 2], noun[place + 2 :]
        if chance > _TYPO_SHARE or " " in here or len(noun) < 5:
            return noun
        return before + (here[::-1] if chance < _TYPO_SHARE / 2 else here[0]) + after

    def _name(self) -> str:
        """Invent a proper name, of a person, a town or a brand."""
        sounds = (_CONSONANTS, _VOWELS, _CONSONANTS, _VOWELS)
        name = "".join(pick(self._rng, sound) for sound in sounds)
        bridge = pick(self._rng, _CONSONANTS) if self._topics.name_endings[0] in _VOWELS else ""
        return (name + bridge + pick(self._rng, self._topics.name_endings)).capitalize()
