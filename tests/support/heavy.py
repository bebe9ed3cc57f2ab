"""A cascade whose large member takes its time: 12 layers, random weights."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from tests.support.checkpoints import save_checkpoint, write_config
from tests.support.serving import Built, build


def build_heavy(folder: Path, *, hidden_size: int, rate: float = 0.4, extra: str = "") -> Built:
    """A one-layer member before one of 12 layers.

    Args:
        folder: empty.
        hidden_size: of the large member; BERT-base has 768.
        rate: share of the rows that the small one defers.
        extra: further lines of cascade.toml.
    """
    large = save_checkpoint(
        folder / "large",
        seed=1,
        num_hidden_layers=12,
        hidden_size=hidden_size,
        num_attention_heads=max(2, hidden_size // 64),
        intermediate_size=4 * hidden_size,
    )
    # The weights of save_checkpoint are made for tiny members: in a wide one they would make
    # numbers so large that single precision tells runtimes apart.
    model = transformers.AutoModelForSequenceClassification.from_pretrained(large)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_((32 / hidden_size) ** 0.5)
    model.save_pretrained(large)
    members = {"small": save_checkpoint(folder / "small", num_hidden_layers=1), "large": large}
    config = write_config(folder, members, name="heavy", rate=rate, extra=extra)
    return build(config, folder / "repository")
