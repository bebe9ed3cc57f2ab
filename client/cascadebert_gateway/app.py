"""The ASGI application."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp

from cascadebert_client import CascadeClientError, __version__

from .access import ApiKeys
from .backend import Backend
from .errors import ApiError, from_client_error
from .front import Front
from .metrics import GatewayMetrics
from .routes import router
from .settings import GatewaySettings

_PAGES = Path(__file__).parent / "static"
# The browser, too, keeps the page from loading or calling anything else.
_ONLY_ITSELF = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'"
}


def create_app(settings: GatewaySettings) -> ASGIApp:
    """Return the gateway as an ASGI application, for any server of that kind.

    The page at `/`, `/docs` and `/redoc` load nothing from other hosts.
    """
    backend = Backend(settings)
    metrics = GatewayMetrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        await backend.client.close()

    # Its documentation pages come from the package and not from another host.
    app = FastAPIOffline(
        title="CascadeBERT gateway",
        version=__version__,
        description="Text classification by a cascade of BERT-family models.",
        lifespan=lifespan,
        static_url="/static-offline-docs",
    )
    routes, direct = router(settings, backend, metrics)
    app.include_router(routes)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(CascadeClientError, _client_error)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGES / "index.html", headers=_ONLY_ITSELF)

    app.mount("/static", StaticFiles(directory=_PAGES), name="static")
    front: ASGIApp = Front(
        app,
        direct,
        keys=ApiKeys(settings.keys),
        metrics=metrics,
        max_body_bytes=settings.max_body_bytes,
        max_requests=settings.max_requests,
        timeout_s=settings.timeout_s,
        origins=settings.cors_origins,
    )
    if settings.cors_origins:
        front = CORSMiddleware(
            front,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
    return front


async def _api_error(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, ApiError)
    return exc.response()


async def _client_error(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, CascadeClientError)
    return from_client_error(exc).response()


async def _http_error(request: Request, exc: Exception) -> Response:
    """The framework's own errors: no such path, and a method that a path does not have."""
    assert isinstance(exc, HTTPException)
    what = {404: ("not_found", "there is no"), 405: ("method", "this path takes no")}
    kind, start = what.get(exc.status_code, ("error", "this gateway refuses"))
    where = request.method if exc.status_code == 405 else request.url.path
    message = f"{start} {where}: see /docs"
    return ApiError(exc.status_code, kind, message, headers=exc.headers).response()


async def _validation_error(_: Request, exc: Exception) -> Response:
    """Query parameters that are wrong; bodies are read elsewhere."""
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    field = next((str(step) for step in first["loc"][1:]), "")
    message = "there is no such parameter" if first["type"] == "extra_forbidden" else first["msg"]
    details = {"field": field}
    return ApiError(422, "validation", f"{field}: {message}", details=details).response()
