#!/bin/sh
# NVIDIA's own entrypoint goes first where the image has it: it checks the driver, and sets up the
# compatibility libraries of CUDA. It ends with exec, so the supervisor is process 1 either way.
set -eu
cd /opt/cascadebert
set -- python3 -m cascadebert_supervisor "$@"
if [ -x /opt/nvidia/nvidia_entrypoint.sh ]; then
    set -- /opt/nvidia/nvidia_entrypoint.sh "$@"
fi
exec "$@"
