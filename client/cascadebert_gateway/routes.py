"""The routes."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic_core import to_json
from starlette.responses import Response

from cascadebert_client import Classification

from .backend import Backend, request_id_of, traceparent_of
from .direct import DirectRequest, Endpoint
from .messages import (
    ClassifyRequest,
    ClassifyResponse,
    ErrorResponse,
    Options,
    QueryOptions,
    answer_fields,
    parsed,
)
from .metrics import GatewayMetrics
from .settings import GatewaySettings
from .stream import DuplexResponse, StreamBody, answer_lines, lines_of, rows_of
from .tei import Prediction, PredictRequest, predictions

_JSON = "application/json"
_NDJSON = "application/x-ndjson"

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "The body is not JSON"},
    401: {"model": ErrorResponse, "description": "The API key is missing or wrong"},
    408: {"model": ErrorResponse, "description": "The body, or a line, did not arrive in time"},
    413: {"model": ErrorResponse, "description": "The body is too large"},
    415: {"model": ErrorResponse, "description": "A page of another origin sent no JSON"},
    422: {"model": ErrorResponse, "description": "A field is wrong, or there is no such field"},
    502: {"model": ErrorResponse, "description": "The server failed"},
    503: {"model": ErrorResponse, "description": "The server or the gateway cannot answer now"},
    504: {"model": ErrorResponse, "description": "There was no answer in time"},
}


def router(
    settings: GatewaySettings, backend: Backend, metrics: GatewayMetrics
) -> tuple[APIRouter, dict[str, Endpoint]]:
    """Return the routes of a gateway, and those endpoints that need no routing, by their paths.

    Bodies are read by hand: a framework's own reading costs as much as the call to the server.
    """
    routes = APIRouter()

    def count(answers: list[Classification]) -> None:
        for answer in answers:
            metrics.count_rows(answer.exit_stage)

    async def classify(request: DirectRequest) -> bytes:
        asked = parsed(ClassifyRequest, request.body)
        answers, multi_label = await backend.classify_as_task(asked.rows(), asked, request)
        count(answers)
        fields = [answer_fields(answer, multi_label=multi_label) for answer in answers]
        return to_json({"answers": fields})

    routes.add_api_route(
        "/classify",
        _called_directly,
        methods=["POST"],
        name="classify",
        summary="Classify a text, a list of texts, or pairs",
        tags=["classify"],
        response_model=ClassifyResponse,
        responses=ERRORS,
        openapi_extra=_body(ClassifyRequest),
    )

    @routes.post(
        "/classify/stream",
        summary="Classify any number of rows: a line each, in and out",
        description='Each line is a JSON string, or `{"text": "…", "text_pair": "…"}`. Answers '
        "come in the order of the rows, while rows still arrive. An error before the first answer "
        "has its own status; a later one is the last line. Its field `answered` says how many rows "
        "have answers.",
        tags=["classify"],
        responses={
            200: {"content": {_NDJSON: {"schema": {"type": "string"}}}},
            **ERRORS,
        },
        response_class=StreamingResponse,
        openapi_extra={
            "requestBody": {"required": True, "content": {_NDJSON: {"schema": {"type": "string"}}}}
        },
    )
    async def classify_stream(
        request: Request, query: Annotated[QueryOptions, Query()]
    ) -> StreamingResponse:
        options = query.options()
        request_id = request_id_of(request)
        multi_label = await backend.multi_label(options)
        body = StreamBody(request)
        lines = lines_of(body.chunks(), settings.max_body_bytes, settings.timeout_s)
        rows: Any = rows_of(lines)
        answers = backend.client.classify_stream(
            rows,
            timeout_s=backend.timeout_s(options),
            request_id=request_id,
            traceparent=traceparent_of(request),
            **options.arguments(),
        )

        def to_line(answer: Classification) -> str:
            count([answer])
            return json.dumps(answer_fields(answer, multi_label=multi_label))

        answered = answer_lines(answers, to_line, metrics.count_stream_error)
        return DuplexResponse(answered, body, media_type=_NDJSON)

    async def predict(request: DirectRequest) -> bytes:
        rows, batch = parsed(PredictRequest, request.body).rows()
        answers = await backend.classify(rows, Options(), request)
        count(answers)
        ranked = [predictions(answer) for answer in answers]
        return to_json(ranked if batch else ranked[0])

    routes.add_api_route(
        "/predict",
        _called_directly,
        methods=["POST"],
        name="predict",
        summary="Classify in the form of Text Embeddings Inference",
        tags=["classify"],
        response_model=list[Prediction] | list[list[Prediction]],
        responses=ERRORS,
        openapi_extra=_body(PredictRequest),
    )

    @routes.get("/health", summary="Whether the gateway lives", tags=["operate"])
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @routes.get(
        "/ready",
        summary="Whether the cascade can answer",
        tags=["operate"],
        responses={503: ERRORS[503]},
    )
    async def ready() -> dict[str, str]:
        problem = await backend.ready()
        if problem is not None:
            raise problem
        return {"status": "ready"}

    @routes.get(
        "/info",
        summary="The cascade: labels, operating points, limits",
        tags=["operate"],
        responses={401: ERRORS[401], 502: ERRORS[502], 503: ERRORS[503]},
    )
    async def info() -> dict[str, Any]:
        return await backend.info()

    @routes.get(
        "/metrics",
        summary="The gateway's metrics, for Prometheus",
        tags=["operate"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, 401: ERRORS[401]},
    )
    async def metrics_page() -> Response:
        return metrics.page()

    return routes, {"/classify": classify, "/predict": predict}


async def _called_directly() -> None:
    """Stands in the OpenAPI document for an endpoint that the front calls."""
    raise AssertionError("the front calls this endpoint itself")


def _body(model: type[ClassifyRequest | PredictRequest]) -> dict[str, Any]:
    """The OpenAPI description of a body that is read by hand."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {_JSON: {"schema": schema}}}}
