"""Sentence templates of the demo: their notation, and how they are filled with words.

A template is a sentence with alternatives and slots: ``(Honestly|Frankly), the {T} {vp=}.``
Alternatives in round brackets are chosen first; what is left is the *skeleton*, which identifies
the template. Then the slots in braces are filled.

Nouns: ``{T}`` the reviewed thing, ``{U}`` and ``{V}`` two parts of it, ``{P}`` a person,
``{O}`` an occasion, ``{N}`` a proper name. Words of sentiment carry a sign: ``=`` means the polarity
of the row's label, ``~`` the opposite one. So "anything but {bare~}" holds for both labels.

| slot | filled with | slot | filled with |
|---|---|---|---|
| ``adj`` | adjective, maybe with a degree | ``loved``, ``love`` | first-person verb |
| ``bare`` | adjective alone | ``mood`` | "delighted with" |
| ``strong`` | strong adjective alone | ``cmp``, ``sup`` | "better", "best" |
| ``mild`` | adjective that can be negated | ``endorse`` | what the reviewer "would" do |
| ``noun`` | "a joy" | ``life`` | adjective for people and days |
| ``vp`` | "was superb", "let us down" | ``be``, ``been`` | the same after "would", "have" |
| ``did``, ``acted``, ``done`` | "let us down" alone, three forms | ``u…`` | the same, of a part |

Four more slots are whole clauses: ``verdict``, about the reviewed thing ("the soup was superb",
"I loved the soup"); ``claim``, a verdict that others could make too; ``aside``, about a part of the
thing; and ``rub``, an aside that may be hard to understand itself.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from .data import read_data
from .lexicon import LEXICONS, MILD_DEGREES, STRONG_DEGREES, Act, Lexicon

_ALTERNATIVES: Final = re.compile(r"\(([^()]*)\)")
_SLOT: Final = re.compile(r"\{([A-Za-z]+)([=~]?)\}")
_SENTENCE_START: Final = re.compile(r"(?:^|[.!?] )[a-z]")
_A_BEFORE_VOWEL: Final = re.compile(r"\b([Aa]) (?=[aeiou])(?!uni|use|one\b)")

_CLAUSE_DATA: Final = read_data("clauses")
# First words of a sentence that an adverbial may come before.
_FRONTABLE: Final = frozenset(_CLAUSE_DATA.pop("frontable"))
#: Slots that are whole clauses, and what they are filled with.
CLAUSES: Final[Mapping[str, tuple[str, ...]]] = {
    slot: tuple(clauses) for slot, clauses in _CLAUSE_DATA.items()
}

T = TypeVar("T")


@dataclass(frozen=True)
class Templates:
    """The templates of one kind of difficulty.

    Attributes:
        either: Templates that hold for both labels, through their signs.
        positive: Templates that only make sense for a positive review.
        negative: Templates that only make sense for a negative review.
    """

    either: tuple[str, ...]
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()

    def for_label(self, label: int) -> tuple[str, ...]:
        """Return the templates that can carry `label` (0 negative, 1 positive)."""
        return self.either + (self.positive if label else self.negative)


@dataclass(frozen=True)
class Frames:
    """Neutral words around a verdict: they say nothing about the label and occur in every kind.

    Attributes:
        openers: Genre → sentences that may come before the verdict; "any" fits all genres.
        closers: Sentences that may come after it.
        fronts: Adverbials that may open the sentence of the verdict ("To be honest, …").
        tails: Adverbials that may end it ("…, if you ask me").
    """

    openers: Mapping[str, tuple[str, ...]]
    closers: tuple[str, ...]
    fronts: tuple[str, ...]
    tails: tuple[str, ...]


@dataclass(frozen=True)
class TemplateBook:
    """All templates of one side of the split: those of each kind, and the frames."""

    kinds: Mapping[str, Templates]
    frames: Frames


def book_from_data(name: str) -> TemplateBook:
    """Read the templates of one side of the split.

    Args:
        name: The file of package data, "train_templates" or "held_out_templates".
    """
    data = read_data(name)
    frames = data["frames"]
    return TemplateBook(
        kinds={
            kind: Templates(**{label: tuple(found) for label, found in templates.items()})
            for kind, templates in data["kinds"].items()
        },
        frames=Frames(
            openers={genre: tuple(found) for genre, found in frames["openers"].items()},
            closers=tuple(frames["closers"]),
            fronts=tuple(frames["fronts"]),
            tails=tuple(frames["tails"]),
        ),
    )


TRAIN_BOOK: Final = book_from_data("train_templates")
HELD_OUT_BOOK: Final = book_from_data("held_out_templates")


@dataclass(frozen=True)
class Nouns:
    """The nouns that one row is about."""

    genre: str
    whole: str
    parts: tuple[str, str]
    person: str
    occasion: str
    name: str

    def by_slot(self) -> dict[str, str]:
        """Return the noun of each slot."""
        return {
            "T": self.whole,
            "U": self.parts[0],
            "V": self.parts[1],
            "P": self.person,
            "O": self.occasion,
            "N": self.name,
        }


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """Return one of `items`, drawn uniformly.

    Python guarantees only for `Random.random` that every version gives the same sequence.
    """
    return items[int(rng.random() * len(items))]


def skeleton_from_template(template: str, rng: random.Random) -> str:
    """Choose one alternative of each group of `template`; the slots stay open."""

    def choose(group: re.Match[str]) -> str:
        return pick(rng, group.group(1).split("|"))

    return _ALTERNATIVES.sub(choose, template)


def with_front(skeleton: str, front: str) -> str:
    """Put the adverbial `front` before `skeleton`, unless it is an exclamation or a fragment."""
    first, _, rest = skeleton.partition(" ")
    if first.strip("{=}") == "verdict" or first == "I":
        return f"{front}, {skeleton}"
    if first in _FRONTABLE:
        return f"{front}, {first.lower()} {rest}"
    return skeleton


def with_tail(skeleton: str, tail: str) -> str:
    """Put the adverbial `tail` at the end of `skeleton`, if it is one sentence with a full stop."""
    if skeleton.endswith(".") and not re.search(r"[.!?:;,] ", skeleton):
        return f"{skeleton[:-1]}, {tail}."
    return skeleton


def nouns_in_text(nouns: Nouns, text: str) -> tuple[str, ...]:
    """Return those of `nouns` that `text` contains."""
    lower = text.lower()
    return tuple(noun for noun in nouns.by_slot().values() if noun.lower() in lower)


def text_from_skeleton(skeleton: str, *, label: int, nouns: Nouns, rng: random.Random) -> str:
    """Fill every slot of `skeleton`, choose between "a" and "an", and capitalise sentences.

    Args:
        skeleton: A template without alternatives.
        label: 0 negative, 1 positive: what ``=`` stands for.
        nouns: What the row is about.
        rng: Where the choices come from.

    Returns:
        A text of one or more sentences.
    """
    text = _filled(skeleton, label, nouns, rng)
    text = _A_BEFORE_VOWEL.sub(r"\1n ", text)
    return _SENTENCE_START.sub(lambda start: start.group().upper(), text)


def _filled(skeleton: str, label: int, nouns: Nouns, rng: random.Random) -> str:
    by_slot = nouns.by_slot()

    def fill(slot: re.Match[str]) -> str:
        name, sign = slot.groups()
        if not sign:
            return by_slot[name]
        polarity = label if sign == "=" else 1 - label
        if name in CLAUSES:
            return _filled(pick(rng, CLAUSES[name]), polarity, nouns, rng)
        return _Filler(LEXICONS[polarity], nouns.genre, rng).fill(name)

    return _SLOT.sub(fill, skeleton)


class _Filler:
    """Chooses the words of one polarity for one slot."""

    def __init__(self, lexicon: Lexicon, genre: str, rng: random.Random) -> None:
        self._lexicon = lexicon
        self._genre = genre
        self._rng = rng

    def fill(self, name: str) -> str:
        """Return words for the slot `name`."""
        words = self._lexicon
        if name.startswith("u"):
            return self._everyday(name[1:])
        mild = words.mild + words.by_genre[self._genre]
        plain: dict[str, Sequence[str]] = {
            "strong": words.strong,
            "mild": mild,
            "noun": words.nouns,
            "life": words.of_life,
            "mood": words.moods,
            "cmp": words.comparatives,
            "sup": words.superlatives,
            "endorse": words.endorsements,
            "love": [base for base, _ in words.feelings],
            "loved": [past for _, past in words.feelings],
        }
        if name in plain:
            return pick(self._rng, plain[name])
        return self._predicate(name, mild, words.acts)

    def _everyday(self, name: str) -> str:
        """Return words for the slot `name` of a part, which has no genre."""
        if name == "mild":
            return pick(self._rng, self._lexicon.mild)
        return self._predicate(name, self._lexicon.mild, self._lexicon.everyday_acts)

    def _predicate(self, name: str, mild: Sequence[str], acts: Sequence[Act]) -> str:
        if name == "adj":
            return self._adjective(mild)
        if name == "bare":
            return pick(self._rng, pick(self._rng, (self._lexicon.strong, mild)))
        act = pick(self._rng, acts)
        acted = {"did": act.base, "acted": act.past, "done": act.participle}
        if name in acted:
            return acted[name]
        forms = {"vp": ("was", act.past), "be": ("be", act.base), "been": ("been", act.participle)}
        verb, acting = forms[name]
        chance = self._rng.random()
        if chance < 0.55:
            return f"{verb} {self._adjective(mild)}"
        if chance < 0.7:
            return f"{verb} {pick(self._rng, self._lexicon.nouns)}"
        return acting

    def _adjective(self, mild: Sequence[str]) -> str:
        if self._rng.random() < 0.5:
            degree, adjective = pick(self._rng, STRONG_DEGREES), self._lexicon.strong
        else:
            degree, adjective = pick(self._rng, MILD_DEGREES), mild
        return f"{degree} {pick(self._rng, adjective)}".lstrip()
