"""Why no connection came about, read from gRPC's message.

gRPC has one status for all of it (UNAVAILABLE), and its message is for those who know its insides.
The patterns are of grpcio 1.85.
"""

import re
from dataclasses import dataclass

from .transport import host_of, proxy_variable

REFUSED = "refused"
UNRESOLVED = "unresolved"
CLOSED = "closed"
PROTOCOL = "protocol"

HEALTH_PATH = "/v2/health/live"
"""What an HTTP port of Triton answers with 200 while the server lives."""

# "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused"
_NOT_CONNECTED = re.compile(r"failed to connect|connection attempt timed out", re.IGNORECASE)
_UNRESOLVED = re.compile(r"errors resolving|dns resolution failed|domain name not found", re.I)
_IPV4 = re.compile(r"ipv4:([\d.]+:\d+)")
_IPV6 = re.compile(r"ipv6:(?:%5B|\[)([^%\]]+)(?:%5D|\]):(\d+)")
_REFUSED = re.compile(r"connection refused", re.IGNORECASE)
_HUNG_UP = re.compile(r"socket closed|reset by peer|broken pipe|eof", re.IGNORECASE)
_HTTP_STATUS = re.compile(rf"GET {HEALTH_PATH}: (\d+)")

_GRPC_PORT = "this is its gRPC port (8001 by default; 8000 is HTTP)"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why no connection came about.

    Attributes:
        kind: `REFUSED` if nothing listens, `UNRESOLVED` if the host has no address, `CLOSED` if the
            other side hung up at once, and `PROTOCOL` if the two sides do not understand each
            other, which does not pass by itself.
        what: What happened, as a clause.
        remedy: What to do, as a clause.
    """

    kind: str
    what: str
    remedy: str


def fault_of(message: str, url: str, *, tls: bool) -> Fault | None:
    """Return why no connection came about; None if there was one, or if the reason is not known.

    Args:
        message: gRPC's message.
        url: The address that was called.
        tls: Whether the client uses TLS.
    """
    if _UNRESOLVED.search(message):
        return Fault(
            UNRESOLVED,
            f"the host {host_of(url)!r} has no address",
            f"check the name{proxy_hint(url)}",
        )
    if "HTTP proxy returned" in message:
        return Fault(PROTOCOL, "a proxy refuses the connection", f"ask for it{proxy_hint(url)}")
    if not _NOT_CONNECTED.search(message):
        return None
    peer = _peer(message) or url
    if _REFUSED.search(message):
        return Fault(
            REFUSED,
            f"Connection refused by {peer}",
            f"check that the server runs and that {_GRPC_PORT}{proxy_hint(url)}",
        )
    return _of_protocol(message, url, peer) or _of_closed(message, url, peer, tls=tls)


def _peer(message: str) -> str | None:
    """The address that gRPC tried last."""
    if found := _IPV4.search(message):
        return found[1]
    found = _IPV6.search(message)
    return f"[{found[1]}]:{found[2]}" if found else None


def is_refusal(message: str) -> bool:
    """Return whether the last address that gRPC tried refused the connection."""
    return bool(_NOT_CONNECTED.search(message) and _REFUSED.search(message))


def is_hang_up(message: str) -> bool:
    """Return whether the other side closed the connection."""
    return _HUNG_UP.search(message) is not None


def reason_of_http(address: str, status: int) -> str:
    """Return, in gRPC's words, why an address that answers HTTP/1 gives no connection.

    Args:
        address: As gRPC writes it, `ipv4:127.0.0.1:8000`.
        status: Its answer to GET `HEALTH_PATH`.
    """
    return f"failed to connect: {address}: http1.x server, GET {HEALTH_PATH}: {status}"


def proxy_hint(url: str) -> str:
    """Return a clause about the proxy that gRPC uses for an address; empty without one."""
    variable = proxy_variable(url)
    if variable is None:
        return ""
    return (
        f"; calls to it go through the proxy of the variable {variable}: add {host_of(url)} to "
        "no_proxy if they should not"
    )


def _of_protocol(message: str, url: str, peer: str) -> Fault | None:
    """A fault that every further attempt would meet again."""
    if re.search(r"WRONG_VERSION_NUMBER|HTTP_REQUEST", message):
        what = f"{peer} does not speak TLS"
        remedy = f"leave --tls-ca (credentials=…) out, or check that {_GRPC_PORT}"
    elif re.search(r"expired", message) and "CERTIFICATE" in message:
        what = f"the certificate of {peer} has expired"
        remedy = "renew it, or check the clock of this machine"
    elif "CERTIFICATE_VERIFY_FAILED" in message:
        what = f"the certificate of {peer} is not of an authority that this client trusts"
        remedy = "give the certificate of the authority that signed it: --tls-ca, credentials=…"
    elif re.search(r"Hostname Verification|not in peer certificate", message, re.IGNORECASE):
        what = f"the certificate of {peer} is not for the host {host_of(url)!r}"
        remedy = (
            "call the server by a name that is in its certificate, or give it a certificate with "
            "this name (subjectAltName)"
        )
    elif "security handshaker" in message:
        what = "the TLS files of this client cannot be used"
        remedy = "give the key that belongs to the certificate (--tls-key, --tls-cert), all as PEM"
    elif re.search(r"SSL_ERROR\w*:.*ALERT|CERTIFICATE_REQUIRED|BAD_CERTIFICATE", message):
        what = f"{peer} refuses this client's certificate"
        remedy = "give one of an authority that the server trusts: --tls-cert, --tls-key"
    elif re.search(r"Expected SETTINGS|http1\.x server", message, re.IGNORECASE):
        what = f"{peer} speaks HTTP/1, and not gRPC"
        remedy = f"check that {_GRPC_PORT}"
        if found := _HTTP_STATUS.search(message):
            what += f" (GET {HEALTH_PATH} has the answer {found[1]})"
            if found[1] == "200":
                remedy = "this is Triton's HTTP port (8000 by default): give its gRPC port, 8001"
    else:
        return None
    return Fault(PROTOCOL, what, f"{remedy}{proxy_hint(url)}")


def _of_closed(message: str, url: str, peer: str, *, tls: bool) -> Fault | None:
    """The other side hung up: it may want TLS, or it is just starting or stopping."""
    if not is_hang_up(message):
        return None
    remedy = (
        "does it require a certificate of its callers? Give --tls-cert and --tls-key "
        "(credentials=…), signed by an authority that the server trusts"
        if tls
        else "does it speak TLS? Give --tls-ca (credentials=…)"
    )
    return Fault(CLOSED, f"{peer} closed the connection", f"{remedy}{proxy_hint(url)}")
