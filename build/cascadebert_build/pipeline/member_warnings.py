"""What a build says of members that are served, and may not be what the user means."""

from __future__ import annotations

import json
from collections.abc import Sequence

from cascadebert_core.tokenization import Text

from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.vocabulary import unknown_share, unreachable_share
from ..config.schema import CascadeConfig
from ..progress import say
from .draft import labels_of_members, unnamed_members
from .exported import Exported, MemberManifest

# A text has fewer unknown tokens than this, if the vocabulary is of its language and case.
_MANY_UNKNOWN = 0.1
_SAMPLE_SIZE = 1000

_MOST_NAMES = 3  # in one message

# Vocabularies of lower case have next to no capitals, and others have a fifth and more.
_MANY_CAPITALS = 0.05


def warn_of_unnamed_labels(config: CascadeConfig, manifests: Sequence[MemberManifest]) -> None:
    """Say which members' `LABEL_0` and so on are only taken to be in the others' order.

    Args:
        config: The cascade's settings.
        manifests: Manifests of its members, in order.
    """
    members = [(m, each.labels) for m, each in zip(config.members, manifests, strict=True)]
    for name in unnamed_members(config, members):
        names = labels_of_members(config, members)
        say(
            "warning",
            name,
            f"its labels have no names: LABEL_0 is taken for {names[0]!r}, LABEL_1 for "
            f"{names[1]!r}, and so on. If that is right, write labels = "
            f"{json.dumps(names, ensure_ascii=False)} in cascade.toml; else correct id2label in "
            "its config.json",
        )


def warn_of_unknown_tokens(exported: Exported, texts: Sequence[Text]) -> float:
    """Warn if a tokenizer does not know many tokens of the rows.

    Returns:
        The share of unknown tokens, 0 to 1, special tokens aside.
    """
    step = max(1, len(texts) // _SAMPLE_SIZE)
    share = unknown_share(exported.tokenizer, texts[::step])
    if share > _MANY_UNKNOWN:
        say(
            "warning",
            exported.name,
            f"{share:.0%} of the tokens of the held-out rows are unknown to its tokenizer: is it "
            "the one that the member was trained with, and are the rows of its language?",
        )
    return share


def warn_of_capitals(exported: Exported) -> float:
    """Warn if a tokenizer makes texts lower case and its vocabulary has capitals.

    Returns:
        The share of the vocabulary that no text becomes, 0 to 1.
    """
    share = unreachable_share(exported.tokenizer)
    if share > _MANY_CAPITALS:
        say(
            "warning",
            exported.name,
            f"its tokenizer makes texts lower case, and {share:.0%} of its vocabulary has "
            "capitals, which no text becomes: if it was not trained so, write "
            '"do_lower_case": false into its tokenizer_config.json and export it again',
        )
    return share


def warn_of_unused_weights(name: str, checkpoint: Checkpoint) -> None:
    """Say which weights of a checkpoint are left out, if they may matter.

    Args:
        name: Of the member.
        checkpoint: As it was loaded.
    """
    if checkpoint.unused:
        some = ", ".join(checkpoint.unused[:_MOST_NAMES])
        say(
            "warning",
            name,
            f"{len(checkpoint.unused)} of its weights have no place in "
            f"{type(checkpoint.model).__name__} and are left out ({some}): if the model that was "
            "trained had them, its answers are others",
        )
