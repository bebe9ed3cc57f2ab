"""The names of sections and contenders in the rows of a run."""

from __future__ import annotations

LIMIT, CLOSED, OPEN, SHARES, ROWS = "limit", "closed", "open", "shares", "rows"
GATE, ACCURACY, SWEEP, STARTUP = "gate", "accuracy", "sweep", "startup"
SECTIONS = (LIMIT, CLOSED, OPEN, SHARES, ROWS, GATE, ACCURACY, SWEEP, STARTUP)
# Not of a pair: `benchmarks.ceiling`, and the record of a run of it.
CEILING, CEILING_RUN = "ceiling", "ceiling.json"
# The rows of a sweep have a section of their own.
INSTANCES, CORES, BATCHES, CALLS = "instances", "cores", "batches", "calls"

CASCADE, BLOCKING, SMALL, LARGE = "cascade", "blocking", "small alone", "large alone"
MOSEC, LITSERVE, THE_LIMIT = "mosec", "LitServe", "the limit"
CLIENT_SIDE, ASYNCIO = "client-side cascade", "cascade, asyncio client"
HTTP_GENERATE, HTTP_INFER = "cascade, HTTP generate", "cascade, HTTP infer"
SIZES = ("small", "large")
CLASSIFIER_SERVERS = INFINITY, VLLM = "Infinity", "vLLM"
ONE_MEMBER, STAGE, TOKENISING = "one-member cascade", "stage, token ids", "tokenising"
BUILD, MEMORY, FIRST_ANSWER = "build: ", "memory: ", "server, to the first answer"
CLIENT = "client, installed"


def names_of_classifiers(server: str) -> tuple[str, ...]:
    """Return a server's contenders: each member alone, and the cascade in a client."""
    return (*(f"{server}, {size} alone" for size in SIZES), f"{server}, {CLIENT_SIDE}")


# The contenders of the closed loops.
IN_CLOSED_LOOPS = (
    CASCADE, BLOCKING, SMALL, LARGE, CLIENT_SIDE, ASYNCIO, HTTP_GENERATE, HTTP_INFER,
    MOSEC, LITSERVE,
    *(name for server in CLASSIFIER_SERVERS for name in names_of_classifiers(server)),
)  # fmt: skip

_OURS, _DEFERRED = f"{CASCADE}, ", " deferred"


def name_of_share(share: float) -> str:
    """Return the name of the contender that defers this share of the rows."""
    return f"{_OURS}{share:.0%}{_DEFERRED}"


def share_in_words(name: str) -> str:
    """Return the share of deferred rows in a contender's name: "25%"; "" if it has none."""
    if not (name.startswith(_OURS) and name.endswith(_DEFERRED)):
        return ""
    return name.removeprefix(_OURS).removesuffix(_DEFERRED)
