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

vrprm-reward serve --model "${1:-demo}" ${2:+--profile "$2"} --port "$port" &
server=$!
# It waits until the model is loaded.
python "$here/score_over_http.py" "http://127.0.0.1:$port" &
client=$!
trap 'kill $server $client 2>/dev/null || true' EXIT

wait -n -p first $server $client # ends here with its status if that is not 0
if [ "$first" = $server ]; then
  echo "the server ended before its client had its scores" >&2
  exit 1
fi
kill $server # SIGTERM: what was let in is finished first
wait $server
trap - EXIT
