"""The errors of this package.

::

    EngineError
    ├── BuildFailed      the engine cannot be built here, or is not the requested one
    ├── PlanMisfit       the plan does not fit this machine, this policy or its own manifest
    ├── NoGpu            there is no GPU, no driver, or too little of its memory
    └── CudaError        the CUDA runtime refused a call
"""

from __future__ import annotations


class EngineError(Exception):
    """The base class. The message is one sentence with the remedy."""


class BuildFailed(EngineError):  # noqa: N818
    """TensorRT cannot build the engine, or built another one than was requested."""


class PlanMisfit(EngineError):  # noqa: N818
    """A plan that must not be loaded here."""


class NoGpu(EngineError):  # noqa: N818
    """A GPU is needed, and none can be used."""


class CudaError(EngineError):
    """The CUDA runtime refused a call."""
