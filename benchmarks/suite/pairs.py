"""The pairs of members that the bench runs, and how they are built."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import cascadebert_build as cascadebert
from cascadebert_build.config.rows import Rows
from cascadebert_build.config.schema import CascadeConfig, DataConfig, MemberConfig, TuneConfig
from cascadebert_build.demo.corpus import corpus_from_seed
from cascadebert_build.demo.members import RECIPES, save_base_checkpoint
from cascadebert_build.errors import UsageError
from cascadebert_build.evaluation.simulate import simulate
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.pipeline.workspace import Workspace
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_core.policy import Policy

from ..tools.random_checkpoints import SHAPES, write_member
from .corpora import LONG, MIXED, SHORT, Corpus
from .names import LIMIT, SECTIONS, SHARES, SWEEP
from .plan import USUAL_SHARE

MEMBERS = ("small", "large")


@dataclass(frozen=True, slots=True)
class Pair:
    """A small and a large member.

    Attributes:
        name: The name of the pair and of its Triton model.
        checkpoints: The small and the large checkpoint, or shapes of random weights.
        labelled: Whether the texts' labels are the members', so that accuracy is counted.
        max_length: The maximum length in tokens.
        sections: The sections that are measured on the first of its texts.
        texts: The texts. On all but the first one, few loads of Triton's contenders are measured.
        peers: Whether other servers are compared.
    """

    name: str
    checkpoints: tuple[str, str]
    labelled: bool = False
    max_length: int = 128
    sections: tuple[str, ...] = SECTIONS
    texts: tuple[str, ...] = (SHORT,)
    peers: bool = True


# Fine-tuned. The other pairs have random weights.
MINILM = Pair("minilm", ("sst2-small", "sst2-large"), labelled=True)
RANDOM_PAIRS = (
    Pair("l2-h128", ("l2-h128", "l12-h768"), texts=(SHORT, LONG, MIXED)),
    Pair(
        "l6-h384",
        ("l6-h384", "l12-h768"),
        sections=tuple(name for name in SECTIONS if name != SWEEP),
        peers=False,
    ),
    # A cost ratio of about 20: 18 by the operations of a token. L4-H256 would have 27.
    Pair("l4-h312", ("l4-h312", "l12-h768"), sections=(LIMIT, SHARES)),
)
# The demo's members with untrained weights. Their accuracy is counted on made-up labels.
STAND_IN = Pair("tiny", ("small", "large"), labelled=True, max_length=64)


def pairs_of(checkpoints: Path | None) -> tuple[Pair, ...]:
    """Return the pairs that can be made from a folder of checkpoints; without one, the stand-in.

    Raises:
        UsageError: A checkpoint is missing.
    """
    if checkpoints is None:
        return (STAND_IN,)
    for name in MINILM.checkpoints:
        if not (checkpoints / name).is_dir():
            raise UsageError(
                f"{checkpoints / name} is not there: --checkpoints names the folder that has "
                f"{' and '.join(MINILM.checkpoints)}"
            )
    return (MINILM, *RANDOM_PAIRS)


@dataclass(frozen=True, slots=True)
class BuiltPair:
    """A pair, built and published.

    Attributes:
        pair: The pair.
        steps: The steps of its build.
        repository: The model repository.
    """

    pair: Pair
    steps: CascadeBuild
    repository: Path

    @property
    def policy(self) -> Policy:
        """The published policy. Its thresholds are replaced for every text."""
        return ModelRepository.read(self.repository).cascade(self.pair.name).policy()

    @property
    def checkpoints(self) -> list[str]:
        """The folders of the members."""
        return [self.steps.config.checkpoint(m) for m in self.steps.config.members]

    def logits(self, corpus: Corpus) -> list[NDArray[np.float32]]:
        """Return the logits of every member, of shape (n, n_labels), in the checkpoint's order."""
        rows = Rows(corpus.texts, corpus.labels, corpus.source)
        steps = CascadeBuild(self.steps.config, self.steps.workspace, rows=rows)
        return [steps.logits(member) for member in steps.config.members]


def build_pair(pair: Pair, corpus: Corpus, work: Path, checkpoints: Path | None) -> BuiltPair:
    """Build a pair in a folder of `work`, unless it is up to date.

    It is verified and tuned on the rows of `corpus`. Random checkpoints take the tokenizer of the
    fine-tuned ones, which are in the folder `checkpoints`.
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
        # Without labels: temperatures fitted to random answers would flatten all confidences.
        data=DataConfig(path=str(data), label="label" if pair is MINILM else None),
        tune=TuneConfig(max_deferral_rate=(USUAL_SHARE,)),
    )
    return BuiltPair(pair, *_build(config, folder))


def pair_of_config(path: Path, work: Path) -> BuiltPair:
    """Build the user's own cascade, unless it is up to date.

    Raises:
        UsageError: It does not have two members.
    """
    config = cascadebert.load_config(path)
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
    """Return the threshold that defers each share of these rows, 0 to 1, as nearly as possible."""
    confidence = np.sort(confidence_of_first(policy, logits))
    counts = {share: round(share * len(confidence)) for share in shares}
    return {share: float(confidence[n - 1]) if n else 0.0 for share, n in counts.items()}


def confidence_of_first(policy: Policy, logits: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the first stage's confidence in every row, shape (n,)."""
    return simulate(policy, logits, [1.0]).stage_confidence[:, 0]


def _build(config: CascadeConfig, folder: Path) -> tuple[CascadeBuild, Path]:
    """Build in `folder`, unless it is up to date; return the steps and the model repository."""
    if config.runtime.auto_inline:
        # As `serve` chooses it. The stages' own models get instances besides, for the others.
        config = replace(config, runtime=replace(config.runtime, placement="inline-first"))
    steps = CascadeBuild(config, Workspace(folder / "work"))
    repository = folder / "model_repository"
    steps.build(repository)
    return steps, repository


def _checkpoint(pair: Pair, index: int, work: Path, checkpoints: Path | None) -> Path:
    name = pair.checkpoints[index]
    if pair is not STAND_IN and name not in SHAPES:
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
    """Write the text as the tsv that `build` reads. It has neither tabs nor new lines."""
    labels = corpus.labels or ("",) * len(corpus.texts)
    lines = ["text\tlabel"]
    lines += [f"{text}\t{label}" for text, label in zip(corpus.texts, labels, strict=True)]
    content = "\n".join(lines) + "\n"
    # The build stays up to date only if this file does not change.
    if not path.is_file() or path.read_text(encoding="utf-8") != content:
        path.write_text(content, encoding="utf-8")
