"""The pairs of members that the bench runs, and the repository that each is served from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_build.config.rows import Rows
from cascadebert_build.config.schema import CascadeConfig, DataConfig, MemberConfig, TuneConfig
from cascadebert_build.demo.corpus import corpus_from_seed
from cascadebert_build.demo.members import RECIPES, save_base_checkpoint
from cascadebert_build.errors import UsageError
from cascadebert_build.evaluation.simulate import simulate
from cascadebert_build.pipeline.build import Steps
from cascadebert_build.pipeline.workspace import Workspace
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_core.policy import Policy

from ..tools.random_checkpoints import SHAPES as MEMBER_SHAPES
from ..tools.random_checkpoints import write_member
from .corpora import Corpus
from .plan import USUAL_SHARE

MEMBERS = ("small", "large")


@dataclass(frozen=True, slots=True)
class Pair:
    """A small and a large member.

    Attributes:
        name: of the Triton model, too.
        checkpoints: small, large; shapes of `benchmarks.tools.shapes` where the weights are random.
        labelled: whether the texts' labels are the members', so that accuracy is counted.
        max_length: in tokens.
        cost_only: whether only the limit and the shares are measured.
        swept: whether the sweeps are.
        peers: whether other servers and processes without one are compared.
    """

    name: str
    checkpoints: tuple[str, str]
    labelled: bool = False
    max_length: int = 128
    cost_only: bool = False
    swept: bool = True
    peers: bool = True


# Fine-tuned; of the others the weights are random.
MINILM = Pair("minilm", ("sst2-small", "sst2-large"), labelled=True)
SHAPES = (
    Pair("l2-h128", ("l2-h128", "l12-h768")),
    Pair("l6-h384", ("l6-h384", "l12-h768"), swept=False, peers=False),
    # A cost ratio of about 20: 18 by the operations of a token, where L4-H256 would be 27.
    Pair("l4-h312", ("l4-h312", "l12-h768"), cost_only=True),
)
# The demo's members. Made-up labels are counted, of weights that were never trained.
STAND_IN = Pair("tiny", ("small", "large"), labelled=True, max_length=64)


def pairs_of(checkpoints: Path | None) -> tuple[Pair, ...]:
    """Those that can be made of the checkpoints at hand; without any, the stand-in.

    Raises:
        UsageError: a checkpoint is not there.
    """
    if checkpoints is None:
        return (STAND_IN,)
    for name in MINILM.checkpoints:
        if not (checkpoints / name).is_dir():
            raise UsageError(
                f"{checkpoints / name} is not there: --checkpoints names the folder that has "
                f"{' and '.join(MINILM.checkpoints)}"
            )
    return (MINILM, *SHAPES)


@dataclass(frozen=True, slots=True)
class BuiltPair:
    """A pair, built and published.

    Attributes:
        pair: what it is.
        steps: of its build.
        repository: the model repository.
    """

    pair: Pair
    steps: Steps
    repository: Path

    @property
    def policy(self) -> Policy:
        """As tuned and published; thresholds are chosen anew for every corpus."""
        return ModelRepository.read(self.repository).cascade(self.pair.name).policy()

    @property
    def checkpoints(self) -> list[str]:
        """Folders of the members."""
        return [self.steps.config.checkpoint(m) for m in self.steps.config.members]

    def logits(self, corpus: Corpus) -> list[NDArray[np.float32]]:
        """Logits of every member, each of shape (n, n_labels), in the checkpoint's order."""
        steps = Steps(self.steps.config, self.steps.workspace)
        steps.rows = Rows(corpus.texts, corpus.labels, corpus.source)
        return [steps.logits(member) for member in steps.config.members]


def build_pair(pair: Pair, corpus: Corpus, work: Path, checkpoints: Path | None) -> BuiltPair:
    """Build a pair as far as it is not up to date.

    Args:
        pair: what to build.
        corpus: the short one: rows to verify and tune on.
        work: for checkpoints of random weights, artefacts and the repository.
        checkpoints: folder of the fine-tuned ones, whose tokenizer the random ones take.
    """
    folder = work / pair.name
    data = folder / "rows.tsv"
    folder.mkdir(parents=True, exist_ok=True)
    _write_rows(data, corpus)
    config = CascadeConfig(
        folder=folder,
        name=pair.name,
        members=tuple(
            MemberConfig(name, str(_checkpoint(pair, i, work, checkpoints)), pair.max_length)
            for i, name in enumerate(MEMBERS)
        ),
        # Temperatures fitted to random answers would press all confidences together.
        data=DataConfig(path=str(data), label="label" if pair is MINILM else None),
        tune=TuneConfig(max_deferral_rate=(USUAL_SHARE,)),
    )
    return BuiltPair(pair, *_build(config, folder))


def pair_of_config(path: Path, work: Path) -> BuiltPair:
    """Build the user's own cascade as far as it is not up to date.

    Raises:
        UsageError: it has not two members.
    """
    config = config_from_file(path)
    if len(config.members) != 2:
        raise UsageError(
            f"{path} has {len(config.members)} members: the bench compares a small and a large one"
        )
    config = replace(config, tune=TuneConfig(max_deferral_rate=(USUAL_SHARE,)), operating_points={})
    steps, repository = _build(config, work / config.name)
    checkpoints = (config.members[0].checkpoint, config.members[1].checkpoint)
    labelled = steps.rows.labels is not None
    return BuiltPair(Pair(config.name, checkpoints, labelled), steps, repository)


def thresholds_of_shares(
    policy: Policy, logits: list[NDArray[np.float32]], shares: tuple[float, ...]
) -> dict[float, float]:
    """The threshold that defers each share of these rows, as near as their confidences allow.

    Args:
        policy: stages and temperatures.
        logits: of every member.
        shares: 0 to 1.
    """
    confidence = np.sort(confidence_of_first(policy, logits))
    found: dict[float, float] = {}
    for share in shares:
        n = round(share * len(confidence))
        found[share] = float(confidence[n - 1]) if n else 0.0
    return found


def confidence_of_first(policy: Policy, logits: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The first stage's confidence in every row, shape (n,)."""
    return simulate(policy, logits, [1.0]).stage_confidence[:, 0]


def _build(config: CascadeConfig, folder: Path) -> tuple[Steps, Path]:
    """Build as far as it is not up to date, in `folder`: the steps and the model repository."""
    steps = Steps(config, Workspace(folder / "work"))
    repository = folder / "model_repository"
    steps.build(repository)
    return steps, repository


def _checkpoint(pair: Pair, index: int, work: Path, checkpoints: Path | None) -> Path:
    name = pair.checkpoints[index]
    if pair is not STAND_IN and name not in MEMBER_SHAPES:
        assert checkpoints is not None
        return checkpoints.resolve() / name
    folder = work / "checkpoints" / name
    if not (folder / "config.json").is_file():
        if pair is STAND_IN:
            rows = corpus_from_seed(0).train
            save_base_checkpoint(folder, replace(RECIPES[index], name=name), rows)
        else:
            assert checkpoints is not None
            write_member(folder, name, str(checkpoints.resolve() / MINILM.checkpoints[0]))
    return folder


def _write_rows(path: Path, corpus: Corpus) -> None:
    """The corpus as the tsv that `build` reads; its texts have neither tabs nor new lines."""
    labels = corpus.labels or ("",) * len(corpus.texts)
    lines = ["text\tlabel"]
    lines += [f"{text}\t{label}" for text, label in zip(corpus.texts, labels, strict=True)]
    content = "\n".join(lines) + "\n"
    # The build is up to date only while its rows are the same file.
    if not path.is_file() or path.read_text(encoding="utf-8") != content:
        path.write_text(content, encoding="utf-8")
