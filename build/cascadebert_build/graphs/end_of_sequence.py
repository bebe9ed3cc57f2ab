"""Classifiers that read a text at its end-of-sequence token: BART, mBART, PLBart, T5 and the like.

transformers puts the ends of all rows in one list and cuts it into as many parts as there are rows.
If rows have different numbers of ends, because a text contains the token, a row is answered from
another row. transformers then raises an error; an exported graph cannot. Here each row is read at
its own last end, which is what transformers reads in a row alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ..checkpoints.checkpoint import Checkpoint
from ..errors import UsageError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def reads_end_of_sequence(model: PreTrainedModel) -> bool:
    """Whether the logits come from the decoder's state at the end-of-sequence token."""
    return bool(getattr(model.config, "is_encoder_decoder", False)) and hasattr(
        model, "classification_head"
    )


def check_end_of_sequence(checkpoint: Checkpoint) -> None:
    """Refuse a model that reads a token which its tokenizer does not add.

    Raises:
        UsageError: The tokenizer adds no end-of-sequence token of the model's.
    """
    if not reads_end_of_sequence(checkpoint.model):
        return
    end = checkpoint.model.config.eos_token_id
    added = cast("list[int]", cast("Any", checkpoint.tokenizer)("")["input_ids"])
    if end not in added:
        raise UsageError(
            f"the checkpoint {checkpoint.source!r} reads its end-of-sequence token (id {end}), and "
            f"its tokenizer adds {added} to a text: set eos_token_id in config.json, or save the "
            "tokenizer that the checkpoint was fine-tuned with"
        )


def logits_at_last_end(
    model: Any, *, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """Logits of shape (batch, n_labels), from each row's last end-of-sequence token.

    Args:
        model: A model that `reads_end_of_sequence`.
        input_ids: Of shape (batch, length).
        attention_mask: Of the same shape.
    """
    import torch

    ids = input_ids.long()
    states = model.base_model(
        input_ids=ids,
        attention_mask=attention_mask,
        decoder_input_ids=_decoder_ids(model, ids),
        use_cache=False,
        return_dict=True,
    )[0]
    positions = torch.arange(ids.shape[1], device=ids.device)
    last = torch.where(ids == model.config.eos_token_id, positions, 0).amax(dim=1)
    index = last[:, None, None].expand(-1, 1, states.shape[-1])
    return model.classification_head(states.gather(1, index)[:, 0])


def _decoder_ids(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The tokens shifted to the right, as the model's own forward shifts them."""
    import torch

    if model.config.model_type in {"mbart", "plbart"}:
        # Their decoder starts with the text's last token, the language's.
        last = (ids != model.config.pad_token_id).sum(dim=1, keepdim=True) - 1
        start = ids.gather(1, last.clamp(min=0))
    else:
        start = torch.full_like(ids[:, :1], model.config.decoder_start_token_id)
    return torch.cat([start, ids[:, :-1]], dim=1)
