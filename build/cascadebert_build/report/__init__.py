"""The page of `cascadebert evaluate --report`: plots first, then rows to look at."""

from .early_exit import EarlyExitCurve, early_exit_from_file
from .material import Material, check_early_exit, material_from_evaluation
from .page import page_from_material
from .provenance import MemberSource, Provenance, provenance_of

__all__ = [
    "EarlyExitCurve",
    "Material",
    "MemberSource",
    "Provenance",
    "check_early_exit",
    "early_exit_from_file",
    "material_from_evaluation",
    "page_from_material",
    "provenance_of",
]
