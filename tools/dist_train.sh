#!/usr/bin/env bash
# Train with several processes: one for each GPU, or that many on the CPU.
#
#   tools/dist_train.sh CONFIG GPUS [arguments of train.py]
#
# On several machines start it on each of them, with NNODES (how many), NODE_RANK (which one this
# is, from 0), MASTER_ADDR (the address of machine 0) and PORT (a free port there) in the
# environment, e.g.
#
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=10.1.1.1 PORT=29500 tools/dist_train.sh CONFIG 8
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [arguments of train.py]" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
TOOLS=$(cd "$(dirname "$0")" && pwd)
source "$TOOLS/torchrun.sh"
torchrun_here "$GPUS" "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
