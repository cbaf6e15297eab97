# Sourced by dist_train.sh and dist_test.sh.

# torchrun_here PROCESSES SCRIPT [arguments]: start SCRIPT in PROCESSES processes of this machine.
torchrun_here() {
    local processes=$1
    local rendezvous
    if [ "${NNODES:-1}" -eq 1 ] && [ -z "${PORT:-}" ]; then
        # A free port is found, so that several runs fit on one machine.
        rendezvous=(--standalone --local-addr=127.0.0.1)
    else
        rendezvous=(--nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}"
                    --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${PORT:-29500}")
    fi
    if [ -z "${OMP_NUM_THREADS:-}" ]; then
        # The processes share the cores.
        local cores
        cores=$(python -c 'import os; print(os.cpu_count() or 1)')
        export OMP_NUM_THREADS=$((cores > processes ? cores / processes : 1))
    fi
    PYTHONPATH="$(dirname "$TOOLS"):${PYTHONPATH:-}" exec python "$TOOLS/torchrun.py" \
        "${rendezvous[@]}" --nproc-per-node="$processes" "${@:2}"
}
