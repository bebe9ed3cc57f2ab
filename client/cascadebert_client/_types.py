"""What the client hands back: frozen values, one per row or per question."""

from dataclasses import dataclass

from ._operating_points import OperatingPoint


@dataclass(frozen=True, slots=True)
class Classification:
    """The cascade's answer for one row.

    Attributes:
        label: The winning label.
        probabilities: One float32 value per label, in the order of the policy's labels.
        confidence: The stage's confidence signal, by default the largest probability, 0 to 1. It is
            exactly the server's float32, so its `repr`,
            sent back as a threshold, is that same float32.
        exit_stage: Position (0-based) of the stage that answered.
        degraded: Whether the row was answered below the threshold that was asked for.
        policy: Id of the policy that decided.
    """

    label: str
    probabilities: tuple[float, ...]
    confidence: float
    exit_stage: int
    degraded: bool
    policy: str


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """Whether one model can be called, and how.

    Attributes:
        name: The model's name on the server.
        ready: Whether the version that was asked for answers requests.
        versions: The versions that the server has loaded.
        max_batch_size: Rows that one request may carry; None where the server does not say.
        problem: Why it is not ready or could not be described; None when all is well.
        operating_points: What a call may name; empty where the configuration lists none.
    """

    name: str
    ready: bool
    versions: tuple[str, ...] = ()
    max_batch_size: int | None = None
    problem: str | None = None
    operating_points: tuple[OperatingPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """What one version of a model has done since the server loaded it.

    Attributes:
        name: The model: the cascade itself, or one of its stages.
        version: Its version.
        inference_count: Rows answered.
        execution_count: Batches executed; rows per batch is the quotient of the two.
        failure_count: Requests that failed.
        mean_ms: Mean time of a successful request on the server, in milliseconds, its queue
            included; None before the first. For the cascade it ends when `execute` returns,
            so the later stages of deferred rows are not in it.
    """

    name: str
    version: str
    inference_count: int
    execution_count: int
    failure_count: int
    mean_ms: float | None


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The state of a server and of the cascade on it.

    Attributes:
        url: Where it was asked.
        live: Whether the server answers at all.
        ready: Whether it says that it can serve.
        name: What it calls itself; None where it does not say.
        version: Its version; None where it does not say.
        model: The cascade.
        statistics: The cascade's and its stages' counters; empty where the server withholds them.
        problem: Why the server is not live or ready; None when all is well.
    """

    url: str
    live: bool
    ready: bool
    name: str | None
    version: str | None
    model: ModelStatus
    statistics: tuple[ModelStatistics, ...] = ()
    problem: str | None = None

    @property
    def serving(self) -> bool:
        """Whether a call to `classify` can succeed."""
        return self.live and self.ready and self.model.ready
