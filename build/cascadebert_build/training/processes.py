"""The processes of one training, where torchrun or `accelerate launch` started several."""

from __future__ import annotations

import os


def count() -> int:
    """How many there are; 1 where nobody started several."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the one that writes and reports."""
    return os.environ.get("RANK", "0") == "0"


def wait_for_all() -> None:
    """Go on once every process has come here."""
    if count() > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()
