"""DeeBERT (Xin et al., ACL 2020): exits on a frozen fine-tuned backbone; entropy decides.

Stage one fine-tunes the backbone with its last classifier: this is the large member. Stage two
freezes it and trains an exit after every other layer, each a pooler, dropout and a linear layer,
with the sum of their cross-entropies. Nothing below an exit learns, so the hidden states are
computed once. They are without the backbone's dropout, which the authors' code leaves on.

Unlike in the paper, an exit standardises its input (see `exit_layers.new_exit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.checkpoints.checkpoint import checkpoint_from_source
from cascadebert_build.config.rows import Rows
from cascadebert_build.progress import counted

from .exit_layers import first_tokens, new_exits, pooler_of

EPOCHS = 10
LEARNING_RATE = 1e-3
_BATCH_SIZE = 32
_TRAIN_LOGITS = "train_logits.npy"


def train_deebert(
    large: Path,
    rows: Rows,
    dev: Rows,
    labels: Sequence[str],
    output: Path,
    *,
    seed: int,
    max_length: int,
    bf16: bool = False,
) -> NDArray[np.float32]:
    """Train the exits of a fine-tuned model and save them as `output/exits.pt`.

    The model's own logits of the training rows are saved, too: see `train_logits`.

    Args:
        large: The checkpoint of stage one.
        rows: The rows to train on.
        dev: The rows to predict.
        labels: The names of the labels, in the order of the columns.
        output: The folder for the exits.
        seed: The seed of weights and order.
        max_length: The maximum length in tokens.
        bf16: Whether the pass over the training rows multiplies in bfloat16.

    Returns:
        The logits of every exit on the development rows, shape (n, layers, n_labels). The last
        layer's are the large member's own.
    """
    import torch

    torch.manual_seed(seed)
    checkpoint = checkpoint_from_source(str(large))
    columns = [checkpoint.labels.index(label) for label in labels]
    model = cast("Any", checkpoint.model).to("cuda" if torch.cuda.is_available() else "cpu")
    states, known = first_tokens(model, large, rows, max_length, "exits, train", bf16=bf16)
    train = torch.from_numpy(states)
    states, last = first_tokens(model, large, dev, max_length, "exits, dev")
    held_out = torch.from_numpy(states)
    targets = torch.from_numpy(rows.label_indices(checkpoint.labels))
    exits = new_exits(pooler_of(model), len(labels), model.config.num_hidden_layers - 1)
    optimizer = torch.optim.AdamW(exits.parameters(), LEARNING_RATE)
    steps = EPOCHS * -(-len(targets) // _BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    with counted("step", steps, what="exits, learning") as advance:
        for _ in range(EPOCHS):
            for part in torch.randperm(len(targets)).split(_BATCH_SIZE):
                loss = torch.stack(
                    [
                        torch.nn.functional.cross_entropy(exit_(train[part, i]), targets[part])
                        for i, exit_ in enumerate(exits)
                    ]
                ).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                advance(1)
    output.mkdir(parents=True, exist_ok=True)
    torch.save(exits.state_dict(), output / "exits.pt")
    exits.eval()
    with torch.inference_mode():
        logits = [exit_(held_out[:, i]) for i, exit_ in enumerate(exits)]
    np.save(output / _TRAIN_LOGITS, known[:, columns])
    return np.stack([*(one.numpy() for one in logits), last], axis=1)[:, :, columns]


def train_logits(output: Path) -> NDArray[np.float32]:
    """Return the large member's logits of the training rows, shape (n, n_labels).

    Args:
        output: The folder of `train_deebert`.
    """
    return np.load(output / _TRAIN_LOGITS)
