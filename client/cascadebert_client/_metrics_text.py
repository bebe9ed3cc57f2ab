"""The metrics page of a server, in Prometheus's text format."""

import http.client
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from .errors import InvalidRequest, ServerUnavailable, UnexpectedResponse
from .transport import host_of, opener_for

DEFAULT_PORT = 8002


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of a metrics page."""

    name: str
    labels: dict[str, str]
    value: float


def metrics_url(url: str, port: int = DEFAULT_PORT) -> str:
    """Return the metrics page of a server.

    Args:
        url: `host:port` of the server's gRPC endpoint.
        port: The port of its metrics.
    """
    host = host_of(url)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


def fetch_metrics(url: str, timeout_s: float) -> str:
    """Read a metrics page.

    Raises:
        InvalidRequest: The address is not an HTTP address.
        ServerUnavailable: The server cannot be reached or does not return the page.
    """
    # urllib would also open files.
    if not url.lower().startswith(("http://", "https://")):
        raise InvalidRequest(
            f"--metrics-url {url!r} is not an HTTP address: give http://host:port/metrics"
        )
    try:
        with opener_for(url).open(url, timeout=timeout_s) as response:
            return response.read().decode("utf-8", errors="replace")
    # urllib's own errors are OSErrors. http.client raises others, for a port that is not a number
    # and for a port that does not speak HTTP, such as the gRPC port. The latter quotes raw bytes.
    except (OSError, http.client.HTTPException) as exc:
        said = (
            "what listens there does not speak HTTP (the gRPC port does not)"
            if isinstance(exc, http.client.BadStatusLine | http.client.LineTooLong)
            else f"{exc}"
        )
        raise ServerUnavailable(
            f"no metrics from {url}: {said}: check that the server runs and that this is its "
            f"metrics port ({DEFAULT_PORT} by default), or give --metrics-url"
        ) from exc


def samples_from_text(text: str, prefix: str = "") -> list[Sample]:
    """Return the samples of a metrics page whose names begin with `prefix`.

    Raises:
        UnexpectedResponse: A line is not a line of a metrics page.
    """
    samples: list[Sample] = []
    # Not splitlines: a label may hold other characters that Python takes for the end of a line.
    for line in text.split("\n"):
        if line.startswith("#"):
            continue
        try:
            # Line by line: an error names its line, and without TYPE lines the parser keeps the
            # names as they are. It would add _total to Triton's counters.
            for family in text_string_to_metric_families(line):
                samples += [
                    Sample(found.name, found.labels, float(found.value))
                    for found in family.samples
                    if found.name.startswith(prefix)
                ]
        except (ValueError, IndexError, OverflowError) as exc:
            raise UnexpectedResponse(
                f"{line[:60]!r} is not a line of a metrics page: give --metrics-url "
                "http://host:port/metrics"
            ) from exc
    return samples
