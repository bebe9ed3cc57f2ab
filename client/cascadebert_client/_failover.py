"""Calls that move from one server to another; `_servers` keeps which of them are left out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ._attempts import Attempts, MakeArguments
from ._deadline import Deadline
from ._servers import SHORT_CALL_S, HangWatch, Servers, is_full, stopped_by_server
from ._steps import Call, Flow, Pause
from .errors import (
    FOREIGN_ERRORS,
    AccessRestricted,
    CascadeClientError,
    DeadlineExceeded,
    ModelNotFound,
    RequestCancelled,
    ServerUnavailable,
    Target,
    translated,
)


class Failover:
    """The calls of one client to several servers."""

    def __init__(
        self,
        target: Target,
        servers: Servers,
        attempts: Attempts,
        headers: Mapping[str, str] | None,
    ):
        """Describe the servers.

        Args:
            target: The model; its url plays no part.
            servers: The servers, two or more.
            attempts: When to try again.
            headers: gRPC metadata for every call, in lower case.
        """
        self._target = target
        self._servers = servers
        self._attempts = attempts
        self._headers = headers

    def call(
        self, method: str, deadline: Deadline, target: Target, make_arguments: MakeArguments
    ) -> Flow[tuple[Any, int]]:
        """Call the servers in turn until one answers; there is a pause after each round of them.

        Returns the reply, and the position of the server that gave it.

        Args:
            method: The method of tritonclient's client.
            deadline: The deadline of all attempts together.
            target: The model, for messages.
            make_arguments: Makes an attempt's arguments.
        """
        attempts = 0
        errors: list[CascadeClientError] = []  # of this round
        while True:
            index = yield from self._server_in_turn(deadline)
            at = replace(target, url=self._servers.urls[index])
            remaining_s = deadline.require_time(at)
            arguments = {"headers": self._headers, **make_arguments(remaining_s)}
            call = Call(method, arguments, remaining_s, index)
            if method == "infer":
                call = replace(call, watch=HangWatch.within(remaining_s))
            else:  # short: another server can answer it too
                call = replace(call, timeout_s=_shorter(remaining_s, SHORT_CALL_S))
            attempts += 1
            try:
                reply = yield call
            except FOREIGN_ERRORS as exc:
                error = translated(exc, at, timeout_s=deadline.timeout_s, attempts=attempts)
                if error is None or error is exc:
                    raise
                if stopped_by_server(exc):
                    self._servers.failed(index)
                elif not self._may_move(index, error, call, deadline):
                    raise error from exc
                errors.append(error)
                rounds, within_round = divmod(attempts, len(self._servers))
                delay_s = 0.0 if within_round else self._delay_of_round(errors, rounds, deadline)
                if delay_s is None:
                    raise error from exc
                if not within_round:
                    errors = []
                self._attempts.tell(error, delay_s)
            else:
                self._attempts.answered = True
                self._servers.answered(index)
                return reply, index
            if delay_s:
                yield Pause(delay_s)

    def _delay_of_round(
        self, errors: Sequence[CascadeClientError], rounds: int, deadline: Deadline
    ) -> float | None:
        """Return the pause before the servers are asked again, or None if it could not help.

        It could if it could help one of them, whichever was asked last.
        """
        delays_s = (self._delay_of_error(error, rounds, deadline) for error in errors)
        return max((delay_s for delay_s in delays_s if delay_s is not None), default=None)

    def _delay_of_error(
        self, error: CascadeClientError, rounds: int, deadline: Deadline
    ) -> float | None:
        # Only a server that stops has cancelled a call here.
        if isinstance(error, (DeadlineExceeded, RequestCancelled)):
            return self._attempts.delay_of_short_call_s(rounds, deadline)
        return self._attempts.delay_s(error, rounds, deadline)

    def _may_move(
        self, index: int, error: CascadeClientError, call: Call, deadline: Deadline
    ) -> bool:
        """Note a failure of a server, and return whether another one may answer the call."""
        if isinstance(error, DeadlineExceeded):
            self._servers.doubted(index)
            return call.watch is None and deadline.remaining_s() != 0
        if isinstance(error, ServerUnavailable):
            # A full queue is no fault: the others are asked, and this one stays.
            if not is_full(str(error)):
                self._servers.failed(index)
            return True
        # A server that has just started may not have loaded the model yet.
        return isinstance(error, ModelNotFound)

    def _server_in_turn(self, deadline: Deadline) -> Flow[int]:
        """Return the server for the next call. One that was left out must be ready again."""
        for _ in range(len(self._servers)):
            pick = self._servers.pick()
            if not pick.on_trial:
                return pick.index
            at = replace(self._target, url=self._servers.urls[pick.index])
            remaining_s = deadline.require_time(at)
            arguments = {
                "model_name": at.model, "model_version": at.model_version, "headers": self._headers,
            }  # fmt: skip
            probe_s = HangWatch.within(remaining_s).probe_s
            try:
                ready = bool((yield Call("is_model_ready", arguments, probe_s, pick.index)))
            except FOREIGN_ERRORS as exc:
                error = translated(exc, at)
                if error is None:
                    raise
                # It has answered, though not to this caller.
                ready = isinstance(error, AccessRestricted)
            if ready:
                self._servers.answered(pick.index)
                return pick.index
            self._servers.failed(pick.index)
        return self._servers.pick().index


def _shorter(remaining_s: float | None, limit_s: float) -> float:
    return limit_s if remaining_s is None else min(remaining_s, limit_s)
