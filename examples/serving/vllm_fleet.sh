#!/usr/bin/env bash
# Several vLLM replicas of one checkpoint, a GPU each, behind one reward server.
#
#     examples/serving/vllm_fleet.sh MODEL [PROFILE [REPLICAS]]
#
# Runs until it is told to end (SIGTERM, Ctrl-C). The reward server waits until the replicas have
# loaded their model; one of them may die later, the others take its work.
#
# Needs vLLM and pip install 'vrprm-reward[server]'. More options for vLLM go into VLLM_OPTIONS, for
# the reward server into SERVE_OPTIONS, e.g. "--host 0.0.0.0 --token-file token". The reward server
# listens on PORT (8000), the replicas on FIRST_PORT (8100) and those after it; their logs are
# written to the folder LOGS, by default the working directory.
set -euo pipefail
model=${1:?which checkpoint?}
profile=${2:-two_stage}
replicas=${3:-2}
port=${PORT:-8000}
first=${FIRST_PORT:-8100}
folder=$(mktemp -d)

# The profile's own template: those of published thinking checkpoints delete earlier thinking.
vrprm-reward chat-template --profile "$profile" -o "$folder/chatml.jinja"

pids=()
end() {
  trap - EXIT INT TERM
  # The reward server first: it finishes what it let in.
  kill "$reward" 2>/dev/null || true
  wait "$reward" || true
  kill "${pids[@]}" 2>/dev/null || true
  wait
  rm -r "$folder"
}
reward=
trap end EXIT
trap 'exit 0' INT TERM

urls=
for ((n = 0; n < replicas; n++)); do
  # shellcheck disable=SC2086  # options are words
  CUDA_VISIBLE_DEVICES=$n python -m vllm.entrypoints.openai.api_server \
    --model "$model" --served-model-name vrprm --host 127.0.0.1 --port $((first + n)) \
    --chat-template "$folder/chatml.jinja" --chat-template-content-format openai \
    --limit-mm-per-prompt '{"image":16,"video":0}' ${VLLM_OPTIONS:-} \
    >"${LOGS:-.}/vllm-$n.log" 2>&1 &
  pids+=($!)
  urls+=${urls:+,}http://127.0.0.1:$((first + n))
done

# shellcheck disable=SC2086
vrprm-reward serve --upstream "$urls" --profile "$profile" --port "$port" ${SERVE_OPTIONS:-} &
reward=$!
wait $reward
