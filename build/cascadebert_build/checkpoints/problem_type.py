"""What a checkpoint's answers are, by the `problem_type` of its config.json."""

from __future__ import annotations

from cascadebert_core.task import MULTI_LABEL, SINGLE_LABEL

_TASKS = {
    "multi_label_classification": MULTI_LABEL,
    "single_label_classification": SINGLE_LABEL,
}


def task_of_problem_type(problem_type: object) -> str | None:
    """One of `cascadebert_core.task.TASKS`; None if config.json does not say.

    Args:
        problem_type: Of config.json.
    """
    return _TASKS.get(str(problem_type))
