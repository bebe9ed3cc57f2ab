"""Whatever a caller sends, the gateway answers it or refuses it as its OpenAPI document says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascadebert_gateway import GatewaySettings, create_app
from tests.support.fuzzing import json_values, mutated
from tests.support.gateways import running_gateway
from tests.support.sizes import sized
from tests.unit.fake_triton import LABELS, POLICY, FakeTriton

# Not for Python 3.10.
schemathesis = pytest.importorskip("schemathesis")
requests = pytest.importorskip("requests")


@schemathesis.serializer("application/x-ndjson")
def lines(_: Any, value: Any) -> bytes:
    """A body that is no text is sent as JSON: one line."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "surrogatepass")


EXAMPLES = settings(
    max_examples=sized(25, 2_000),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
OPERATIONS = (
    "POST /classify",
    "POST /classify/stream",
    "POST /predict",
    "GET /health",
    "GET /ready",
    "GET /info",
    "GET /metrics",
)
BODY: dict[str, Any] = {
    "text": ["a", "b"],
    "text_pair": None,
    "operating_point": "fast",
    "threshold": [0.9],
    "timeout_s": 5,
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    parameters = {
        "policy": POLICY,
        "labels": json.dumps(LABELS),
        "operating_points": json.dumps({"fast": {"thresholds": [0.7], "default": True}}),
    }
    with (
        FakeTriton(parameters=parameters, max_batch_size=64) as triton,
        running_gateway(url=triton.url, timeout_s=5) as found,
    ):
        yield found


def schema() -> Any:
    """The document of a gateway that needs no server for it."""
    from starlette.testclient import TestClient

    with TestClient(create_app(GatewaySettings())) as client:
        return schemathesis.openapi.from_dict(client.get("/openapi.json").json())


SCHEMA = schema()


def operation(name: str) -> Any:
    method, _, path = name.partition(" ")
    return SCHEMA[path][method]


def test_every_route_is_fuzzed() -> None:
    found = {f"{made.ok().method.upper()} {made.ok().path}" for made in SCHEMA.get_all_operations()}
    assert found == set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_requests_within_the_document_and_outside_it(name: str, address: str) -> None:
    """No status but the documented ones, and bodies of the documented form; never 500."""
    modes = [schemathesis.GenerationMode.POSITIVE]
    if name.startswith("POST"):
        modes.append(schemathesis.GenerationMode.NEGATIVE)
    both: Any = st.one_of(*(operation(name).as_strategy(generation_mode=each) for each in modes))
    with requests.Session() as session:

        @EXAMPLES
        @given(both)
        def ask(case: Any) -> None:
            response = case.call(base_url=address, session=session)
            assert response.status_code != 500, response.text
            case.validate_response(
                response,
                checks=[
                    schemathesis.checks.CHECKS.get_one("status_code_conformance"),
                    schemathesis.checks.CHECKS.get_one("content_type_conformance"),
                    schemathesis.checks.CHECKS.get_one("response_schema_conformance"),
                ],
            )

        ask()


@pytest.mark.parametrize(
    ("path", "body"), [("/classify", BODY), ("/predict", {"inputs": [["a"], ["b", "c"]]})]
)
def test_bodies_of_any_json(path: str, body: dict[str, Any], address: str) -> None:
    with requests.Session() as session:

        @EXAMPLES
        @given(st.data())
        def ask(data: st.DataObject) -> None:
            # `mutated` changes its argument.
            raw = data.draw(st.one_of(json_values(), mutated(json.loads(json.dumps(body)))))
            check_answer(session.post(f"{address}{path}", data=json.dumps(raw)))

        ask()


@pytest.mark.parametrize("path", ["/classify", "/predict", "/classify/stream"])
def test_bodies_of_any_bytes(path: str, address: str) -> None:
    with requests.Session() as session:

        @EXAMPLES
        @given(st.binary(max_size=200))
        def ask(body: bytes) -> None:
            check_answer(session.post(f"{address}{path}", data=body))

        ask()


def check_answer(response: Any) -> None:
    """An answer, or an error with its sentence and its kind."""
    assert response.status_code in (200, 400, 422), response.text
    for line in response.text.splitlines():
        found = json.loads(line)
        if response.status_code != 200:
            assert 0 < len(found["error"]) < 1000
            assert found["error_type"] in ("syntax", "validation")
            assert ("position" in found) == (response.status_code == 400)
