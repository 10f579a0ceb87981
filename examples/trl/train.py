"""GRPO on pictures with process rewards, on a CPU, in a few minutes.

    python examples/trl/train.py            # a scalar reward per response
    python examples/trl/train.py --dense    # credited step by step

The policy and the reward model are the packaged demo model; nothing is downloaded. `--reward
http://host:port` asks a `vrprm-reward serve` instead.
"""

import argparse
import random
import sys
from pathlib import Path
from statistics import fmean

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from vrprm_reward import Problem, Rollout, load_process_reward
from vrprm_reward.demo.world import random_example
from vrprm_reward.rewards.answers import final_answer, same_text
from vrprm_trl import ProcessRewardFunction, StepGRPOTrainer

sys.path.insert(0, str(Path(__file__).parent))
from policy import conversation, load_policy, prompt_text, warm_up

HELD_OUT = 24
OURS = [
    f"rewards/process_reward/{name}"
    for name in ("p_correct/mean", "steps/mean", "outcome/mean", "masked_share", "first_error/none")
]


def main(arguments=None):
    args = options(arguments)
    torch.manual_seed(args.seed)
    model, processor = load_policy()
    losses = warm_up(model, processor, args.warm_up, args.seed)
    print(f"imitation: {len(losses)} batches, loss {losses[0]:.2f} -> {losses[-1]:.2f}")
    return learn(model, processor, args)


def options(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reward", default="demo", help="a name for load_process_reward")
    parser.add_argument("--dense", action="store_true", help="credit each step on its own")
    parser.add_argument("--steps", type=int, default=40, help="training steps")
    parser.add_argument("--warm-up", type=int, default=150, help="batches of imitation before")
    parser.add_argument("--batch", type=int, default=16, help="responses per step, 8 a problem")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def learn(model, processor, args):
    """Train the policy, print what changed, and return those figures."""
    judge = load_process_reward(args.reward)
    held_out = [random_example(random.Random(1_000_000 + k)) for k in range(HELD_OUT)]
    before = examined(model, processor, judge, held_out)
    reward = ProcessRewardFunction(judge, outcome="exact", steps=args.dense)
    trainer = (StepGRPOTrainer if args.dense else GRPOTrainer)(
        model=model,
        reward_funcs=reward,
        args=config(args),
        train_dataset=dataset(args.seed, problems=args.batch // 8 * args.steps),
        processing_class=processor,
    )
    trainer.train()
    after = examined(model, processor, judge, held_out)
    logged = [row for row in trainer.state.log_history if "reward" in row]
    report(logged, before, after)
    return before, after, logged


def report(logged, before, after):
    quarter = max(1, len(logged) // 4)
    print(f"\n{'':28}first quarter   last quarter")
    for name in ("reward", "completions/mean_length", *OURS):
        values = [row[name] for row in logged if name in row]
        if len(values) == len(logged):
            first, last = fmean(values[:quarter]), fmean(values[-quarter:])
            print(f"{name.removeprefix('rewards/process_reward/'):28}{first:13.3f}{last:15.3f}")
    print(f"\n{HELD_OUT} held-out problems     before          after")
    for name in before:
        print(f"{name:28}{before[name]:13.3f}{after[name]:15.3f}")


def config(args):
    return GRPOConfig(
        output_dir="runs/trl",
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        seed=args.seed,
        max_steps=args.steps,
        per_device_train_batch_size=args.batch,
        num_generations=8,
        max_completion_length=128,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        gradient_checkpointing=False,
        beta=0.0,
    )


def dataset(seed, problems):
    rng = random.Random(seed + 1)
    examples = [random_example(rng) for _ in range(problems)]
    return Dataset.from_list(
        [
            {"prompt": conversation(e.question), "images": [e.image], "answer": e.answer}
            for e in examples
        ]
    )


@torch.no_grad()
def examined(model, processor, judge, examples):
    """How well the policy does on its own: right answers, and what the reward model says."""
    model.eval()
    inputs = processor(
        text=[prompt_text(processor, e.question) for e in examples],
        images=[[e.image] for e in examples],
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )
    written = model.generate(**inputs, max_new_tokens=128, do_sample=False)
    texts = processor.tokenizer.batch_decode(
        written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    rollouts = [
        Rollout(problem=Problem(question=e.question, images=[e.image]), response=text)
        for e, text in zip(examples, texts, strict=True)
    ]
    scores = [score for score in judge.score(rollouts) if score.scored]
    stated = [final_answer(text) for text in texts]
    model.train()
    return {
        "right answers": fmean(
            float(text is not None and same_text(text, e.answer))
            for text, e in zip(stated, examples, strict=True)
        ),
        "mean p of a step": fmean(fmean(score.p_correct) for score in scores) if scores else 0.0,
        "steps": fmean(len(score.p_correct) for score in scores) if scores else 0.0,
    }


if __name__ == "__main__":
    main()
