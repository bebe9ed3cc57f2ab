"""The sentiment lexicon of the demo: words and phrases that say which way a review leans.

Every split of the corpus shares it. What differs between training and held-out rows are the
sentences around these words (`train_templates`, `held_out_templates`) and what they are about
(`topics`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GENRES: Final = ("place", "food", "work", "product", "experience")


@dataclass(frozen=True)
class Act:
    """Something that the reviewed thing does to the reviewer, in the forms that sentences need."""

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


_POSITIVE_EVERYDAY: Final = (
    Act("win us over", "won us over", "won us over"),
    Act("win me over", "won me over", "won me over"),
    Act("exceed our expectations", "exceeded our expectations", "exceeded our expectations"),
    Act("impress everyone", "impressed everyone", "impressed everyone"),
    Act("impress me", "impressed me", "impressed me"),
    Act("make us smile", "made us smile", "made us smile"),
    Act("make our day", "made our day", "made our day"),
)
_NEGATIVE_EVERYDAY: Final = (
    Act("let us down", "let us down", "let us down"),
    Act("let me down", "let me down", "let me down"),
    Act("disappoint us", "disappointed us", "disappointed us"),
    Act("disappoint me", "disappointed me", "disappointed me"),
    Act("get on my nerves", "got on my nerves", "got on my nerves"),
    Act("drive us mad", "drove us mad", "driven us mad"),
    Act("put me off", "put me off", "put me off"),
)

POSITIVE: Final = Lexicon(
    strong=(
        "superb",
        "excellent",
        "wonderful",
        "brilliant",
        "fantastic",
        "terrific",
        "outstanding",
        "marvellous",
        "magnificent",
        "amazing",
        "great",
        "lovely",
    ),
    mild=(
        "good",
        "impressive",
        "pleasing",
        "satisfying",
        "nice",
        "likeable",
        "appealing",
        "delightful",
        "pleasant",
    ),
    by_genre={
        "place": ("welcoming", "comfortable", "well kept", "inviting"),
        "food": ("tasty", "delicious", "flavoursome", "appetising"),
        "work": ("gripping", "entertaining", "moving", "clever", "engaging"),
        "product": ("reliable", "sturdy", "handy", "well made"),
        "experience": ("enjoyable", "rewarding", "inspiring", "fun"),
    },
    of_life=(
        "wonderful",
        "lovely",
        "brilliant",
        "delightful",
        "great",
        "fantastic",
        "terrific",
        "marvellous",
        "nice",
    ),
    nouns=(
        "a joy",
        "a delight",
        "a triumph",
        "a treat",
        "a gem",
        "a pleasure",
        "a success",
        "a hit",
        "money well spent",
    ),
    acts=(
        *_POSITIVE_EVERYDAY,
        Act("blow us away", "blew us away", "blown us away"),
        Act("live up to the hype", "lived up to the hype", "lived up to the hype"),
        Act("hit the mark", "hit the mark", "hit the mark"),
    ),
    everyday_acts=_POSITIVE_EVERYDAY,
    feelings=(
        ("love", "loved"),
        ("enjoy", "enjoyed"),
        ("adore", "adored"),
        ("like", "liked"),
    ),
    moods=(
        "delighted with",
        "impressed by",
        "happy with",
        "pleased with",
        "thrilled with",
    ),
    comparatives=("better", "nicer", "finer", "more impressive"),
    superlatives=("best", "nicest", "finest", "most impressive"),
    endorsements=(
        "recommend it to anyone",
        "do it all again",
        "give it five stars",
        "come back for more",
        "praise it to anyone who asks",
    ),
)

NEGATIVE: Final = Lexicon(
    strong=(
        "awful",
        "terrible",
        "dreadful",
        "horrible",
        "appalling",
        "dismal",
        "atrocious",
        "pathetic",
        "lousy",
        "hopeless",
        "ghastly",
        "miserable",
    ),
    mild=(
        "bad",
        "disappointing",
        "annoying",
        "frustrating",
        "irritating",
        "unpleasant",
        "underwhelming",
        "sloppy",
        "poor",
    ),
    by_genre={
        "place": ("grubby", "shabby", "gloomy", "neglected"),
        "food": ("bland", "greasy", "tasteless", "stale"),
        "work": ("boring", "dull", "tedious", "predictable", "dreary"),
        "product": ("unreliable", "flimsy", "clumsy", "badly made"),
        "experience": ("tiresome", "chaotic", "pointless", "boring"),
    },
    of_life=(
        "awful",
        "terrible",
        "dreadful",
        "horrible",
        "annoying",
        "miserable",
        "ghastly",
        "unpleasant",
        "irritating",
        "lousy",
    ),
    nouns=(
        "a disaster",
        "a mess",
        "a letdown",
        "a disappointment",
        "a nightmare",
        "a failure",
        "a flop",
        "a disgrace",
        "a waste of money",
    ),
    acts=(
        *_NEGATIVE_EVERYDAY,
        Act("fall flat", "fell flat", "fallen flat"),
        Act("waste our time", "wasted our time", "wasted our time"),
        Act("miss the mark", "missed the mark", "missed the mark"),
    ),
    everyday_acts=_NEGATIVE_EVERYDAY,
    feelings=(
        ("hate", "hated"),
        ("dislike", "disliked"),
        ("loathe", "loathed"),
        ("despise", "despised"),
    ),
    moods=(
        "disappointed by",
        "annoyed by",
        "unhappy with",
        "fed up with",
        "frustrated with",
    ),
    comparatives=("worse", "poorer", "sloppier", "more annoying"),
    superlatives=("worst", "poorest", "sloppiest", "most annoying"),
    endorsements=(
        "warn everyone about it",
        "steer clear of it",
        "give it one star",
        "ask for my money back",
        "complain about it to anyone who asks",
    ),
)

#: Indexed by label: 0 is negative, 1 is positive.
LEXICONS: Final = (NEGATIVE, POSITIVE)

#: Degree words in front of an adjective; the empty ones leave it bare.
STRONG_DEGREES: Final = ("", "", "", "truly", "simply", "absolutely")
MILD_DEGREES: Final = ("", "very", "really", "quite", "rather")
