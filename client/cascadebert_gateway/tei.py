"""`POST /predict` in the form of Text Embeddings Inference, so that its callers can point here.

https://huggingface.github.io/text-embeddings-inference describes the form.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from cascadebert_client import Classification

from .errors import ApiError
from .messages import probabilities_of

_Row = str | tuple[str, str]


class PredictRequest(BaseModel):
    """A text, a pair, or a batch of `[text]` and `[text, second text]`."""

    # TEI takes no other fields than these; those that it has and a cascade cannot follow are named.
    model_config = ConfigDict(extra="forbid", strict=True)

    inputs: Annotated[
        str | list[str] | list[list[str]],
        Field(description="a text, a pair of texts, or a batch of both", examples=["I like it."]),
    ]
    truncate: Annotated[
        bool, Field(description="without effect: a cascade truncates as its members were built")
    ] = False
    truncation_direction: Annotated[str, Field(description="only Right")] = "Right"
    raw_scores: Annotated[bool, Field(description="only false: a cascade has no logits")] = False

    def rows(self) -> tuple[list[_Row], bool]:
        """Return the rows, and whether they are a batch.

        Raises:
            ApiError: A cascade cannot do what is asked.
        """
        if self.raw_scores:
            raise _refused("raw_scores", "a cascade answers probabilities: leave it out")
        if self.truncation_direction != "Right":
            raise _refused("truncation_direction", "a cascade truncates on the right: leave it out")
        inputs: Any = self.inputs
        if not inputs and not isinstance(inputs, str):
            raise _refused("inputs", "an empty list: give a text, or a batch")
        if isinstance(inputs, str):
            return [inputs], False
        if inputs and isinstance(inputs[0], str):
            return [_row(inputs)], False
        return [_row(each) for each in inputs], True


class Prediction(BaseModel):
    """One label with its probability."""

    score: float
    label: str


def _row(texts: list[str]) -> _Row:
    if len(texts) not in (1, 2):
        raise _refused(
            "inputs", f"a row has {len(texts)} texts: give a text, or two for a pair; in a batch "
            "each row is a list: [[text], [text]]"
        )  # fmt: skip
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


def _refused(field: str, why: str) -> ApiError:
    return ApiError(422, "validation", f"{field}: {why}", details={"field": field})


def predictions(answer: Classification) -> list[dict[str, Any]]:
    """Return all labels with their probabilities, the largest first."""
    ranked = sorted(probabilities_of(answer).items(), key=lambda each: -each[1])
    return [{"score": score, "label": label} for label, score in ranked]
