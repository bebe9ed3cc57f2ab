"""The order of the labels, by the policy that answered, from a cascade's published configuration.

An answer has its policy's id. A policy that is new to the client is looked up once, so a client
that outlives a publication still gives every probability its right name.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from cascadebert_core.contract import LABELS, LABELS_BY_POLICY, POLICY_ID

# Seconds until a server is asked again for a policy: that its configuration did not name, or if it
# did not tell.
_ASK_AGAIN_S = 10.0
_AFTER_A_FAILURE_S = 1.0


class LabelOrders:
    """What is known of the labels of each policy. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """Start without any.

        Args:
            clock: A monotonic clock, in seconds.
        """
        self._orders: dict[str, tuple[str, ...]] = {}
        self._clock = clock
        self._lock = threading.Lock()
        self._asks_from_s: dict[str, float] = {}
        self._none_until_s = 0.0
        self._forbidden = False

    def order_of(self, policy: str) -> tuple[str, ...]:
        """Return the labels of a policy in their order; empty if unknown."""
        return self._orders.get(policy, ())

    def should_ask(self, policy: str) -> bool:
        """Return whether to ask the server now.

        Callers that come while the first question is on its way ask for themselves. Their answers
        would lack the order otherwise.
        """
        if policy in self._orders or self._forbidden:
            return False
        with self._lock:
            now_s = self._clock()
            return now_s >= max(self._asks_from_s.get(policy, now_s), self._none_until_s)

    def asked(self, policy: str, *, told: bool) -> None:
        """Note that a server was asked. No other is asked for a while.

        Args:
            policy: The policy of the answer.
            told: Whether it told its configuration.
        """
        with self._lock:
            pause_s = _ASK_AGAIN_S if told else _AFTER_A_FAILURE_S
            self._asks_from_s[policy] = self._clock() + pause_s

    def learn(self, parameters: Mapping[str, str]) -> None:
        """Take what a model's configuration says."""
        found = orders_from_parameters(parameters)
        with self._lock:
            self._orders = {**self._orders, **found}
            if not found:  # published by an earlier release
                self._none_until_s = self._clock() + _ASK_AGAIN_S

    def forbid(self) -> None:
        """Never ask again: the server does not show its configuration."""
        self._forbidden = True


def orders_from_parameters(parameters: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the labels by policy of a model's configuration, or none if it cannot be read."""
    try:
        raw = cast("dict[str, Any]", json.loads(parameters.get(LABELS_BY_POLICY, "{}")))
        found = {policy: _names(labels) for policy, labels in raw.items()}
        if LABELS in parameters and POLICY_ID in parameters:
            found[parameters[POLICY_ID]] = _names(json.loads(parameters[LABELS]))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}  # from another version
    return found


def labels_from_parameters(parameters: Mapping[str, str]) -> tuple[str, ...]:
    """Return the labels of the newest policy in their order; empty if they are unknown."""
    return orders_from_parameters(parameters).get(parameters.get(POLICY_ID, ""), ())


def _names(labels: object) -> tuple[str, ...]:
    if not isinstance(labels, list):
        raise TypeError(f"{labels!r} is no list of labels")
    names = tuple(cast("list[object]", labels))
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{names!r} are no labels")
    return cast("tuple[str, ...]", names)
