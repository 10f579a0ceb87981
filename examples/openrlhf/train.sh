#!/usr/bin/env bash
# A Qwen2.5-VL or Qwen3-VL policy in OpenRLHF 0.11.2 with process rewards.
#
#   REWARD_URL=http://reward:8000 examples/openrlhf/train.sh scalar
#   REWARD_URL=http://reward:8000 examples/openrlhf/train.sh dense
#
# Before: on the machine of the reward model
#   vrprm-reward serve --model ./vrprm-4b --profile vrprm-profiles/vrprm-two-stage.toml --host 0.0.0.0
# and here, once
#   vrprm-reward openrlhf-data geometry.jsonl train.jsonl
set -euo pipefail

MODE=${1:?scalar or dense}
POLICY=${POLICY:-Qwen/Qwen2.5-VL-7B-Instruct}
DATA=${DATA:-train.jsonl}

# Settings of the adapter. All are listed in docs/openrlhf.md.
export VRPRM_OPENRLHF_URL=${REWARD_URL:?the reward server, such as http://reward:8000}
export VRPRM_OPENRLHF_MODE=$MODE
# A right answer earns the smallest probability of its steps, and a wrong one nothing.
export VRPRM_OPENRLHF_COMBINATION=sound
# Without the hook a rollout that could not be scored has to be worth something.
if [ "$MODE" = scalar ]; then export VRPRM_OPENRLHF_UNSCORED_REWARD=0; fi
# Installs the hook in every Ray worker: dense rewards, and masks instead of UNSCORED_REWARD.
if [ "$MODE" = dense ]; then export RAY_RUNTIME_ENV_HOOK=vrprm_openrlhf.runtime_env_hook; fi

ARGUMENTS=(
  # The executor: generates, and scores the response with its images.
  --train.agent_func_path "$(vrprm-reward openrlhf path agent)"
  # The columns that openrlhf-data writes. Images make it a multimodal run.
  --data.prompt_dataset "$DATA" --data.input_key prompt --data.label_key label
  --data.image_key images --data.max_images_per_prompt 1 --data.apply_chat_template
  # A baseline from the other responses to the prompt; a critic is refused for multimodal policies.
  --algo.advantage.estimator reinforce_baseline --rollout.n_samples_per_prompt 8
  # 128 prompts x 8 responses per batch of experience, 1024 responses per update.
  --rollout.batch_size 128 --rollout.micro_batch_size 4
  --train.batch_size 1024 --train.micro_batch_size 2
  # Room for image tokens, prompt and response together.
  --data.max_len 8192 --rollout.max_new_tokens 2048
  # The KL to the first policy goes into the loss, apart from the rewards.
  --algo.kl.use_loss --algo.kl.estimator k2 --algo.kl.init_coef 1e-3
  # Keep prompts of which some answers are right and some wrong; reads the 0/1 outcome.
  --algo.dynamic_filtering_enable --algo.dynamic_filtering_range 0 1
  --actor.model_name_or_path "$POLICY" --actor.adam.lr 1e-6 --actor.freeze_visual_encoder
  --actor.gradient_checkpointing_enable --ds.zero_stage 3
  # One node of 8 GPUs, shared by everything.
  --train.colocate_all --vllm.num_engines 8 --vllm.gpu_memory_utilization 0.5
  --vllm.enable_sleep --ds.enable_sleep
  --actor.num_nodes 1 --actor.num_gpus_per_node 8 --ref.num_nodes 1 --ref.num_gpus_per_node 8
  --ckpt.output_dir "runs/openrlhf-$MODE"
)

exec "${PYTHON:-python3}" -m openrlhf.cli.train_ppo_ray "${ARGUMENTS[@]}"
