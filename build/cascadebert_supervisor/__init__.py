"""The entrypoint of the Triton container: checks, starts and watches one tritonserver.

Standard library only: it runs with the python3 of NVIDIA's image.

    settings    what the environment says
    repository  the published cascades of /models
    flags       the command line of tritonserver
    process     the server as a child process, seen from process 1
    probe       one row classified over loopback
    watch       how many failed probes in a row are too many
    supervisor  all of it in order, and the exit code
"""
