"""The model card of a trained checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_CONSTANTS = {"dar": ("margin", "weight"), "gatekeeper": ("alpha",)}
_DISTILLATION = ("distill_weight", "distill_temperature")

_CARD = """\
---
library_name: transformers
pipeline_tag: text-classification
---

# A member of a cascade

Fine-tuned from `{base}` by CascadeBERT on Triton.
Labels: {labels}.

| | |
|---|---|
{rows}

`training.json` has all of this for programs.
"""


def model_card(record: dict[str, Any], labels: Sequence[str]) -> str:
    """The card in Markdown.

    Args:
        record: The contents of training.json.
        labels: The names of the labels.
    """
    rows = "\n".join(f"| {name} | {value} |" for name, value in _table(record).items())
    return _CARD.format(base=record["base"], labels=", ".join(labels), rows=rows)


def _table(record: dict[str, Any]) -> dict[str, str]:
    config, result = record["config"], record["result"]
    constants = _CONSTANTS.get(config["objective"], ())
    rows: dict[str, str] = {}
    if record["layers"] is not None:
        rows["layers of the base"] = ", ".join(map(str, record["layers"]))
    rows["objective"] = config["objective"]
    for name in (*constants, *(_DISTILLATION if record["teacher"] else ())):
        rows[name.replace("_", " ")] = f"{config['constants'][name]:g}"
    if record["teacher"]:
        rows["distilled from"] = f"`{record['teacher']}`"
    if record["hard_rows"] is not None and config["objective"] == "dar":
        rows["hard rows"] = f"{record['hard_rows']}"
    return rows | {
        "data": f"{Path(record['data']).name}, {result['train_rows']} rows (sha256 of texts and "
        f"labels {record['data_sha256'][:16]}…)",
        "validation": f"{result['metric']} {result['best']:.4f}, accuracy "
        f"{result['best_accuracy']:.4f}, {result['validation_rows']} rows, which chose the weights",
        "epochs": f"at most {config['epochs']:g}",
        "precision": config["precision"],
        "learning rate, batch": f"{config['learning_rate']:g}, {config['batch_size']}",
        "tokens": f"at most {config['max_length']}",
        "seed": f"{config['seed']}",
        "versions": ", ".join(f"{name} {value}" for name, value in record["versions"].items()),
    }
