"""The errors that a cascade can answer a request with.

::

    CascadeError
    ├── InvalidArgument     the request is wrong; sending it again changes nothing
    │   └── PolicyError     the policy is wrong; it fails the load, never a request
    ├── DeadlineExceeded    the request's deadline passed, or cannot be met
    ├── Cancelled           the caller has given up
    ├── Unavailable         a stage or the cascade cannot answer now; a retry may
    └── InternalError       a stage broke its contract, or numbers went bad
"""

from __future__ import annotations


class CascadeError(Exception):
    """Base of everything that the core raises on purpose."""


class InvalidArgument(CascadeError):  # noqa: N818 - named as the status it becomes
    """The caller's request is wrong: INVALID_ARGUMENT on the wire."""


class PolicyError(InvalidArgument):
    """A policy that cannot be served; the message names the key and the value."""


class DeadlineExceeded(CascadeError):  # noqa: N818
    """The request's own deadline has passed, or the stages that are left cannot meet it."""


class Cancelled(CascadeError):  # noqa: N818
    """The caller has cancelled the request: nobody waits for the answer."""


class Unavailable(CascadeError):  # noqa: N818
    """A stage cannot answer now, too many rows wait already, or the cascade is shutting down."""


class InternalError(CascadeError):
    """A stage answered something that breaks its contract."""
