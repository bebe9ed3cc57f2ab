"""Lines about requests: for programs, without texts, and not too many."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import numpy as np
import pytest

from cascadebert_core.errors import InvalidArgument, Unavailable
from cascadebert_core.job import Job
from cascadebert_core.request_log import ALL, NONE, RequestLog, write_line
from cascadebert_core.route import route_from_thresholds


class Log:
    def __init__(self, **options: Any) -> None:
        self.lines: list[dict[str, Any]] = []
        self.now_s = 0.0
        self.log = RequestLog(
            "news",
            "2",
            write=lambda line: self.lines.append(json.loads(line)),
            clock=lambda: self.now_s,
            **options,
        )

    def ended(self, error: Exception | None = None) -> None:
        job = Job(["zebra\ncrossing"], route_from_thresholds((0.5,)), 2, request_id="r-1")
        job.listeners.append(self.log.ended)
        if error is None:
            job.settle(np.array([0]), np.array([[0.1, 0.9]]), np.array([0.9]), 1)  # pyright: ignore[reportArgumentType]
        else:
            job.fail(error)


def test_errors_are_logged_with_the_requests_id_and_without_its_text() -> None:
    log = Log()
    log.ended()
    log.ended(Unavailable("stage 1 has 2 rows waiting"))
    (line,) = log.lines
    assert line.pop("milliseconds") >= 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "event": "request_failed",
        "model": "news",
        "version": "2",
        "request_id": "r-1",
        "rows": 1,
        "kind": "unavailable",
        "reason": "stage 1 has 2 rows waiting",
    }


def test_all_requests_and_their_texts_are_logged_if_asked_for() -> None:
    log = Log(level=ALL, with_text=True)
    log.ended()
    (line,) = log.lines
    assert line["event"] == "request_answered"
    assert line["exit_stages"] == [1]
    assert line["degraded_rows"] == 0
    assert line["texts"] == ["zebra\ncrossing"]
    quiet = Log(level=NONE)
    quiet.ended(Unavailable("x"))
    assert not quiet.lines
    with pytest.raises(ValueError, match="log_requests is 'some'"):
        Log(level="some")


def test_a_flood_of_one_kind_is_cut_short_and_its_size_is_told() -> None:
    log = Log()
    for _ in range(25):
        log.ended(Unavailable("full"))
    log.ended(InvalidArgument("bad"))
    assert [line["kind"] for line in log.lines] == ["unavailable"] * 10 + ["invalid_argument"]
    log.now_s = 1.0
    log.ended(Unavailable("full"))
    log.ended(Unavailable("full"))
    assert [line.get("held_back") for line in log.lines[-2:]] == [15, None]


def test_a_line_in_the_log_is_json_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    log = RequestLog("news", "2", with_text=True, write=write_line)
    job = Job(['a "quoted"\nline, é'], route_from_thresholds((0.5,)), 2, request_id="r-1")
    job.listeners.append(log.ended)
    job.fail(Unavailable("full"))
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["texts"] == ['a "quoted"\nline, é']


def test_a_log_that_takes_nothing_fails_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_number: int, _content: bytes) -> int:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "write", write)
    write_line("{}")


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [(f"00-{'ab' * 16}-{'cd' * 8}-01", "ab" * 16), ("", None), ("a secret text", None)],
)
def test_a_line_names_the_trace(traceparent: str, expected: str | None) -> None:
    lines: list[str] = []
    log = RequestLog("m", "1", level="all", write=lines.append)
    job = Job(["a"], route_from_thresholds((0.9,)), 2, traceparent=traceparent)
    job.fail(Unavailable("full"))
    log.ended(job)
    assert json.loads(lines[0]).get("trace_id") == expected
