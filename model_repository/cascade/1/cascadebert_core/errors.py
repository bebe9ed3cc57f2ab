"""The errors that a request can end with.

::

    CascadeError
    ├── InvalidArgument     the request is wrong; a retry fails again
    │   └── PolicyError     the policy is wrong; it fails the load, never a request
    ├── DeadlineExceeded    the request's deadline has passed or cannot be met
    ├── Cancelled           the caller has cancelled
    ├── Unavailable         a stage or the cascade cannot answer now; a retry may succeed
    └── InternalError       a stage broke its contract, or its logits are not finite
"""

from __future__ import annotations


class CascadeError(Exception):
    """Base of the errors that the core raises."""


class InvalidArgument(CascadeError):  # noqa: N818 - named as the status it becomes
    """The caller's request is wrong: INVALID_ARGUMENT on the wire."""


class PolicyError(InvalidArgument):
    """The policy cannot be served; the message names the key and the value."""


class DeadlineExceeded(CascadeError):  # noqa: N818
    """The request's deadline has passed, or the next stage cannot meet it."""


class Cancelled(CascadeError):  # noqa: N818
    """The caller has cancelled the request."""


class Unavailable(CascadeError):  # noqa: N818
    """A stage cannot answer now, its queue is full, or the cascade is unloading."""


class InternalError(CascadeError):
    """A stage returned something that breaks its contract."""
