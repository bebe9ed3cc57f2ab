"""TensorRT engines: the request for one, building it, checking that it fits a machine, running it.

The package imports nothing else of the project. Building an engine needs TensorRT, Polygraphy and
numpy; the check before a server starts needs Python alone. `cascadebert publish` copies the package
beside a plan, so that a server needs only the stage's folder.
"""
