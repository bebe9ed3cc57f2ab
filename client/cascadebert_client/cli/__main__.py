"""`python -m cascadebert_client.cli COMMAND`."""

import sys

from . import main

sys.exit(main())
