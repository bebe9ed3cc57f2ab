"""The client of a cascade served by NVIDIA Triton: blocking, asyncio and command line.

It needs numpy, prometheus_client, tabulate, tqdm and tritonclient[grpc], and never torch.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._async import AsyncCascadeClient
    from ._deadline import RetryPolicy
    from ._sync import CascadeClient
    from ._timeline import StageTimeline, Timeline
    from ._types import Classification, ModelStatistics, ModelStatus, ServerStatus
    from .errors import (
        AccessRestricted,
        CascadeClientError,
        DeadlineExceeded,
        InvalidRequest,
        ModelNotFound,
        RequestCancelled,
        ServerError,
        ServerUnavailable,
        UnexpectedResponse,
    )

try:
    __version__ = version("cascadebert")
except PackageNotFoundError:  # the source tree, read without being installed
    __version__ = "0+unknown"

__all__ = [
    "AccessRestricted",
    "AsyncCascadeClient",
    "CascadeClient",
    "CascadeClientError",
    "Classification",
    "DeadlineExceeded",
    "InvalidRequest",
    "ModelNotFound",
    "ModelStatistics",
    "ModelStatus",
    "RequestCancelled",
    "RetryPolicy",
    "ServerError",
    "ServerStatus",
    "ServerUnavailable",
    "StageTimeline",
    "Timeline",
    "UnexpectedResponse",
    "__version__",
]

# gRPC takes half a second to import: `cascadebert --version` need not wait for it.
_MODULES = {
    "AsyncCascadeClient": "_async",
    "CascadeClient": "_sync",
    "Classification": "_types",
    "ModelStatistics": "_types",
    "ModelStatus": "_types",
    "RetryPolicy": "_deadline",
    "ServerStatus": "_types",
    "StageTimeline": "_timeline",
    "Timeline": "_timeline",
}
"""The module of each public name that is not in `errors`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES.get(name, 'errors')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
