"""The steps of a flow: what a client does for it between two of its decisions.

A flow is a generator that yields steps, receives their outcomes, and returns the result. The
blocking and the asyncio client each have a small driver that performs the steps, so the flows are
written once and only the await differs. (httpx drives its authentication this way.)
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from ._servers import HangWatch

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Call:
    """Call the server.

    Attributes:
        method: The method of tritonclient's client.
        arguments: Its keyword arguments, without the deadline.
        timeout_s: The gRPC deadline in seconds; None for no deadline.
        server: The position of the server.
        watch: When to ask whether the server lives; None: wait for the answer.
    """

    method: str
    arguments: Mapping[str, Any]
    timeout_s: float | None
    server: int = 0
    watch: HangWatch | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next attempt.

    Attributes:
        delay_s: The pause in seconds.
    """

    delay_s: float


@dataclass(frozen=True, slots=True)
class AskAddresses:
    """Call each address of the host; see `reason_of_addresses`, which gives the outcome.

    Attributes:
        url: `host:port`.
        limit_s: Seconds for all of them together.
    """

    url: str
    limit_s: float


Step: TypeAlias = Call | Pause | AskAddresses
Flow: TypeAlias = Generator[Step, Any, ResultT]
