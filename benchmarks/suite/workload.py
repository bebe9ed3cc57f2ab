"""A pair over a text: one model repository with everything that is compared on Triton."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.config.placement import cores
from cascadebert_core.batching import bucket_of
from cascadebert_core.policy import Policy, Threshold
from cascadebert_core.tokenization import Encoder
from cascadebert_engine.files import sha256_of_file

from ..peers.python_cascade import encoders_of_cascade
from ..tools.compared_models import copy_cascade, install_blocking, install_one_member, write_policy
from ..tools.request_data import write_payloads, write_texts
from .corpora import Corpus, representative_order
from .pairs import BuiltPair, Pair, confidence_of_first, thresholds_of_shares
from .plan import USUAL_SHARE, Plan


@dataclass(frozen=True, slots=True)
class Workload:
    """What is served for one pair and text.

    Attributes:
        name: pair/text.
        built: The pair.
        corpus: The text, in an order of which every prefix is like the whole.
        logits: The logits of every member over it, each of shape (n, n_labels).
        thresholds: The threshold that defers each share of the plan.
        repository: The model repository with the cascade, `blocking` and the members alone, over
            the same stages.
        cascade: The cascade's model.
        blocking: The blocking baseline's model.
        members: The cascades of one member, small and large.
        texts: perf_analyzer's data for Triton, one row a request.
        payloads: perf_analyzer's data for other servers.
    """

    name: str
    built: BuiltPair
    corpus: Corpus
    logits: list[NDArray[np.float32]]
    thresholds: dict[float, float]
    repository: Path
    cascade: str
    blocking: str
    members: tuple[str, str]
    texts: Path
    payloads: Path

    @property
    def stages(self) -> list[str]:
        """The stage models, small and large."""
        return [stage.model for stage in self.policy.stages]

    @property
    def encoders(self) -> list[Encoder]:
        """The encoder of every stage, as in the served cascade."""
        return encoders_of_cascade(self.repository, self.cascade)

    @property
    def models(self) -> list[str]:
        """All Triton models that clients ask."""
        return [self.cascade, self.blocking, *self.members]

    @property
    def policy(self) -> Policy:
        """The served policy: one operating point for every share."""
        return _served_policy(self.built.policy, self.thresholds)

    def variant(self, folder: Path, policy: Policy | None = None) -> Workload:
        """Return the workload with a copy of its cascade in a repository of its own.

        Args:
            folder: The repository. If it exists, it is used as it is.
            policy: The policy of the copy; None: the same.
        """
        if not folder.exists():
            copy_cascade(self.repository, self.cascade, folder)
            if policy is not None:
                write_policy(folder, self.cascade, policy)
        return replace(self, repository=folder)


def point_of_share(share: float) -> str:
    """Return the operating point that defers this share of the rows."""
    return f"deferral-{round(100 * share)}"


def name_of_workload(pair: Pair, corpus: Corpus) -> str:
    """Return pair/text."""
    return f"{pair.name}/{corpus.name}"


def make_workload(
    built: BuiltPair, corpus: Corpus, folder: Path, data: Path, plan: Plan
) -> Workload:
    """Install the contenders of a pair and text, which may be in any order.

    The model repository is made in the empty folder `folder`, and the requests in `data`.
    """
    name = built.pair.name
    repository = folder / "models"
    copy_cascade(built.repository, name, repository)
    logits = built.logits(corpus)
    shares = tuple(sorted({USUAL_SHARE, *plan.sweep_shares}))
    thresholds = thresholds_of_shares(built.policy, logits, shares)
    served = _served_policy(built.policy, thresholds)
    confidence = confidence_of_first(served, logits)
    encoded = encoders_of_cascade(repository, name)[0].encode(corpus.texts)
    order = representative_order(
        [bucket_of(len(row), served.stages[0].buckets) for row in encoded],
        confidence,
        confidence <= np.float32(thresholds[USUAL_SHARE]),
    )
    corpus, logits = corpus.in_order(order), [values[order] for values in logits]
    write_policy(repository, name, served)
    return Workload(
        name=name_of_workload(built.pair, corpus),
        built=built,
        corpus=corpus,
        logits=logits,
        thresholds=thresholds,
        repository=repository,
        cascade=name,
        # Its best setting: with one instance, a core is idle while the other runs a long call.
        blocking=install_blocking(repository, name, instances=cores()),
        members=(install_one_member(repository, name, 0), install_one_member(repository, name, 1)),
        texts=write_texts(data / "texts.json", corpus.texts),
        payloads=write_payloads(data / "payloads.json", corpus.texts),
    )


def work_of_workload(workload: Workload) -> dict[str, object]:
    """Return what its rows measure: the policy's id, and the hashes of artefacts and text."""
    artefacts = {
        str(path.relative_to(workload.repository)): sha256_of_file(path)
        for stage in workload.policy.stages
        for path in sorted((workload.repository / stage.model / str(stage.version)).glob("model.*"))
    }
    texts = sha256_of_file(workload.texts)
    return {"policy": workload.policy.id, "artefacts": artefacts, "texts": texts}


def _served_policy(policy: Policy, thresholds: dict[float, float]) -> Policy:
    """Return the policy with one operating point for every share, the usual one by default."""
    points: dict[str, tuple[Threshold, ...]] = {
        point_of_share(share): (value,) for share, value in thresholds.items()
    }
    return policy.with_operating_points(points, point_of_share(USUAL_SHARE))
