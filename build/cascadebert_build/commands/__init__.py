"""The commands of the build package, one module each; importing them is cheap."""

from .build import add_build_parsers
from .demo import add_demo_parser
from .difficulty import add_difficulty_parser
from .evaluate import add_evaluate_parser
from .load import add_load_parser
from .serve import add_serve_parser
from .train import add_train_parser
from .tune import add_tune_parser

__all__ = [
    "add_build_parsers",
    "add_demo_parser",
    "add_difficulty_parser",
    "add_evaluate_parser",
    "add_load_parser",
    "add_serve_parser",
    "add_train_parser",
    "add_tune_parser",
]
