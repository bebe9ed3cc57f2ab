"""The sentence templates of the demo's validation and test rows; see `templates` for the notation.

None of them is a training template. They use the same little words (not, although, would have,
than, …), because those are what a member has to have understood, in sentences of their own.
"""

from __future__ import annotations

from typing import Final

from cascadebert_build.demo.templates import Frames, TemplateBook, Templates

_PLAIN: Final = Templates(
    either=(
        "Simply put, {verdict=}.",
        "Oh, what a {strong=} {T} this is!",
        "Both of us {loved=} this {T}.",
        "All the way through {verdict=}.",
        "Count me as one more person who is {mood=} the {T}.",
        "The {U} was {uadj=}, the {V} was {uadj=}, and so was the rest of the {T}.",
        "{verdict=}, from the {U} to the {V}.",
        "{strong=}, (really|truly) {strong=}: this {T} {vp=}.",
        "{verdict=}, and my {P} says the same.",
        "The {U} of this {T} was {uadj=}, and I also {loved=} the {V}.",
        "I would {endorse=}: the {T} is {adj=}, and the {U} is {uadj=}.",
        "We came home {mood=} the {T} and the {U}.",
        "A {adj=} {T} all round.",
        "My {P} {loved=} this {T}; we all did.",
        "Here we have a {T} that is {adj=} in every way.",
        "{verdict=}, and so I would {endorse=}.",
        "In the evening we all agreed that {claim=}.",
        "{aside=}; {verdict=}; I would {endorse=}.",
    ),
)

_NEGATION: Final = Templates(
    either=(
        "This {T} (is not|isn't) {mild~}, (not at all|not one bit).",
        "To be fair, the {T} was not {mild~}.",
        "The {T} did not really {did~}.",
        "So far the {T} has never {done~}.",
        "I found the {T} to be anything but {bare~}.",
        "In our eyes it was far from {bare~}, this {T}.",
        "Nobody who was with us found anything {bare~} about this {T}.",
        "There is nothing {bare~} about this {T}, and nothing {ubare~} about the {U}.",
        "For me the {T} was not {mild~}, and the {U} did not {udid~} either.",
        "We were not {mood~} this {T}, not for a second.",
        "It is by no means a {bare~} {T}.",
        "I do not think for a second that {claim~}.",
        "We (would not|wouldn't) say that {claim~}.",
        "You will not hear me say that {claim~}.",
        "Neither my {P} nor I found the {T} {mild~}.",
        "The {T} has not once {done~} in all this time.",
        "My {P} does not agree that the {T} {vp~}, and I do not either.",
    ),
    positive=(
        "My {P} and I had no complaints about the {T}.",
        "There is not a single fault to find with this {T}.",
        "Not for one second did we regret this {T}.",
    ),
    negative=(
        "My {P} and I would not recommend the {T}.",
        "I would never want to see the {T} again.",
        "My {P} did not {love~} this {T}, and we did not {love~} it either.",
    ),
)

_SCOPE: Final = Templates(
    either=(
        "There can be no doubt: {verdict=}.",
        "It cannot be denied that {claim=}.",
        "The {T} did not only {did=}; {aside=} as well.",
        "The {T} was not only {mild=} but also {strong=}.",
        "I had never heard of this {T}, and it {vp=}.",
        "I do not often write a review like this, but {verdict=}.",
        "We could not get over the {T}, it was so {strong=}.",
        "You will not believe it: {verdict=}.",
        "It is no wonder that {claim=}.",
        "Never before have I seen a {T} so {strong=}.",
        "My {P} did not come, so all I can say is that {claim=}.",
        "It was not just the {U} that was {uadj=}, it was the whole {T}.",
        "(No one|Nobody) will say that this {T} was not {bare=}.",
        "I do not know of anyone who did not find this {T} {mild=}.",
        "I am no expert on such things, and still I can see that {claim=}.",
        "I will not go on for long: {verdict=}.",
        "My {P} had no time that day, but {verdict=}.",
    ),
)

_CONTRAST: Final = Templates(
    either=(
        "{aside~}, I admit, but {verdict=}.",
        "(Although|Even though) we {loved~} both the {U} and the {V}, {verdict=}.",
        "All of us {loved=} the {T}, though {aside~}.",
        "{verdict=}, even though both the {U} and the {V} were {ubare~}.",
        "Despite the {ubare~} {U} and a {ubare~} {V}, {verdict=}.",
        "This {T} was {adj=} for us, in spite of a {ubare~} {U}.",
        "{aside~}, {aside~}, and yet {verdict=}.",
        "My {P} {loved~} the {U}, but on the whole {verdict=}.",
        "At first {verdict~}, but in the end it {vp=}.",
        "What began as a {bare~} {T} ended up {bare=}.",
        "I {loved~} the {U} and the {V}. Even so, I {loved=} the {T}.",
        "(Even though|Although) my {P} and I {loved~} the {U}, {verdict=}.",
        "The {T} as a whole was {adj=}, although I {loved~} the {V}.",
        "{ubare~} {U}, {ubare~} {V}, but what a {strong=} {T}!",
        "{aside~}. Nevertheless I was {mood=} the whole {T}.",
        "{verdict=}, even if my {P} {loved~} the {U}.",
    ),
    positive=("The {U} did not {udid=}, but that was not enough to spoil this {T}.",),
    negative=("The {U} did not {udid~}, but that was not enough to save this {T}.",),
)

_COUNTERFACTUAL: Final = Templates(
    either=(
        "We expected a {bare~} {T}, and we were wrong.",
        "We expected a {bare=} {T}, and we were right.",
        "My {P} thought that the {T} would be {bare~}, but it was not.",
        "Without the {U} the whole {T} would have {been~}.",
        "If this {T} had {been~}, we would have told you so.",
        "Had the {U} and the {T} {been~}, this would be another review.",
        "Some people say that {claim~}, but they are mistaken.",
        "Some people say that {claim=}, and they are quite right.",
        "We were told that this {T} would {be~}. That was simply not true.",
        "My {P} promised that the {T} would be {bare=}, and so it was.",
        "I wanted to {love~} this {T}, but I could not.",
        "I was waiting for this {T} to {did~}, but it never did.",
        "It might have been a {bare~} {T}, but it was quite the opposite.",
        "All the reviews said that {claim~}. All the reviews were wrong.",
        "All the reviews said that {claim=}. All the reviews were right.",
    ),
    positive=(
        "My {P} was afraid that this {T} would {be~}, but those fears were unfounded.",
        "Looking for a {bare=} {T}? This is the one.",
        "If you think that this {T} will {be~}, think again.",
    ),
    negative=(
        "In the end I wish the {T} had {been~}.",
        "Looking for a {bare~} {T}? Then look elsewhere.",
        "This {T} was supposed to {be~}.",
    ),
)

_COMPARATIVE: Final = Templates(
    either=(
        "I found this {T} (much|far) {cmp=} than the last one.",
        "Our last {T} was {cmp~} than this.",
        "All of it was {cmp=} than I expected: the {U}, the {V}, the whole {T}.",
        "We had expected a (much|far) {cmp~} {T}.",
        "Never have I come across a {cmp=} {T} than this one.",
        "As far as I know, no other {T} is {cmp=}.",
        "For me this {T} was nowhere near as {mild~} as my last one.",
        "My {P} says that the previous {T} was {cmp~} than this one.",
        "The last {T} {vp~}; this one is far {cmp=}.",
        "The last {T} {vp=}; this one is even {cmp=}.",
        "Even the last {T}, {strong=} as it was, was {cmp~} than this.",
        "Compared with this {T}, the last one looks {bare~}.",
        "Of all of them, this is the {sup=} {T} I have known.",
        "There is surely no {cmp=} {T}.",
        "To me this {T} was less {mild~} than the previous one.",
        "Any {T} other than this one would have been {cmp~}.",
    ),
    positive=("I do not think that you can do better than this {T}.",),
    negative=("I do think that you can do a lot better than this {T}.",),
)

_DISTRACTOR: Final = Templates(
    either=(
        "We went with my {life~} {P}, and the {T} {vp=}.",
        "Our day began with a {life~} {O}. Then came the {T}, and it {vp=}.",
        "Just before a {life~} {O} we tried this {T}, which {vp=}.",
        "{verdict=}, says my {P}, who is in a {life~} mood today.",
        "My {life~} {P} tried the {T} as well, and it {vp=}.",
        "I {loved~} my {O}, and then I tried this {T}: it {vp=}.",
        "My {P} was telling us about a {life~} {O}, but back to the {T}: it {vp=}.",
        "It had been a {life~} {O} for my {P}. Our {T} {vp=}.",
        "A {life~} {O} was behind us when we tried the {T}. We {loved=} it.",
        "My {P} {loved~} that {O}; for my part, I {loved=} this {T}.",
        "{verdict=}, and the {life~} {O} that came after it is another story.",
        "Thanks to a {life~} {P} we found this {T}, which I {loved=}.",
    ),
)

BOOK: Final = TemplateBook(
    kinds={
        "plain": _PLAIN,
        "negation": _NEGATION,
        "scope": _SCOPE,
        "contrast": _CONTRAST,
        "counterfactual": _COUNTERFACTUAL,
        "comparative": _COMPARATIVE,
        "distractor": _DISTRACTOR,
    },
    frames=Frames(
        openers={
            "any": (
                "Just a (short|quick) note about this {T}.",
                "My {P} wanted me to share this.",
                "Let me tell you about it.",
                "It all happened in (August|November).",
                "I heard about it from my {P}.",
                "We moved to {N} in February.",
                "Dear readers in {N}.",
                "Our first one since {N}.",
                "I had been saving up for this.",
                "{N} drove, I took notes.",
            ),
            "place": (
                "We drove there on a (Wednesday|Saturday).",
                "There were five of us, and {N} had the map.",
            ),
            "food": (
                "I had the {T} on Saturday.",
                "My {P} paid for both of us.",
            ),
            "work": (
                "I got through it on Wednesday.",
                "We had it on at home, with {N}.",
            ),
            "product": (
                "The {T} came in the post from {N}.",
                "I have used it every day since (August|September).",
            ),
            "experience": (
                "We signed up in (February|September).",
                "It was the idea of my {P}.",
            ),
        },
        closers=(
            "Now you know.",
            "We were home by ten.",
            "My {P} wrote half of this.",
            "It was about fifty pounds in all.",
            "That is what I wanted to say.",
            "See you next time in {N}.",
            "Cheers, {N}.",
        ),
        fronts=(
            "To my mind",
            "From where I stand",
            "Speaking for myself",
            "After a while in {N}",
            "Just like {N} said",
            "Having slept on it",
            "You see",
            "Now then",
        ),
        tails=(
            "or so it seems to me",
            "and {N} is my witness",
            "according to my {P}",
            "dear reader",
            "trust me",
        ),
    ),
)
