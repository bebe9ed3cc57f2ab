"""Watches a tritonserver: as process 1 of the container, and inside `cascadebert serve`.

Standard library and the names of `cascadebert_core` only: in the container it runs with the python3
of NVIDIA's image.

Shared by the container and `serve`:

    repository  the cascades of a model repository
    flags       the command line of tritonserver
    probe       classifies one row over loopback
    stubs       the processes of the python backend, and how they died
    placement   the rule for instances and threads; `cores` counts the cores
    watch       probes in rounds until too many in a row have failed

`serve` alone:

    leftovers   what a killed server leaves behind
    guard       a process that removes it at once

The container alone:

    settings    the environment variables
    preflight   the check of the TensorRT plans
    fitted      instances and threads for the machine, as `serve` chooses them
    config_text the settings of a config.pbtxt that this changes
    overlay     links to the repository, with these configurations
    process     the server as a child of process 1
    served      what the health check reads
    supervisor  runs these steps, and returns the exit code
"""
