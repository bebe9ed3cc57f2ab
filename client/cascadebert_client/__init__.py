"""The client of a cascade served by NVIDIA Triton: blocking, asyncio and command line.

It needs numpy, prometheus_client, tabulate, tqdm and tritonclient[grpc], and never torch.
"""

from importlib.metadata import PackageNotFoundError, version

from ._async import AsyncCascadeClient
from ._deadline import RetryPolicy
from ._sync import CascadeClient
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
    "UnexpectedResponse",
    "__version__",
]
