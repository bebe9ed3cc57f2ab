"""The JSON of requests and answers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cascadebert_client import Classification, Timeline

from .errors import ApiError

ModelT = TypeVar("ModelT", bound=BaseModel)

_POSITION = re.compile(r"Invalid JSON: (.*) at line (\d+) column (\d+)", re.DOTALL)
# What a field takes, if a value is of another type: a union would name only its first member.
_WANTED = {
    "text": "give a text, or a list of texts",
    "text_pair": "give a text, or a list of texts",
    "threshold": "give a number, or a list with one for each stage but the last",
    "inputs": "give a text, a pair of texts, or a batch: [[text], [text]]",
}

_Threshold = float | list[float]


class Options(BaseModel):
    """How rows are classified."""

    model_config = ConfigDict(extra="forbid", strict=True)

    operating_point: Annotated[
        str | None, Field(description="one of the cascade's operating points; default: its own")
    ] = None
    threshold: Annotated[
        _Threshold | None,
        Field(description="instead of an operating point: one number, or one for each stage"),
    ] = None
    stage: Annotated[
        int | None, Field(ge=0, le=2**31 - 1, description="let this stage alone answer, from 0")
    ] = None
    timeout_s: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="seconds; the gateway has a limit"),
    ] = None
    explain: Annotated[
        bool, Field(description="say how each answer came about, stage by stage")
    ] = False

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the client's `classify`, without the time limit."""
        return {
            "operating_point": self.operating_point,
            "threshold": self.threshold,
            "stage": self.stage,
            "explain": self.explain,
        }


class QueryOptions(BaseModel):
    """The options as parameters of a URL, where all values are text."""

    model_config = ConfigDict(extra="forbid")

    operating_point: str | None = None
    threshold: Annotated[
        list[float], Field(description="repeat it for one threshold for each stage")
    ] = []
    stage: Annotated[int | None, Field(ge=0, le=2**31 - 1)] = None
    timeout_s: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    explain: bool = False

    def options(self) -> Options:
        """Return them as options."""
        found: Any = self.threshold
        threshold = None if not found else found[0] if len(found) == 1 else found
        return Options(
            operating_point=self.operating_point,
            threshold=threshold,
            stage=self.stage,
            timeout_s=self.timeout_s,
            explain=self.explain,
        )


class ClassifyRequest(Options):
    """One text, or several; with `text_pair`, pairs of texts."""

    text: Annotated[
        str | list[str],
        Field(description="a text, or a list of texts", examples=["a gorgeous, witty film"]),
    ]
    text_pair: Annotated[
        str | list[str] | None,
        Field(description="for cascades that classify pairs: the second text of each"),
    ] = None

    def rows(self) -> list[str] | list[tuple[str, str]]:
        """Return the rows.

        Raises:
            ApiError: Texts and second texts are not of the same number.
        """
        texts = [self.text] if isinstance(self.text, str) else self.text
        if self.text_pair is None:
            return texts
        pairs = [self.text_pair] if isinstance(self.text_pair, str) else self.text_pair
        if len(pairs) != len(texts) or isinstance(self.text, str) != isinstance(
            self.text_pair, str
        ):
            raise ApiError(
                422,
                "validation",
                f"text_pair: {_count(self.text_pair)}, and text is {_count(self.text)}: give one "
                "second text for each text",
                details={"field": "text_pair"},
            )
        return list(zip(texts, pairs, strict=True))


def _count(value: str | list[str]) -> str:
    return "a single text" if isinstance(value, str) else f"a list of {len(value)}"


class StageOfAnswer(BaseModel):
    """What one stage did for a row. Times are milliseconds since the server got the request."""

    stage: Annotated[int, Field(description="position of the stage, from 0")]
    model: str
    version: int
    tokenised_ms: Annotated[
        list[float] | None, Field(description="start and end; null: the stage before did it")
    ]
    queued_ms: Annotated[float | None, Field(description="null: the row did not wait in a queue")]
    called_ms: float | None
    returned_ms: float | None
    batch_rows: Annotated[int | None, Field(description="rows in the call, others' too")]
    confidence: float | None
    probabilities: Annotated[dict[str, float] | None, Field(description="by label")]
    threshold: Annotated[float | None, Field(description="null at the last stage")]
    exit: Annotated[bool, Field(description="whether the stage answered the row")]


class TimelineOfAnswer(BaseModel):
    """How an answer came about."""

    received_unix_s: Annotated[float, Field(description="on the server's clock")]
    operating_point: str | None
    answered_ms: float
    stages: list[StageOfAnswer]


class Answer(BaseModel):
    """The cascade's answer for one row."""

    label: Annotated[
        str | list[str], Field(description="the label; of a multi-label cascade, all of them")
    ]
    probabilities: Annotated[dict[str, float], Field(description="by label")]
    confidence: Annotated[float, Field(description="of the stage that answered, 0 to 1")]
    exit_stage: Annotated[int, Field(description="the stage that answered, from 0")]
    degraded: Annotated[bool, Field(description="answered below the threshold, under overload")]
    policy: Annotated[str, Field(description="the id of the policy that decided")]
    operating_point: Annotated[
        str | None, Field(description="which one decided, if the cascade chooses it by its load")
    ] = None
    timeline: Annotated[
        TimelineOfAnswer | None, Field(description="only if the request says `explain`")
    ] = None


class ClassifyResponse(BaseModel):
    """One answer for each row, in their order."""

    answers: list[Answer]


class ErrorResponse(BaseModel):
    """What went wrong."""

    error: Annotated[str, Field(description="one sentence")]
    error_type: Annotated[str, Field(description="for programs")]
    field: Annotated[str | None, Field(description="the field of the request")] = None
    position: Annotated[int | None, Field(description="the byte at which JSON ends")] = None
    row: Annotated[int | None, Field(description="the row, from 0")] = None
    line: Annotated[int | None, Field(description="the line of a stream, from 1")] = None
    answered: Annotated[int | None, Field(description="rows of a stream with answers")] = None


def answer_fields(answer: Classification, *, multi_label: bool) -> dict[str, Any]:
    """Return the fields of `Answer`. A dictionary, because models cost more than the rest."""
    fields: dict[str, Any] = {
        "label": list(answer.labels) if multi_label else answer.label,
        "probabilities": probabilities_of(answer),
        "confidence": answer.confidence,
        "exit_stage": answer.exit_stage,
        "degraded": answer.degraded,
        "policy": answer.policy,
    }
    if answer.operating_point is not None:
        fields["operating_point"] = answer.operating_point
    if answer.timeline is not None:
        fields["timeline"] = _timeline_fields(answer, answer.timeline)
    return fields


def _timeline_fields(answer: Classification, timeline: Timeline) -> dict[str, Any]:
    fields = dataclasses.asdict(timeline)
    for stage in fields["stages"]:
        if stage["probabilities"] is not None:
            stage["probabilities"] = dict(
                zip(answer.label_order, stage["probabilities"], strict=True)
            )
    return fields


def probabilities_of(answer: Classification) -> dict[str, float]:
    """Return the probabilities by label.

    Raises:
        ApiError: The server does not say what its labels are.
    """
    try:
        return answer.probabilities_by_label
    except LookupError as exc:
        raise ApiError(502, "backend", str(exc)) from exc


def parsed(model: type[ModelT], body: bytes) -> ModelT:
    """Return the request that a body holds.

    Raises:
        ApiError: 400 if it is not JSON, 422 if it is another JSON. The message names the field or
            the position, and never shows a value.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        fields = model.model_fields
        needed_first = sorted(fields, key=lambda name: not fields[name].is_required())
        raise _api_error(exc, body, needed_first) from None


def _api_error(exc: ValidationError, body: bytes, fields: Sequence[str]) -> ApiError:
    errors = exc.errors(include_input=False, include_url=False)
    first = errors[0]
    if first["type"] == "json_invalid":
        # "Invalid JSON: expected value at line 1 column 9"
        reason, line, column = _POSITION.fullmatch(first["msg"]).groups()  # pyright: ignore[reportOptionalMemberAccess]
        lines = body.split(b"\n")
        position = sum(len(each) + 1 for each in lines[: int(line) - 1]) + max(0, int(column) - 1)
        return not_json(reason, min(position, len(body)))
    unknown = next((each for each in errors if each["type"] == "extra_forbidden"), None)
    if unknown is not None:
        field = str(unknown["loc"][0])
        return ApiError(
            422, "validation", f"{field}: there is no such field, but {', '.join(fields)}",
            details={"field": field},
        )  # fmt: skip
    # A union reports each of its members; the field is the first step.
    field = next((str(step) for step in first["loc"]), "")
    message = first["msg"]
    if first["type"] in ("string_type", "list_type", "float_type"):
        message = _WANTED.get(field, message)
    details = {"field": field} if field else {}
    return ApiError(422, "validation", f"{field or 'the body'}: {message}", details=details)


def not_json(reason: str, position: int, **details: Any) -> ApiError:
    """Return the answer for what is not JSON.

    Args:
        reason: What is wrong.
        position: The byte at which JSON ends, from 0.
        **details: More fields of the answer.
    """
    return ApiError(
        400,
        "syntax",
        # Python's own reasons end in "at" now and then.
        f"this is not JSON: {reason.removesuffix(' at')} at byte {position}",
        details={"position": position, **details},
    )
