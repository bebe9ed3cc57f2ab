"""Training objectives of a member: its loss, from the logits and targets of a batch.

`plain` is cross-entropy. `dar` (CascadeBERT, Li et al., EMNLP Findings 2021) also asks for a higher
confidence on easy rows than on hard ones. `gatekeeper` (Rabanser et al., 2025) pushes wrong
predictions towards the uniform distribution. Both make the confidence more useful to a gate. Each
can be combined with distillation from a larger member.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of a batch.

    Attributes:
        labels: Indices, shape (rows,).
        hard: Whether a row is hard (see difficulty.py), bool of shape (rows,); None: not known.
        teacher_logits: Of a larger member, shape (rows, n_labels); None: no distillation.
    """

    labels: torch.Tensor
    hard: torch.Tensor | None = None
    teacher_logits: torch.Tensor | None = None


# The scalar loss of a batch from logits (rows, n_labels) and targets.
Objective = Callable[["torch.Tensor", Targets], "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """Constants of the objectives; the defaults are those of the papers' scripts.

    Attributes:
        margin: DAR: by how much the confidence of easy rows should exceed that of hard rows.
        weight: DAR: weight of the regulariser; the cross-entropy has weight 1.
        alpha: Gatekeeper: weight of correctly predicted rows; wrong ones have 1 - alpha.
        distill_weight: Share of distillation in the whole loss, 0 to 1.
        distill_temperature: Of teacher and student.
    """

    margin: float = 0.5
    weight: float = 0.5
    alpha: float = 0.5
    distill_weight: float = 0.5
    distill_temperature: float = 2.0


def cross_entropy(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Plain cross-entropy, the mean over the batch."""
    import torch

    return torch.nn.functional.cross_entropy(logits, targets.labels)


def difficulty_aware(
    logits: torch.Tensor, targets: Targets, margin: float, weight: float
) -> torch.Tensor:
    """CE + weight * mean_i max(0, margin - (c_easy,i - c_hard,j(i))), c the largest probability.

    Each easy row is compared with a hard row of the batch, drawn with replacement. In a batch
    without rows of both kinds the regulariser is 0.

    Raises:
        ValueError: The targets have no difficulty.
    """
    import torch

    if targets.hard is None:
        raise ValueError("DAR needs to know which rows are hard: run `cascadebert difficulty`")
    loss = cross_entropy(logits, targets)
    confidence = logits.softmax(dim=-1).amax(dim=-1)  # (rows,)
    easy, hard = confidence[~targets.hard], confidence[targets.hard]
    if not len(easy) or not len(hard):
        return loss
    partners = hard[torch.randint(len(hard), (len(easy),), device=logits.device)]
    return loss + weight * (margin - (easy - partners)).clamp(min=0).mean()


def gatekeeper(logits: torch.Tensor, targets: Targets, alpha: float) -> torch.Tensor:
    """Alpha * CE over correct rows + (1 - alpha) * KL(p || uniform) over wrong rows.

    Both sums are divided by the number of all rows in the batch.
    """
    import torch

    log_p = logits.log_softmax(dim=-1)
    right = logits.argmax(dim=-1) == targets.labels
    entropy_gap = (log_p.exp() * log_p).sum(dim=-1) + torch.log(
        torch.tensor(float(logits.shape[-1]), device=logits.device)
    )  # KL of the prediction to the uniform distribution, (rows,)
    of_label = -log_p.gather(1, targets.labels[:, None]).squeeze(1)
    return torch.where(right, alpha * of_label, (1 - alpha) * entropy_gap).mean()


def distillation(logits: torch.Tensor, targets: Targets, temperature: float) -> torch.Tensor:
    """T^2 KL(teacher || student), both at temperature T (Hinton et al., 2015).

    Raises:
        ValueError: The targets have no teacher's logits.
    """
    import torch

    if targets.teacher_logits is None:
        raise ValueError("distillation needs the logits of a teacher")
    student = (logits / temperature).log_softmax(dim=-1)
    teacher = (targets.teacher_logits / temperature).log_softmax(dim=-1)
    divergence = torch.nn.functional.kl_div(
        student, teacher, reduction="batchmean", log_target=True
    )
    return temperature**2 * divergence


OBJECTIVES = ("plain", "dar", "gatekeeper")


def objective_from_name(
    name: str, config: ObjectiveConfig | None = None, *, distilled: bool = False
) -> Objective:
    """The loss of a training.

    Args:
        name: One of `OBJECTIVES`.
        config: Constants; None: the defaults.
        distilled: Add distillation.

    Raises:
        ValueError: There is no such objective.
    """
    constants = config or ObjectiveConfig()

    def base(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
        if name == "dar":
            return difficulty_aware(logits, targets, constants.margin, constants.weight)
        if name == "gatekeeper":
            return gatekeeper(logits, targets, constants.alpha)
        return cross_entropy(logits, targets)

    def with_distillation(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
        share = constants.distill_weight
        of_teacher = distillation(logits, targets, constants.distill_temperature)
        return (1 - share) * base(logits, targets) + share * of_teacher

    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}: give one of {', '.join(OBJECTIVES)}")
    return with_distillation if distilled else base
