"""The results of the client's calls."""

from dataclasses import dataclass, field

from cascadebert_core.task import SINGLE_LABEL, set_from_text

from ._cost_curve import CostCurve
from ._operating_points import OperatingPoint
from ._timeline import Timeline
from .verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Classification:
    """The cascade's answer for one row.

    Attributes:
        label: The winning label. Of a multi-label cascade, the set of labels as a JSON array;
            `labels` has it as a tuple.
        probabilities: One float32 value per label, in the order of the policy's labels.
        confidence: The stage's confidence signal, by default the largest probability, 0 to 1. Of a
            multi-label cascade, that of the label it is least sure of. It is exactly the server's
            float32, so it can be sent back as a threshold unchanged.
        exit_stage: Position of the stage that answered, from 0.
        degraded: Whether the row was answered below the requested threshold.
        policy: The id of the policy that decided.
        label_order: The labels, in the order of `probabilities`; empty if the model's
            configuration does not have it. The client reads it once for each policy.
        timeline: How the answer came about, if the call asked for it with `explain`; otherwise
            None. Answers with and without one are equal.
        operating_point: The operating point that decided, if the cascade chooses it by its load.
            None otherwise, and if the request had thresholds or a stage of its own.
    """

    label: str
    probabilities: tuple[float, ...]
    confidence: float
    exit_stage: int
    degraded: bool
    policy: str
    label_order: tuple[str, ...] = field(default=(), repr=False, compare=False)
    timeline: Timeline | None = field(default=None, repr=False, compare=False)
    operating_point: str | None = None

    @property
    def probabilities_by_label(self) -> dict[str, float]:
        """The probability of each label.

        Raises:
            LookupError: The order of the labels is not known.
        """
        if len(self.label_order) != len(self.probabilities):
            raise LookupError(
                f"the order of the labels of policy {self.policy[:12]} is unknown: let the client "
                "read the model's configuration (headers=…), or publish the cascade again if it is "
                "of an older release"
            )
        return dict(zip(self.label_order, self.probabilities, strict=True))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the answer, in the order of the policy's labels.

        One label, unless the cascade is a multi-label one: then all labels with a probability of at
        least 0.5, perhaps none.
        """
        found = set_from_text(self.label)
        return (self.label,) if found is None else found


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """Whether one model can be called, and how.

    Attributes:
        name: The model's name on the server.
        ready: Whether the requested version answers requests.
        versions: The versions that the server has loaded.
        max_batch_size: Rows in one request at most; None if unknown.
        problem: Why it is not ready or its configuration could not be read; None without a problem.
        operating_points: The operating points in its configuration.
        verdicts: What `tune` found not to pay.
        labels: The labels, in the order of the probabilities; empty if unknown.
        task: "single_label", or "multi_label" if an answer is a set of labels.
        instances: Processes of the cascade itself, which share its limits; None if unknown.
        pair: Whether it classifies pairs of texts; false if unknown.
        cost_curve: Quality against cost over all thresholds; None if its configuration has none.
    """

    name: str
    ready: bool
    versions: tuple[str, ...] = ()
    max_batch_size: int | None = None
    problem: str | None = None
    operating_points: tuple[OperatingPoint, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    task: str = SINGLE_LABEL
    labels: tuple[str, ...] = ()
    instances: int | None = None
    pair: bool = False
    cost_curve: CostCurve | None = None


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """The counters of one version of a model since the server loaded it.

    Attributes:
        name: The model: the cascade itself, or one of its stages.
        version: Its version.
        inference_count: Rows answered.
        execution_count: Batches executed.
        failure_count: Requests that failed.
        mean_ms: Mean time of a successful request on the server with its time in the queue, in
            milliseconds; None before the first. For the cascade it ends when `execute` returns, so
            it does not include the later stages of deferred rows.
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
        url: The address that was called.
        live: Whether the server answers.
        ready: Whether the server reports that it can serve.
        name: Its name; None if unknown.
        version: Its version; None if unknown.
        model: The cascade.
        statistics: The counters of the cascade and its stages; empty if the server hides them.
        problem: Why the server is not live or ready; None without a problem.
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
