"""The text of a metrics endpoint, as Prometheus reads it."""

import http.client
import re
import urllib.request
from dataclasses import dataclass

from .errors import InvalidRequest, ServerUnavailable, UnexpectedResponse

DEFAULT_PORT = 8002

_LINE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"
    r"(?:\{(?P<labels>.*)\})?"
    r"\s+(?P<value>\S+)"
    r"(?:\s+-?\d+)?\s*"  # a time stamp
)
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of a metrics page."""

    name: str
    labels: dict[str, str]
    value: float


def metrics_url(url: str) -> str:
    """Return where the server of a gRPC endpoint has its metrics, if nobody chose another port.

    Args:
        url: `host:port` of the gRPC endpoint.
    """
    host = url.rpartition(":")[0].rpartition("/")[2]
    return f"http://{host}:{DEFAULT_PORT}/metrics"


def fetch_metrics(url: str, timeout_s: float) -> str:
    """Read a metrics page.

    Raises:
        InvalidRequest: The address is not one of HTTP.
        ServerUnavailable: Nobody answers there, or not with the page.
    """
    # urllib would open files, too.
    if not url.lower().startswith(("http://", "https://")):
        raise InvalidRequest(
            f"--metrics-url {url!r} is no address of HTTP: give http://host:port/metrics"
        )
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            return response.read().decode("utf-8", errors="replace")
    # urllib's own errors are OSErrors. http.client has others, for a port that is no number and for
    # one that does not speak HTTP, such as gRPC's.
    except (OSError, http.client.HTTPException) as exc:
        raise ServerUnavailable(
            f"no metrics from {url}: {exc}: check that the server runs and that this is its "
            f"metrics port ({DEFAULT_PORT} by default), or give --metrics-url"
        ) from exc


def samples_from_text(text: str, prefix: str = "") -> list[Sample]:
    """Return the samples of a metrics page whose names begin with `prefix`.

    Raises:
        UnexpectedResponse: A line is none of a metrics page.
    """
    samples: list[Sample] = []
    # Not splitlines: a label may hold what Python takes for the end of a line.
    for line in text.split("\n"):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise UnexpectedResponse(
                f"{line[:60]!r} is no line of a metrics page: give --metrics-url "
                "http://host:port/metrics"
            )
        if match["name"].startswith(prefix):
            labels = _labels(match["labels"] or "", line)
            samples.append(Sample(match["name"], labels, _number(match["value"], line)))
    return samples


def _labels(text: str, line: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    end = 0
    while end < len(text):
        match = _LABEL.match(text, end)
        if match is None:
            raise UnexpectedResponse(f"{line[:60]!r} has labels that cannot be read")
        labels[match[1]] = _ESCAPE.sub(lambda m: "\n" if m[1] == "n" else m[1], match[2])
        end = match.end()
    return labels


def _number(text: str, line: str) -> float:
    try:
        return float(text)  # it knows NaN and +Inf
    except ValueError as exc:
        raise UnexpectedResponse(f"{line[:60]!r} has no number") from exc
