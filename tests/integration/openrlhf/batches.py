"""A batch small enough for its advantages to be worked out by hand, in OpenRLHF's own classes.

Two responses to one prompt of two tokens. The first has four tokens and steps that end in its
first and its last token; the second has three tokens and steps that end in its second and third.
"""

from types import SimpleNamespace

import torch
from openrlhf.trainer.ppo_utils.kl_controller import FixedKLController
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

from vrprm_openrlhf.wire import MASKED, pack

ESTIMATORS = (
    "gae",
    "reinforce",
    "rloo",
    "reinforce_baseline",
    "group_norm",
    "dr_grpo",
    "flash_reinforce",
)


def options(estimator="reinforce", n=2, **more):
    """The parsed command line, as far as the experience maker reads it."""
    advantage = {"estimator": estimator, "gamma": 1.0, "lambd": 1.0, "no_std_norm": False}
    found = {
        "algo": {"advantage": SimpleNamespace(**advantage), "kl": SimpleNamespace(use_loss=False)},
        "reward": {
            "clip_range": (-10, 10),
            "overlong_buffer_len": None,
            "overlong_penalty_factor": 1.0,
            "stop_properly_penalty_coef": None,
        },
        "rollout": {"n_samples_per_prompt": n, "micro_batch_size": 2, "max_new_tokens": 8},
        "train": {"dynamic_batch_enable": False},
        "data": {"max_len": 64},
    }
    args = SimpleNamespace(**{name: SimpleNamespace(**value) for name, value in found.items()})
    for path, value in more.items():
        place, name = path.split("__")
        holder = args.algo.advantage if place == "advantage" else getattr(args, place)
        setattr(holder, name, value)
    return args


def response(tokens, reward, *, masked=None, steps=None, truncated=False, prompt=2):
    """What an executor returns. `steps`: (token in the response, reward) of each step."""
    extra = {} if masked is None else {MASKED: float(masked)}
    if steps is not None:
        extra |= pack([token for token, _ in steps], [value for _, value in steps], prompt)
    return {
        "prompt": "p",
        "label": "",
        "images": None,
        "mm_train_inputs": None,
        "observation_tokens": list(range(prompt + tokens)),
        "action_ranges": [(prompt, prompt + tokens)],
        "rollout_log_probs": None,
        "truncated": truncated,
        "reward": float(reward),
        "scores": float(reward),
        "extra_logs": extra,
    }


def hand_made():
    """The two responses: outcomes 1 and 0, step rewards 1, 0.5 and 0, 0."""
    return [
        response(4, 1, masked=False, steps=[(0, 1.0), (3, 0.5)]),
        response(3, 0, masked=False, steps=[(1, 0.0), (2, 0.0)]),
    ]


def experience_maker(module, args, kl=0.0):
    """The experience maker of `module`, OpenRLHF's or a fresh copy, without models."""
    strategy = SimpleNamespace(args=args)
    tokenizer = SimpleNamespace(pad_token_id=0)
    return module.RemoteExperienceMaker(
        None, None, None, None, FixedKLController(kl), strategy, tokenizer
    )


def experiences(maker, responses, values=None, kl=None):
    """Micro batches of the responses, as they are when advantages are to be computed."""
    generator = SamplesGenerator.__new__(SamplesGenerator)
    samples = [generator._process_response_into_experience(each, max_len=64) for each in responses]
    batches = maker.split_rollout_samples(samples)
    for batch in batches:
        mask = batch.action_mask.float()
        batch.kl = torch.zeros_like(mask) if kl is None else kl(mask)
        batch.values = None if values is None else mask * values
    return batches


def computed(module, args, responses, **more):
    """Advantages on the tokens of each response, in order, as lists of numbers."""
    maker = experience_maker(module, args, kl=more.pop("kl_coefficient", 0.0))
    batches = maker.compute_advantages_and_returns(experiences(maker, responses, **more))
    return [
        row[mask.bool()].tolist()
        for batch in batches
        for row, mask in zip(batch.advantages, batch.action_mask, strict=True)
    ], batches
