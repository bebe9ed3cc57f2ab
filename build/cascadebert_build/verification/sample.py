"""The rows that artefacts are checked with; some have special tokens in their text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from cascadebert_core.tokenization import Text

from ..graphs.logits import StageInput

# Number of rows to compare: enough for all lengths in the data, and a few seconds of work.
_SAMPLE_SIZE = 192

# Of a check that is short of time.
FEWEST_ROWS = 6

# Tokenizers have up to a hundred special tokens. The first are those that models look for: the ends
# of a text and its padding.
_SPECIAL_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """Texts to compare, and where they come from.

    Attributes:
        texts: Plain rows first, then rows with special tokens in their text.
        names: Of the rows, for messages, which quote no text.
        special: Number of rows with special tokens; they are the last.
    """

    texts: tuple[Text, ...]
    names: tuple[str, ...]
    special: int

    def take(self, rows: Sequence[int]) -> Sample:
        """Some of the rows.

        Args:
            rows: Their indices, ascending.
        """
        special = sum(i >= len(self.texts) - self.special for i in rows)
        return Sample(
            tuple(self.texts[i] for i in rows), tuple(self.names[i] for i in rows), special
        )

    def most_telling_first(self) -> list[int]:
        """Indices of all rows: those of unusual lengths and with special tokens come first."""
        plain = len(self.texts) - self.special
        unusual = [*range(max(0, plain - 2), plain), *range(plain, len(self.texts))]
        return [*unusual, *range(max(0, plain - 2))]


def sample_of_texts(texts: Sequence[Text], stage: StageInput) -> Sample:
    """A seeded sample in random order, with rows of every length that a stage can get.

    It has the shortest and the longest row, one that is truncated, one of a single word, and rows
    that contain the tokenizer's own special tokens.

    Args:
        texts: The held-out rows.
        stage: How texts become batches.
    """
    chosen = random.Random(0).sample(range(len(texts)), min(len(texts), _SAMPLE_SIZE))
    by_length = sorted(range(len(texts)), key=lambda i: len("".join(texts[i])))
    shortest, longest = by_length[0], by_length[-1]
    chosen = list(dict.fromkeys([shortest, longest, *chosen]))
    random.Random(1).shuffle(chosen)
    # Real rows seldom reach the maximum length; this row is always truncated.
    repeats = stage.encoder.max_length // 2 + 1
    rows = [(texts[i], _name(i)) for i in chosen]
    rows += [
        (_with_first(texts[longest], " ".join([_first(texts[longest])] * repeats)),
         f"{_name(longest)}, repeated until it is truncated"),
        (_first_words(texts[shortest]), f"the first word of {_name(shortest)}"),
    ]  # fmt: skip
    special = _special_rows(texts, by_length, stage.encoder.special_tokens)
    names, all_texts = [name for _, name in rows + special], [text for text, _ in rows + special]
    return Sample(tuple(all_texts), tuple(names), len(special))


def _special_rows(
    texts: Sequence[Text], by_length: Sequence[int], special_tokens: Sequence[str]
) -> list[tuple[Text, str]]:
    """Rows with 1 to 3 special tokens in real texts of several lengths, and their names.

    A model that counts a token must see different counts in one call.
    """
    # Tokens that are made plain text have a space before their name; see `special_tokens.py`.
    tokens = [token.strip() for token in special_tokens][:_SPECIAL_TOKENS]
    if not tokens:
        return []
    shortest = by_length[0]
    word = _first_words(texts[shortest])
    rows: list[tuple[Text, str]] = [
        (_with_first(word, f"{_first(word)} {tokens[-1]}"),
         f"the first word of {_name(shortest)} with {tokens[-1]} after it"),
        (_with_first(word, " ".join(tokens)), f"nothing but {' '.join(tokens)}"),
    ]  # fmt: skip
    for i, token in enumerate(tokens):
        row = by_length[i * len(by_length) // (2 * len(tokens))]
        words = _first(texts[row]).split()
        middle, end = len(words) // 2, len(words)
        for place in ([end, middle, 0], [end, middle], [middle])[i % 3]:
            words.insert(place, token)
        rows.append(
            (_with_first(texts[row], " ".join(words)), f"{_name(row)} with {token} in its text")
        )
    return rows


def _name(row: int) -> str:
    return f"held-out row {row + 1}"


def _first(text: Text) -> str:
    return text if isinstance(text, str) else text[0]


def _with_first(text: Text, first: str) -> Text:
    """The text, or the pair with another first text."""
    return first if isinstance(text, str) else (first, text[1])


def _first_words(text: Text) -> Text:
    """The first word of a text, or of both texts of a pair."""
    if isinstance(text, str):
        return (text.split() or [""])[0]
    return ((text[0].split() or [""])[0], (text[1].split() or [""])[0])
