"""Which kind of CPU the tests run on, and whether it adds 8-bit products up exactly."""

from __future__ import annotations

import importlib
import platform
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cascadebert_build.errors import MissingExtra

# The instructions that integer products may use, the best of each architecture first: numpy's
# name, and ours. They only describe a CPU. What it can do is for the probe to say.
_INSTRUCTIONS = {
    "AVX512VNNI": "AVX-512 VNNI",
    "AVX512F": "AVX-512 without VNNI",
    "AVX2": "AVX2",
    "SSE41": "SSE4.1",
    "ASIMDDP": "NEON with dot products",
    "ASIMD": "NEON",
}


@dataclass(frozen=True, slots=True)
class Cpu:
    """A kind of CPU.

    Attributes:
        architecture: as the kernel calls it.
        instructions: the best ones that numpy finds for integer products; "" if it finds none.
        is_exact: whether sums of 8-bit products are exact; None if ONNX Runtime is not installed.
    """

    architecture: str
    instructions: str
    is_exact: bool | None

    @property
    def weight_bits(self) -> int:
        """Bits of the INT8 weights that `compile` chooses here for the python backend."""
        return 8 if self.is_exact else 7

    def __str__(self) -> str:
        products = {
            True: "INT8 products of 8 bits are exact",
            False: "INT8 products of 8 bits are cut off: weights take 7 bits",
            None: "INT8 products not tried, for ONNX Runtime is not installed",
        }[self.is_exact]
        return ", ".join(filter(None, [self.architecture, self.instructions, products]))


@cache
def this_cpu() -> Cpu:
    """The CPU that runs this, be it an emulated one."""
    return Cpu(platform.machine(), _instructions(), _is_exact())


def _instructions() -> str:
    """Ask numpy, which asks the CPU: under an emulator /proc/cpuinfo is about another one."""
    for module in ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath"):
        try:
            features: dict[str, Any] = importlib.import_module(module).__cpu_features__
        except (ImportError, AttributeError):  # the other major version of numpy
            continue
        return next((name for key, name in _INSTRUCTIONS.items() if features.get(key)), "")
    return ""


def _is_exact() -> bool | None:
    from cascadebert_build.graphs.int8_probe import has_exact_products, write_probe

    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.onnx"
        try:
            write_probe(probe)
            return has_exact_products(probe)
        except MissingExtra:
            return None
