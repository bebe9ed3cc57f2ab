"""`POST /classify/stream`: newline-delimited JSON in and out, for lists of any length."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from cascadebert_client import CascadeClientError, Classification

from .deadline import within
from .errors import ApiError, from_client_error, too_slow
from .messages import not_json

_LOGGER = logging.getLogger(__name__)

Row = str | tuple[str, str]


class StreamBody:
    """The body of a request, which arrives while it is answered, and whether its caller stays.

    Attributes:
        gone: Set once the caller has hung up. That is seen when the body is next read, and at any
            time once it is whole.
    """

    def __init__(self, request: Request):
        """Read nothing yet."""
        self.gone = asyncio.Event()
        self._request = request
        self._watching: asyncio.Task[None] | None = None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the parts of the body as they arrive, and then watch the caller.

        Raises:
            ClientDisconnect: The caller has hung up.
        """
        try:
            async for chunk in self._request.stream():
                yield chunk
        except ClientDisconnect:
            self.gone.set()
            raise
        self._watching = asyncio.create_task(self._watch())

    def close(self) -> None:
        """Watch no more."""
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self.gone.set()


class DuplexResponse(StreamingResponse):
    """Answers while the request's body still arrives, and ends if the caller hangs up.

    The base class listens for the end of the connection, and so takes parts of the body. The head
    waits for the first line, so that an error before it has its own status.
    """

    def __init__(self, lines: AsyncGenerator[bytes, None], body: StreamBody, media_type: str):
        """Take the lines of `answer_lines` and the body that they answer."""
        super().__init__(lines, media_type=media_type)
        self._lines = lines
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer.

        Raises:
            ApiError: There was an error before the first answer. Nothing is sent.
            ClientDisconnect: The caller has hung up. The requests in flight are cancelled.
        """
        sending = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(self._body.gone.wait())
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise ClientDisconnect
            sending.result()
        finally:
            self._body.close()
            sending.cancel()
            gone.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        try:
            first = await anext(self._lines, b"")

            async def all_lines() -> AsyncGenerator[bytes, None]:
                yield first
                async for line in self._lines:
                    yield line

            self.body_iterator = all_lines()
            await self.stream_response(send)
        finally:
            await self._lines.aclose()


async def lines_of(
    chunks: AsyncGenerator[bytes, None], max_bytes: int, idle_s: float
) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a body as they arrive.

    Args:
        chunks: The body.
        max_bytes: The longest line.
        idle_s: Seconds in which the next line must be whole. Time in which no one asks for a line
            does not count.

    Raises:
        ApiError: 413, a line is longer; 408, it takes too long.
    """
    parts: list[bytes] = []  # of the line that is not whole
    size = 0
    number = 0
    until_s = time.monotonic() + idle_s
    while True:
        late = too_slow(f"line {number + 1} did not arrive within {idle_s:g} s", line=number + 1)
        with within(until_s - time.monotonic(), late):
            chunk = await anext(chunks, None)
        if chunk is None:
            break
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            number += 1
            _require_short(size + len(line), number, max_bytes)
            yield b"".join([*parts, line])
            parts.clear()
            size = 0
        if whole:
            until_s = time.monotonic() + idle_s
        parts.append(rest)
        size += len(rest)
        _require_short(size, number + 1, max_bytes)
    if size:
        yield b"".join(parts)


def _require_short(size: int, number: int, max_bytes: int) -> None:
    if size > max_bytes:
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
    except ValueError:
        # Python reads no integer of more than 4,300 digits.
        raise not_json(f"line {number}: a number has too many digits", 0, line=number) from None
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
    failed: Callable[[str], None],
) -> AsyncGenerator[bytes, None]:
    """Yield one line for each answer. An error is the last line: all rows before it have answers.

    Args:
        answers: The answers, in the order of their rows.
        to_json: Makes a line of one.
        failed: Is told the kind of an error that is the last line.

    Raises:
        ApiError: The error came before the first answer.
        ClientDisconnect: The caller has hung up.
    """
    answered = 0
    try:
        async for answer in answers:
            line = f"{to_json(answer)}\n".encode()
            answered += 1
            yield line
    except ClientDisconnect:
        raise
    except Exception as exc:  # noqa: BLE001 - the status is sent; it is logged
        error = _error_of(exc)
        error.details["answered"] = answered
        if not answered:
            raise error from None if error is exc else exc
        failed(error.kind)
        yield error.body() + b"\n"
    finally:
        await answers.aclose()


def _error_of(exc: Exception) -> ApiError:
    if isinstance(exc, ApiError):
        return exc
    if isinstance(exc, CascadeClientError):
        return from_client_error(exc)
    _LOGGER.error("a stream failed", exc_info=exc)
    return ApiError(500, "internal", "the gateway failed: its log says why")
