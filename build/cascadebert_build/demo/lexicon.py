"""The sentiment lexicon of the demo: words and phrases that say which way a review leans.

All splits of the corpus share it. Training and held-out rows differ in the sentences around these
words (`templates`) and in what they are about (`topics`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .data import read_data

GENRES: Final = ("place", "food", "work", "product", "experience")


@dataclass(frozen=True)
class Act:
    """Something that the reviewed thing does to the reviewer, in three forms of the verb."""

    base: str
    past: str
    participle: str


@dataclass(frozen=True)
class Lexicon:
    """The words of one polarity.

    Attributes:
        strong: Adjectives that say it all, fit for anything and never plainly negated:
            "not superb" is no verdict.
        mild: Adjectives fit for anything whose plain negation is a verdict: "not good".
        by_genre: Mild adjectives that fit one genre only: a soup is bland, a lamp is not.
        of_life: Adjectives for people and days, which are not what is reviewed.
        nouns: Noun phrases: "a joy".
        acts: What the reviewed thing did.
        everyday_acts: Those of `acts` that waiters and zips can do as well.
        feelings: Verbs in the first person as (base, past).
        moods: Participles with their preposition.
        comparatives: "better" and its kin.
        superlatives: "best" and its kin.
        endorsements: What a reviewer "would" do.
    """

    strong: tuple[str, ...]
    mild: tuple[str, ...]
    by_genre: dict[str, tuple[str, ...]]
    of_life: tuple[str, ...]
    nouns: tuple[str, ...]
    acts: tuple[Act, ...]
    everyday_acts: tuple[Act, ...]
    feelings: tuple[tuple[str, str], ...]
    moods: tuple[str, ...]
    comparatives: tuple[str, ...]
    superlatives: tuple[str, ...]
    endorsements: tuple[str, ...]


def _lexicon(words: Mapping[str, Any]) -> Lexicon:
    everyday = tuple(Act(*forms) for forms in words["everyday_acts"])
    plain = ("strong", "mild", "of_life", "nouns", "moods", "comparatives", "superlatives")
    return Lexicon(
        **{name: tuple(words[name]) for name in (*plain, "endorsements")},
        by_genre={genre: tuple(found) for genre, found in words["by_genre"].items()},
        acts=(*everyday, *(Act(*forms) for forms in words["other_acts"])),
        everyday_acts=everyday,
        feelings=tuple((base, past) for base, past in words["feelings"]),
    )


_DATA: Final = read_data("lexicon")
NEGATIVE: Final = _lexicon(_DATA["negative"])
POSITIVE: Final = _lexicon(_DATA["positive"])
#: Indexed by label: 0 is negative, 1 is positive.
LEXICONS: Final = (NEGATIVE, POSITIVE)

#: Degree words in front of an adjective; the empty ones leave it bare.
STRONG_DEGREES: Final = tuple(_DATA["strong_degrees"])
MILD_DEGREES: Final = tuple(_DATA["mild_degrees"])
