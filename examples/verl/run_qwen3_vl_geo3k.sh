#!/usr/bin/env bash
# GRPO-style training of a Qwen3-VL policy on Geometry3K with a credit for every step, under verl 0.9.
#
#   examples/verl/run_qwen3_vl_geo3k.sh server    the reward model behind `vrprm-reward serve`
#   examples/verl/run_qwen3_vl_geo3k.sh hosted    the reward model on GPUs that verl manages
#   ... server|hosted print                       only print the overrides, one a line
#
# Data: python examples/data_preprocess/geo3k.py --local_save_dir ~/data/geo3k   (in verl's checkout)
# Check the set-up before a run: vrprm-reward doctor verl
set -euo pipefail

MODE=${1:?server or hosted}
POLICY=${POLICY:-Qwen/Qwen3-VL-8B-Instruct}
DATA=${DATA:-$HOME/data/geo3k}
REWARD_URL=${REWARD_URL:-http://127.0.0.1:8000}       # server: where `vrprm-reward serve` listens
REWARD_MODEL=${REWARD_MODEL:-VRPRM-Qwen3VL-4B}        # hosted: the VRPRM checkpoint
REWARD_PROFILE=${REWARD_PROFILE:-two_stage}           # hosted: name or path of its profile
GPUS=${GPUS:-8}                                       # of the policy
REWARD_GPUS=${REWARD_GPUS:-2}                         # hosted: of the reward model

args=(
  # --- Data -------------------------------------------------------------------------------------
  "data.train_files=$DATA/train.parquet"
  "data.val_files=$DATA/test.parquet"
  # The column with the pictures; the reward model sees them through the prompt's messages.
  data.image_key=images
  data.train_batch_size=512
  data.max_prompt_length=1024
  data.max_response_length=2048
  data.filter_overlong_prompts=True
  # An overlong prompt is an error: cutting it would cut image tokens.
  data.truncation=error

  # --- Policy -----------------------------------------------------------------------------------
  "actor_rollout_ref.model.path=$POLICY"
  actor_rollout_ref.model.use_remove_padding=True
  actor_rollout_ref.model.enable_gradient_checkpointing=True
  actor_rollout_ref.actor.optim.lr=1e-6
  actor_rollout_ref.actor.ppo_mini_batch_size=128
  actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=10
  # The KL term belongs into the loss: in the rewards it would stand on every token and hide the
  # steps, and this package's estimators refuse it.
  algorithm.use_kl_in_reward=False
  actor_rollout_ref.actor.use_kl_loss=True
  actor_rollout_ref.actor.kl_loss_coef=0.01
  actor_rollout_ref.actor.kl_loss_type=low_var_kl
  actor_rollout_ref.actor.entropy_coeff=0
  actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=20
  actor_rollout_ref.ref.fsdp_config.param_offload=True

  # --- Rollouts ---------------------------------------------------------------------------------
  actor_rollout_ref.rollout.name=vllm
  # Rollouts of one problem; the baseline of a step is the mean of the other seven at that step.
  actor_rollout_ref.rollout.n=8
  actor_rollout_ref.rollout.tensor_model_parallel_size=2
  actor_rollout_ref.rollout.gpu_memory_utilization=0.6
  actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=20
  # Puts every step's reward onto the step's last token (tools: vrprm_tool_agent). With verl's own
  # loop the sum of all rewards would end up on the last token of the response.
  actor_rollout_ref.rollout.agent.default_agent_loop=vrprm_single_turn_agent

  # --- Reward -----------------------------------------------------------------------------------
  # The reward manager of this package; verl's plugin mechanism has registered it.
  reward.reward_manager.name=vrprm
  # CPU processes that score rollouts as they finish.
  reward.num_workers=8
  # A right answer earns the smallest probability of its steps: the first step its own, every other
  # one what it takes from that; the end of a wrong answer takes all of it back.
  +reward.vrprm.combination=sound
  +reward.vrprm.credit=running_min
  # Final answers are compared by math-verify (pip install 'vrprm-reward[verl]').
  +reward.vrprm.outcome=math
  # What is judged: the whole response (all), its thinking, or its answer.
  +reward.vrprm.steps.part=all
  # The bare question; without this the reward model reads the whole user message, instructions
  # about the answer's format included.
  +reward.vrprm.question_key=question
  # Seconds for one rollout with all attempts; after that it is masked.
  +reward.vrprm.timeout=600

  # --- Credit -----------------------------------------------------------------------------------
  # What a rollout earns minus the mean of the group's others, on each step as much as what stands
  # before it is believed.
  algorithm.adv_estimator=vrprm_sound_prefix
  # The run stops when more than this share of a batch could not be scored.
  +algorithm.vrprm.max_masked_share=0.2

  # --- Run --------------------------------------------------------------------------------------
  "trainer.n_gpus_per_node=$GPUS"
  trainer.nnodes=1
  trainer.project_name=vrprm
  trainer.experiment_name=qwen3_vl_geo3k
  'trainer.logger=["console","wandb"]'
  trainer.save_freq=20
  trainer.test_freq=5
  trainer.total_epochs=15
)

case $MODE in
  server)
    # Start it on other GPUs: vrprm-reward serve --model VRPRM-Qwen3VL-4B --profile imported.toml
    args+=("+reward.vrprm.url=$REWARD_URL")
    ;;
  hosted)
    args+=(
      # verl starts vLLM servers for the reward model on GPUs of their own, next to the policy's,
      # so that rollouts are scored while others are generated.
      reward.reward_model.enable=True
      reward.reward_model.enable_resource_pool=True
      "reward.reward_model.n_gpus_per_node=$REWARD_GPUS"
      reward.reward_model.nnodes=1
      "reward.reward_model.model_path=$REWARD_MODEL"
      reward.reward_model.rollout.name=vllm
      reward.reward_model.rollout.tensor_model_parallel_size=1
      # Room for the problem, the images, the response, and what the reward model thinks.
      reward.reward_model.rollout.prompt_length=8192
      reward.reward_model.rollout.response_length=4096
      reward.reward_model.rollout.gpu_memory_utilization=0.8
      # Most images of one problem.
      reward.reward_model.rollout.limit_images=4
      # The profile's conversation template (vrprm-reward chat-template -o chatml.jinja): published
      # templates delete thinking from earlier turns. verl hands these on to vLLM.
      +reward.reward_model.rollout.engine_kwargs.vllm.chat_template=chatml.jinja
      +reward.reward_model.rollout.engine_kwargs.vllm.chat_template_content_format=openai
      # Without a function here verl passes every reward manager by when it hosts a reward model.
      reward.custom_reward_function.path=pkg://vrprm_verl.score
      reward.custom_reward_function.name=compute_score
      # How the checkpoint is spoken to.
      "+reward.vrprm.profile=$REWARD_PROFILE"
    )
    ;;
  *)
    echo "unknown mode $MODE: server or hosted" >&2
    exit 2
    ;;
esac

if [[ ${2:-} == print ]]; then
  printf '%s\n' "${args[@]}"
  exit
fi

# Numbers of this package in verl's logger; see docs/verl.md.
export VRPRM_VERL_PATCHES=${VRPRM_VERL_PATCHES:-metrics}
exec python3 -m verl.trainer.main_ppo "${args[@]}"
