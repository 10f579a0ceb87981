#!/usr/bin/env bash
# A reward server on this machine, and a client that scores through it.
#
#     examples/serving/one_machine.sh [MODEL [PROFILE]]
#
# Needs: pip install 'vrprm-reward[local,server]'
set -euo pipefail
here=$(dirname "$0")
port=${PORT:-8000}
VRPRM_TOKEN=$(openssl rand -hex 24) # for the server and for the client
export VRPRM_TOKEN

vrprm-reward serve --model "${1:-demo}" --profile "${2:-demo}" --port "$port" &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT

python "$here/score_over_http.py" "http://127.0.0.1:$port"

kill $server # SIGTERM: what was let in is finished first
wait $server
trap - EXIT
