"""Several servers that share the calls of one client, and which of them are left out for a while.

Calls go to the servers in turn. gRPC could do that itself, with one channel for all of them, but it
would not notice a server that hangs: that takes the health service's `Watch`, which Triton does not
have (it answers UNIMPLEMENTED, and gRPC then takes the server for healthy). So the client looks for
itself:

- A server that refuses the connection, stops, or is not ready is left out for a second, then two,
  and so on up to half a minute. The call goes to the next server at once.
- A call that has no answer for two seconds makes the client ask the server whether it lives. If
  that has no answer either, the call is cancelled and sent to the next server.
- Before a server that was left out gets calls again, one caller asks it whether the model is ready.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tritonclient.utils import InferenceServerException

from ._channels import require_address
from .errors import InvalidRequest

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
# A question whether a server is ready or alive must be answered within these seconds.
PROBE_S = 1.0
# A call that is not an inference has these seconds, since another server can answer it too.
SHORT_CALL_S = 3.0
# A call without an answer for these seconds makes the client ask whether the server lives.
_PATIENCE_S = 2.0
# Of the time that is left, each of the two may take this share, so that another server still has
# half of it.
_SHARE = 0.25

# gRPC's words if this client has cancelled a call or closed its connection.
_BY_CLIENT = re.compile(r"locally cancelled|closed", re.IGNORECASE)
_FULL = re.compile(r"queue is full|maximum queue size", re.IGNORECASE)

# gRPC's own lists of addresses have commas too.
_GRPC_LISTS = ("ipv4:", "ipv6:")
# One address may stand for several servers: a name with several addresses, or a list.
_MANY_BEHIND = ("dns:", *_GRPC_LISTS)


@dataclass(frozen=True, slots=True)
class HangWatch:
    """When to ask whether a server lives that does not answer a call.

    Attributes:
        patience_s: Seconds without an answer before the question, and between two questions.
        probe_s: Seconds that the server has for its answer.
    """

    patience_s: float
    probe_s: float

    @classmethod
    def within(cls, remaining_s: float | None) -> "HangWatch":
        """Return the watch for a call that has these seconds left; None for no deadline."""
        share_s = _PATIENCE_S if remaining_s is None else _SHARE * remaining_s
        return cls(min(_PATIENCE_S, share_s), min(PROBE_S, share_s))


@dataclass(slots=True)
class _State:
    """What is known of one server.

    Attributes:
        pause_s: Seconds that it is left out for; 0 if it gets calls.
        until_s: The moment until which it is left out.
        on_trial: Whether a caller asks it meanwhile whether it is ready again.
    """

    pause_s: float = 0.0
    until_s: float = 0.0
    on_trial: bool = False


@dataclass(frozen=True, slots=True)
class Pick:
    """The server of a call.

    Attributes:
        index: Its position.
        on_trial: Whether to ask first whether it is ready: it was left out until now.
    """

    index: int
    on_trial: bool = False


class Servers:
    """The servers of a client. Thread-safe.

    Attributes:
        urls: Their addresses.
    """

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic):
        """Start with all of them.

        Args:
            urls: The address of each, at least one.
            clock: A monotonic clock, in seconds.
        """
        self.urls = tuple(urls)
        self._clock = clock
        self._states = [_State() for _ in urls]
        self._turn = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.urls)

    def pick(self) -> Pick:
        """Return the server whose turn it is. If all are left out, they take turns regardless."""
        if len(self.urls) == 1:
            return Pick(0)
        with self._lock:
            now_s = self._clock()
            turns = [(self._turn + step) % len(self.urls) for step in range(len(self.urls))]
            for index in turns:
                state = self._states[index]
                if state.pause_s and now_s < state.until_s:
                    continue
                self._turn = index + 1
                if not state.pause_s:
                    return Pick(index)
                # Only this caller tries it: the others leave it out meanwhile.
                state.on_trial, state.until_s = True, now_s + 2 * PROBE_S
                return Pick(index, on_trial=True)
            self._turn = turns[0] + 1
            return Pick(turns[0])

    def answered(self, index: int) -> None:
        """A server has answered: it gets calls."""
        state = self._states[index]
        if state.pause_s:
            with self._lock:
                state.pause_s, state.on_trial = 0.0, False

    def failed(self, index: int) -> None:
        """Leave a server out, each time for longer."""
        with self._lock:
            state = self._states[index]
            now_s = self._clock()
            if state.pause_s and now_s < state.until_s and not state.on_trial:
                return  # calls that fail together count once
            state.pause_s = min(max(2 * state.pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            state.until_s, state.on_trial = now_s + state.pause_s, False

    def doubted(self, index: int) -> None:
        """A call had no answer in time: ask the server before the next one."""
        with self._lock:
            state = self._states[index]
            if not state.pause_s:
                state.pause_s, state.until_s = _FIRST_PAUSE_S / 2, self._clock()


def is_full(message: str) -> bool:
    """Return whether a server refuses a call only because it has too much to do."""
    return bool(_FULL.search(message))


def stopped_by_server(error: Exception) -> bool:
    """Return whether a server has cancelled a call: it does so if the call comes while it stops."""
    if not isinstance(error, InferenceServerException):
        return False
    cancelled = str(error.status()).rpartition(".")[2] == "CANCELLED"
    return cancelled and not _BY_CLIENT.search(str(error.message()))


def no_sign_of_life(watch: HangWatch) -> InferenceServerException:
    """The failure of a call whose server does not say either that it lives."""
    return InferenceServerException(
        f"the server hangs: no answer to the call, nor within {watch.probe_s:g} s to the question "
        "whether it lives",
        status="StatusCode.UNAVAILABLE",
    )


def is_silent(error: Exception) -> bool:
    """Return whether a server did not answer the question whether it lives, not even with no."""
    found = error.status() if isinstance(error, InferenceServerException) else None
    return str(found).rpartition(".")[2] in {"DEADLINE_EXCEEDED", "UNAVAILABLE"}


def balancing_arguments(url: str) -> list[tuple[str, str]]:
    """Return the gRPC arguments that share the calls of one channel among all its addresses.

    Args:
        url: An address; gRPC balances those that name a resolver, such as `dns:///pods:8001`.
    """
    if not url.startswith(_MANY_BEHIND):
        return []
    return [("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}))]


def addresses_from_url(url: object) -> tuple[str, ...]:
    """Return the addresses of one server or several.

    Args:
        url: `host:port`, several with commas between them, or a sequence of them.

    Raises:
        InvalidRequest: An address is wrong or there twice, or there is none.
    """
    given: list[object]
    if isinstance(url, str) and not url.startswith(_GRPC_LISTS):
        given = [part.strip() for part in url.split(",")]
    elif isinstance(url, Sequence) and not isinstance(url, (str, bytes)):
        given = list(url)
    else:
        given = [url]
    if not given:
        raise InvalidRequest("url is an empty list: give host:port of each server")
    urls = tuple(map(require_address, given))
    twice = {each for each in urls if urls.count(each) > 1}
    if twice:
        raise InvalidRequest(f"url names {min(twice)} twice: give each server once")
    return urls
