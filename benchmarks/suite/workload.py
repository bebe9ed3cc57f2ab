"""A pair over a corpus: one model repository with everything that is compared on Triton."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.config.placement import cores
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_core.batching import bucket_of
from cascadebert_core.contract import POLICY_FILE
from cascadebert_core.policy import Policy, Threshold, policy_to_json
from cascadebert_core.tokenization import Encoder
from cascadebert_engine.files import sha256_of_file

from ..peers.python_cascade import encoders_of_cascade
from ..tools.compared_models import copy_cascade, install_blocking, install_one_member
from ..tools.request_data import write_payloads, write_texts
from .corpora import Corpus, representative_order
from .pairs import BuiltPair, Pair, confidence_of_first, thresholds_of_shares
from .plan import USUAL_SHARE, Plan


@dataclass(frozen=True, slots=True)
class Scene:
    """What is served for one pair and corpus.

    Attributes:
        name: pair/corpus.
        built: the pair.
        corpus: the text, in an order of which every prefix is like the whole.
        logits: of every member over it, each of shape (n, n_labels).
        thresholds: that defer each share of the plan.
        repository: has `cascade`, `blocking` and the members alone over the same stages.
        cascade, blocking: Triton models.
        members: cascades of one member, small and large.
        texts: perf_analyzer's data for Triton, one row a request.
        payloads: for other servers.
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
    def models(self) -> list[str]:
        """All Triton models that callers ask."""
        return [self.cascade, self.blocking, *self.members]

    @property
    def policy(self) -> Policy:
        """As served: one operating point for every share."""
        return policy_of_scene(self.built.policy, self.thresholds)


def point_of_share(share: float) -> str:
    """The operating point that defers this share of the corpus."""
    return f"deferral-{round(100 * share)}"


def policy_of_scene(policy: Policy, thresholds: dict[float, float]) -> Policy:
    """The pair's policy with one operating point for every share; the usual one by default."""
    points: dict[str, tuple[Threshold, ...]] = {
        point_of_share(share): (value,) for share, value in thresholds.items()
    }
    return policy.with_operating_points(points, point_of_share(USUAL_SHARE))


def encoders_of_scene(scene: Scene) -> list[Encoder]:
    """The encoder of every stage, as the served cascade has it."""
    return encoders_of_cascade(scene.repository, scene.cascade)


def name_of_scene(pair: Pair, corpus: Corpus) -> str:
    """Pair/corpus."""
    return f"{pair.name}/{corpus.name}"


def make_scene(built: BuiltPair, corpus: Corpus, folder: Path, data: Path, plan: Plan) -> Scene:
    """Install the contenders of a pair and corpus.

    Args:
        built: the pair.
        corpus: in any order.
        folder: for the model repository; must be empty.
        data: folder for the requests.
        plan: for the shares.
    """
    name = built.pair.name
    repository = folder / "models"
    copy_cascade(built.repository, name, repository)
    logits = built.logits(corpus)
    shares = tuple(sorted({USUAL_SHARE, *plan.shares, *plan.sweep_shares}))
    thresholds = thresholds_of_shares(built.policy, logits, shares)
    served = policy_of_scene(built.policy, thresholds)
    confidence = confidence_of_first(served, logits)
    encoded = encoders_of_cascade(repository, name)[0].encode(corpus.texts)
    order = representative_order(
        [bucket_of(len(row), served.stages[0].buckets) for row in encoded],
        confidence,
        confidence <= np.float32(thresholds[USUAL_SHARE]),
    )
    corpus, logits = corpus.in_order(order), [values[order] for values in logits]
    version = repository / name / str(ModelRepository.read(repository).cascade(name).newest)
    (version / POLICY_FILE).write_text(policy_to_json(served), encoding="utf-8")
    return Scene(
        name=name_of_scene(built.pair, corpus),
        built=built,
        corpus=corpus,
        logits=logits,
        thresholds=thresholds,
        repository=repository,
        cascade=name,
        # Its best setting: with one instance a core idles while another is in a long call.
        blocking=install_blocking(repository, name, instances=cores()),
        members=(
            install_one_member(repository, name, 0),
            install_one_member(repository, name, 1),
        ),
        texts=write_texts(data / "texts.json", corpus.texts),
        payloads=write_payloads(data / "payloads.json", corpus.texts),
    )


def work_of_scene(scene: Scene) -> dict[str, object]:
    """What the scene's rows measure: id of the policy, hashes of artefacts and text."""
    artefacts = {
        str(path.relative_to(scene.repository)): sha256_of_file(path)
        for stage in scene.policy.stages
        for path in sorted((scene.repository / stage.model / str(stage.version)).glob("model.*"))
    }
    texts = sha256_of_file(scene.texts)
    return {"policy": scene.policy.id, "artefacts": artefacts, "texts": texts}
