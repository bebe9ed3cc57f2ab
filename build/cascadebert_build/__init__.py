"""Build, verify, publish and serve a cascade; the command line over all of it.

Importing this package needs only the base dependencies: torch, transformers and the other
heavy ones are imported where they are used, and a command that lacks its extra names it.
"""
