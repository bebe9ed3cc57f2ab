"""The card that comes with a trained checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def model_card(record: dict[str, Any], labels: Sequence[str]) -> str:
    """The card that comes with a checkpoint, from the record of its training."""
    config, result = record["config"], record["result"]
    constants = {
        "dar": ("margin", "weight"),
        "gatekeeper": ("alpha",),
    }.get(config["objective"], ())
    if record["teacher"]:
        constants = (*constants, "distill_weight", "distill_temperature")
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        "---",
        "",
        "# A member of a cascade",
        "",
        f"Fine-tuned from `{record['base']}` by CascadeBERT on Triton.",
        f"Labels: {', '.join(labels)}.",
        "",
        "| | |",
        "|---|---|",
        *(
            [f"| layers of the base | {', '.join(map(str, record['layers']))} |"]
            if record["layers"] is not None
            else []
        ),
        f"| objective | {config['objective']} |",
        *(f"| {name.replace('_', ' ')} | {config['constants'][name]:g} |" for name in constants),
        *([f"| distilled from | `{record['teacher']}` |"] if record["teacher"] else []),
        *(
            [f"| hard rows | {record['hard_rows']} |"]
            if record["hard_rows"] is not None and config["objective"] == "dar"
            else []
        ),
        f"| data | {Path(record['data']).name}, {result['train_rows']} rows (sha256 of texts and "
        f"labels {record['data_sha256'][:16]}…) |",
        f"| validation | {result['metric']} {result['best']:.4f}, accuracy "
        f"{result['best_accuracy']:.4f}, {result['validation_rows']} rows, "
        "which chose the weights |",
        f"| epochs | at most {config['epochs']:g} |",
        f"| precision | {config['precision']} |",
        f"| learning rate, batch | {config['learning_rate']:g}, {config['batch_size']} |",
        f"| tokens | at most {config['max_length']} |",
        f"| seed | {config['seed']} |",
        f"| versions | torch {record['versions']['torch']}, transformers "
        f"{record['versions']['transformers']} |",
        "",
        "`training.json` has all of it for programs.",
    ]
    return "\n".join(lines) + "\n"
