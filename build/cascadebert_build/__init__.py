"""Build, verify, publish and serve a cascade; the command line over all of it.

Importing this package needs only the base dependencies: torch, transformers and the other
heavy ones are imported where they are used, and a command that lacks its extra names it.
"""

import os

# PyPI's ONNX Runtime sends events to Microsoft from 1.32 on, unless it is told not to before it is
# imported. Whoever wants that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
