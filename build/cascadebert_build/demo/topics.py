"""The nouns of the demo's reviews: training and held-out rows share none of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .data import read_data


@dataclass(frozen=True)
class Domain:
    """Things that are reviewed, and the parts of them that a review may mention.

    Attributes:
        genre: One of `lexicon.GENRES`; it decides which adjectives and which openers fit.
        wholes: Singular nouns for the thing that the verdict is about.
        parts: Singular nouns for its parts and its people.
    """

    genre: str
    wholes: tuple[str, ...]
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Topics:
    """All the nouns of one side of the split.

    Attributes:
        domains: What is reviewed.
        people: Acquaintances of the reviewer ("my …").
        occasions: What else happened in the reviewer's life ("a …").
        name_endings: How invented proper names end: with a consonant or with a vowel.
    """

    domains: tuple[Domain, ...]
    people: tuple[str, ...]
    occasions: tuple[str, ...]
    name_endings: tuple[str, ...]

    def words(self) -> frozenset[str]:
        """Every single word of every noun, in lower case."""
        nouns = [*self.people, *self.occasions]
        for domain in self.domains:
            nouns += [*domain.wholes, *domain.parts]
        return frozenset(word for noun in nouns for word in noun.lower().split())


def _topics(side: Mapping[str, Any]) -> Topics:
    return Topics(
        domains=tuple(
            Domain(domain["genre"], _nouns(domain["wholes"]), _nouns(domain["parts"]))
            for domain in side["domains"]
        ),
        people=_nouns(side["people"]),
        occasions=_nouns(side["occasions"]),
        name_endings=_nouns(side["name_endings"]),
    )


def _nouns(text: str) -> tuple[str, ...]:
    return tuple(noun.strip() for noun in text.split(","))


_DATA: Final = read_data("topics")
TRAIN: Final = _topics(_DATA["train"])
HELD_OUT: Final = _topics(_DATA["held_out"])
