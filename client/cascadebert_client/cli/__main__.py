"""`python -m cascadebert_client.cli COMMAND`: the client's commands without the build package."""

import sys

from .commands import main

sys.exit(main())
