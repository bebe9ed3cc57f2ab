"""TensorRT engines: what to build, building it, checking that it fits a machine, running it.

The package needs nothing of the rest of the project: the machine that builds an engine needs
TensorRT, Polygraphy and numpy; the check before a server starts needs Python alone. `cascadebert
publish` copies it beside a plan, so that the stage's folder is all that a server needs.
"""
