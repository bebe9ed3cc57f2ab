"""What the blocking client and the asyncio client share: their arguments and checks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Generic, Literal, NoReturn

import grpc

from ._addresses import reason_of_addresses
from ._attempts import OnRetry
from ._channels import DEFAULT_CHANNELS, ChannelPool, ClientT
from ._checks import require_headers, require_positive
from ._deadline import Deadline, RetryPolicy
from ._flows import CascadeFlows
from ._requests import Parameters, Thresholds, request_parameters
from ._servers import Servers, addresses_from_url
from ._steps import AskAddresses
from ._traffic import BY_REQUEST, traffic_from_shares
from .errors import RequestCancelled, Target

DEFAULT_CONCURRENCY = 8
DEFAULT_ROWS_PER_REQUEST = 16
DEFAULT_STATUS_TIMEOUT_S = 5.0


class BaseClient(ABC, Generic[ClientT]):
    """The settings of a client. Subclasses make the connections and perform the flows' steps."""

    def __init__(
        self,
        url: str | Sequence[str],
        model: str = "cascade",
        model_version: str | int | None = None,
        *,
        channels: int = DEFAULT_CHANNELS,
        max_concurrency: int = DEFAULT_CONCURRENCY,
        max_batch_size: int | None = None,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        traffic: Mapping[str, float] | Mapping[int, float] | None = None,
        traffic_by: Literal["request", "text"] = BY_REQUEST,
        on_retry: OnRetry | None = None,
    ):
        """Set up the client. The first call opens the connections.

        Args:
            url: `host:port` of the server's gRPC endpoint. Several servers, in a list or with
                commas between them, share the calls: each call goes to the next one, and a server
                that fails or hangs is left out until it is ready again. `dns:///name:port` shares
                them among all addresses of a name.
            model: Name of the cascade on the server.
            model_version: Its version; None lets the server choose.
            channels: Connections to each server, used in turn. One limits throughput at high
                concurrency.
            max_concurrency: Requests that one `classify` of a long list keeps in flight.
            max_batch_size: Rows in one request at most; None reads it from the model's
                configuration once, when a call first has several rows.
            retry: When to try again if the server is unavailable.
            headers: gRPC metadata for every call, for example the key of a restricted protocol.
            credentials: TLS credentials (`grpc.ssl_channel_credentials(…)`); None does not encrypt.
            traffic: Shares of the traffic for other versions, for example `{"2": 0.1}`: each from 0
                to 1, together at most 1. The rest goes to `model_version`, or to the version that
                the server chooses, its newest. The named versions must be loaded.
            traffic_by: "request" draws a version for every request at random. "text" chooses it by
                the text, so that equal rows get the answer of one version; a list's rows for
                different versions are sent one request after the other. In both cases
                `Classification.policy` tells which version answered.
            on_retry: Called before each further attempt with the error of the last one and the
                seconds until the next. It may be called from several threads.

        Raises:
            InvalidRequest: `url` is not host:port, a count is less than 1, a header cannot be sent,
                or `traffic` is wrong.
        """
        version = "" if model_version is None else str(model_version)
        urls = addresses_from_url(url)
        require_headers(headers or {})
        self._flows = CascadeFlows(
            Target(", ".join(urls), model, version, tls=credentials is not None),
            retry=retry if retry is not None else RetryPolicy(),
            max_batch_size=(
                None
                if max_batch_size is None
                else require_positive("max_batch_size", max_batch_size)
            ),
            headers=headers,
            traffic=traffic_from_shares(traffic, rest=version, by=traffic_by),
            on_retry=on_retry,
            servers=Servers(urls),
        )
        self._max_concurrency = require_positive("max_concurrency", max_concurrency)
        size = require_positive("channels", channels)
        self._pools = [ChannelPool(partial(self._connect, each), size) for each in urls]
        self._credentials = credentials
        self._closed = False

    @abstractmethod
    def _connect(self, url: str) -> ClientT:
        """Return tritonclient's client over a new connection to a server."""

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied, since it holds connections: make "
            "one in each process, from the same arguments"
        )

    def _reason_of_addresses(self, step: AskAddresses) -> str | None:
        return reason_of_addresses(step.url, self._credentials, step.limit_s)

    def _closed_error(self) -> RequestCancelled:
        target = self._flows.target
        return RequestCancelled(
            f"the client of {target} is closed: call inside its `with` block, or make a new client",
            target=target,
        )


def stream_parameters(
    *,
    rows_per_request: object,
    max_concurrency: object,
    operating_point: str | None,
    threshold: Thresholds | None,
    stage: int | None,
    request_id: str | None,
    explain: bool = False,
    traceparent: str | None = None,
    timeout_s: float | None,
) -> Parameters:
    """Check the arguments of `classify_stream`, and return its request parameters.

    Raises:
        InvalidRequest: An argument is wrong.
    """
    Deadline.after(timeout_s)
    require_positive("rows_per_request", rows_per_request)
    require_positive("max_concurrency", max_concurrency)
    return request_parameters(
        operating_point, threshold, stage, request_id, explain=explain, traceparent=traceparent
    )
