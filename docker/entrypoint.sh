#!/bin/sh
# If the image has NVIDIA's entrypoint, run it first: it checks the driver and sets up the CUDA
# compatibility libraries. It ends with exec, so the supervisor is process 1 in both cases.
set -eu
cd /opt/cascadebert
set -- python3 -m cascadebert_supervisor "$@"
if [ -x /opt/nvidia/nvidia_entrypoint.sh ]; then
    set -- /opt/nvidia/nvidia_entrypoint.sh "$@"
fi
exec "$@"
