"""The commands of the build package, one module each.

`COMMANDS` names the function that adds each command, so that only the module of the command that is
called is imported.
"""

from __future__ import annotations

_HERE = "cascadebert_build.commands"
_BUILD = f"{_HERE}.build:add_build_parsers"

COMMANDS = {
    "init": f"{_HERE}.init:add_init_parser",
    "advise": f"{_HERE}.advise:add_advise_parser",
    "export": _BUILD,
    "compile": _BUILD,
    "verify": _BUILD,
    "publish": _BUILD,
    "build": _BUILD,
    "tune": f"{_HERE}.tune:add_tune_parser",
    "evaluate": f"{_HERE}.evaluate:add_evaluate_parser",
    "plan": f"{_HERE}.plan:add_plan_parser",
    "train": f"{_HERE}.train:add_train_parser",
    "difficulty": f"{_HERE}.difficulty:add_difficulty_parser",
    "serve": f"{_HERE}.serve:add_serve_parser",
    "load": f"{_HERE}.load:add_load_parser",
    "score": f"{_HERE}.score:add_score_parser",
    "demo": f"{_HERE}.demo:add_demo_parser",
    "completion": f"{_HERE}.completion:add_completion_parser",
}
"""The function that adds each command."""

EXAMPLES = {
    "init": """
cascadebert init checkpoints/small checkpoints/large --data dev.tsv
cascadebert init tiny=models/tiny base=models/base --data rows.csv --text review --label stars
""",
    "advise": """
cascadebert advise cascade.toml --rate 200 --price-per-hour 0.80
cascadebert advise --member small=models/small --member large=models/large --data dev.tsv
""",
    "build": """
cascadebert build cascade.toml
cascadebert build --member small=models/small --member large=models/large --data dev.tsv
cascadebert build cascade.toml --model-repository /srv/models --json
""",
    "tune": """
cascadebert tune cascade.toml --max-disagreement 0.02
cascadebert tune cascade.toml --thresholds 0.9
""",
    "evaluate": """
cascadebert evaluate cascade.toml
cascadebert evaluate cascade.toml --threshold 0.9 --json
""",
    "plan": """
cascadebert plan cascade.toml --rate 200 --p99-ms 100 --price 0.80
cascadebert plan cascade.toml --rate 5000 --p99-ms 50 --accuracy 0.9 --machines machines.toml
""",
    "serve": """
cascadebert serve
cascadebert serve --model sst2 --versions 1,2 --grpc-port 9001
""",
    "load": """
cascadebert load sst2
cascadebert load sst2 --versions 1,2
cascadebert load sst2 --url triton-0:8001,triton-1:8001,triton-2:8001 --share 0.34
""",
    "score": """
cascadebert score reviews.parquet --text sentence --output scored
cascadebert score s3://bucket/reviews --output s3://bucket/scored --workers 16 --on-invalid skip
cascadebert score reviews.csv --output scored --resume
cascadebert score reviews.jsonl --output scored --url a:8001,b:8001
""",
    "completion": """
cascadebert completion bash > ~/.local/share/bash-completion/completions/cascadebert
cascadebert completion zsh > ~/.zfunc/_cascadebert
""",
}
"""Lines for the end of each command's help."""
