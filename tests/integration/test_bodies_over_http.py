"""JSON bodies over HTTP that are no good requests: which status each gets, and whose it is."""

from __future__ import annotations

import contextlib
import http.client
import json

import pytest

from cascadebert_build.server.tritonserver import TritonServer


def post(running: TritonServer, data: str) -> tuple[int, str]:
    """Send a request whose TEXT has this JSON as its data."""
    tensor = f'{{"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": {data}}}'
    connection = http.client.HTTPConnection("127.0.0.1", running.ports.http, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/v2/models/tiny/infer", f'{{"inputs": [{tensor}]}}'.encode())
        response = connection.getresponse()
        return response.status, str(json.loads(response.read()).get("error", ""))


# Triton's HTTP front end reads the JSON, and blames itself. The model never sees these.
@pytest.mark.parametrize("data", ["[3]", "[null]", "[true]", '[{"a": 1}]', "null", '["\\ud800"]'])
def test_json_that_holds_no_text_is_refused_by_triton(running: TritonServer, data: str) -> None:
    status, error = post(running, data)
    assert status == 500
    assert "parse" in error
    assert post(running, '["a film"]')[0] == 200


@pytest.mark.parametrize(
    ("data", "message"),
    [('[""]', "row 0 is empty"), ('[" "]', "row 0 is empty"), ('["a\\udc00"]', "not UTF-8")],
)
def test_texts_that_are_wrong_are_refused_by_the_model(
    running: TritonServer, data: str, message: str
) -> None:
    status, error = post(running, data)
    assert status == 400
    assert message in error


def test_nul_characters_are_part_of_a_text(running: TritonServer) -> None:
    assert post(running, '["a\\u0000b"]') == (200, "")
