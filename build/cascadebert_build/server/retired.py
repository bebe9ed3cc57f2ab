"""The instances of a cascade that was loaded again because one of them died."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cascadebert_core.contract import POLICY_FILE
from cascadebert_core.policy import REQUEST_TIMEOUT_S
from cascadebert_supervisor.errors import StartError
from cascadebert_supervisor.repository import policy_of

from ..errors import CheckFailed
from .tritonserver import TritonServer

# Answers on their way, and the moment that the server needs to drop instances.
_MARGIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Retired:
    """Instances that take no new requests, and are dropped once they have answered the last.

    Attributes:
        model: The cascade.
        pids: Their processes, dead ones too. The server keeps all while a request is unanswered.
        request_timeout_s: The longest that a request without a deadline lasts in them.
        since_s: When others took their place, on the clock of `time.monotonic`.
    """

    model: str
    pids: frozenset[int]
    request_timeout_s: float
    since_s: float = math.inf

    @property
    def due_s(self) -> float:
        """From when on requests that the server still has for them are those of a dead one."""
        return self.since_s + self.request_timeout_s + _MARGIN_S


def retired_of_dead(server: TritonServer, model: str) -> Retired:
    """Return the instances of a cascade that is about to be loaded again.

    Raises:
        CheckFailed: The server does not say which versions it has loaded, or a policy is gone.
    """
    try:
        policies = [
            policy_of(server.repository, model, version) for version in server.cascades()[model]
        ]
    except StartError as exc:
        raise CheckFailed(f"{POLICY_FILE} of {model} cannot be read: {exc}") from exc
    timeout_s = max(policy.get("request_timeout_s", REQUEST_TIMEOUT_S) for policy in policies)
    pids = frozenset(stub.pid for stub in server.stubs() if stub.model == model)
    return Retired(model, pids, timeout_s)
