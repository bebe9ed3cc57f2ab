"""`POST /classify/stream`: newline-delimited JSON in and out, for lists of any length."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterable, Callable

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from cascadebert_client import CascadeClientError, Classification

from .errors import ApiError, from_client_error
from .messages import not_json

Row = str | tuple[str, str]


class StreamRow(BaseModel):
    """One line of a stream: a JSON string, or this object."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(description="the text")
    text_pair: str | None = Field(default=None, description="the second text of a pair")


class DuplexResponse(StreamingResponse):
    """Answers while the request's body still arrives.

    The base class listens for the end of the connection, and so takes parts of the body.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        await self.stream_response(send)


async def lines_of(chunks: AsyncIterable[bytes], max_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a body as they arrive.

    Args:
        chunks: The body.
        max_bytes: The longest line.

    Raises:
        ApiError: 413, a line is longer.
    """
    rest = b""
    number = 0
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            _require_short(line, number, max_bytes)
            yield line
        _require_short(rest, number + 1, max_bytes)
    if rest:
        yield rest


def _require_short(line: bytes, number: int, max_bytes: int) -> None:
    if len(line) > max_bytes:
        raise ApiError(
            413,
            "too_large",
            f"line {number} has more than {max_bytes} bytes, which is this gateway's limit",
            details={"line": number},
        )


async def rows_of(lines: AsyncIterable[bytes]) -> AsyncGenerator[Row, None]:
    """Yield the rows that lines hold. Empty lines are left out.

    Raises:
        ApiError: A line is not a row.
    """
    number = 0
    async for line in lines:
        number += 1
        if line.strip():
            yield row_of(line, number)


def row_of(line: bytes, number: int) -> Row:
    """Return the row of a line.

    Raises:
        ApiError: 400 if it is not JSON, 422 if it is no row.
    """
    try:
        value = json.loads(line)
    except json.JSONDecodeError as exc:
        position = len(exc.doc[: exc.pos].encode("utf-8", "surrogatepass"))
        raise not_json(f"line {number}: {exc.msg}", position, line=number) from None
    except UnicodeDecodeError as exc:
        raise not_json(f"line {number}: it is not UTF-8", exc.start, line=number) from None
    except RecursionError:
        raise not_json(f"line {number}: it is nested too deeply", 0, line=number) from None
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        pair = value.get("text_pair")
        unknown = sorted(set(value) - {"text", "text_pair"})
        if not unknown and (pair is None or isinstance(pair, str)):
            return value["text"] if pair is None else (value["text"], pair)
        if unknown:
            why = f"there is no field {unknown[0]!r}"
            raise ApiError(
                422,
                "validation",
                f"line {number}: {why}",
                details={"line": number, "field": unknown[0]},
            )
    raise ApiError(
        422,
        "validation",
        f'line {number} is no row: give a JSON string, or {{"text": "…", "text_pair": "…"}}',
        details={"line": number},
    )


async def answer_lines(
    answers: AsyncGenerator[Classification, None],
    to_json: Callable[[Classification], str],
) -> AsyncGenerator[bytes, None]:
    """Yield one line for each answer. An error is the last line: all rows before it have answers.

    Args:
        answers: The answers, in the order of their rows.
        to_json: Makes a line of one.
    """
    answered = 0
    try:
        async for answer in answers:
            answered += 1
            yield f"{to_json(answer)}\n".encode()
    except (ApiError, CascadeClientError) as exc:
        error = exc if isinstance(exc, ApiError) else from_client_error(exc)
        error.details["answered"] = answered
        yield error.body() + b"\n"
    finally:
        await answers.aclose()
