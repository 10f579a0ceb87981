"""What rewards and advantages have to be, worked out slowly and plainly, without our own code."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from tests.integration.verl.problems import QUESTIONS
from vrprm_reward import Problem, Rollout, load_process_reward


def step_ends(tokenizer: Any, ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The first token at which the decoded prefix holds each step whole."""
    starts = [list(ids[: k + 1]) for k in range(len(ids))]
    lengths = [len(tokenizer.decode(start, skip_special_tokens=True)) for start in starts]
    return [next(k for k, n in enumerate(lengths) if n >= end) for end in ends]


def expected_rewards(
    url: str, tokenizer: Any, ids: Sequence[int], image: Image.Image, question: str, answer: str
) -> tuple[torch.Tensor, list[int]]:
    """Dense rewards, and the tokens on which steps end. The last token of all ends the response.

    Under combination=sum, credit=raw and outcome=exact.

    The probabilities are what the server at `url` says when it is asked directly.
    """
    text = tokenizer.decode(list(ids), skip_special_tokens=True)
    problem = Problem(question="<image>" + question, images=(image,), reference_answer=answer)
    reward = (
        load_process_reward(url)
        if url.startswith("http")
        else load_process_reward(url, profile="two_stage")
    )
    (score,) = reward.score([Rollout(problem=problem, response=text)])
    reward.close()
    dense = torch.zeros(len(ids))
    tokens = step_ends(tokenizer, ids, [step.end for step in score.steps])
    for token, p in zip(tokens, score.p_correct, strict=True):
        dense[token] += p
    dense[-1] += float(f"answer is {answer}." in text)
    return dense, tokens


def expected_advantages(
    groups: Sequence[str],
    lengths: Sequence[int],
    rewards: Sequence[torch.Tensor],
    ends: Sequence[list[int]],
) -> list[torch.Tensor]:
    """Leave-one-out return-to-go of groups of two, token by token; the end is one step more, and
    is what a response that is over counts with."""
    returns = []
    for dense, tokens in zip(rewards, ends, strict=True):
        values = [float(dense[token]) for token in (*tokens, len(dense) - 1)]
        returns.append([sum(values[k:]) for k in range(len(values))])
    found = []
    for index, length in enumerate(lengths):
        (other,) = [k for k, each in enumerate(groups) if each == groups[index] and k != index]
        row = []
        for token in range(length):
            step = sum(end < token for end in ends[index])
            baseline = returns[other][min(step, len(returns[other]) - 1)]
            row.append(returns[index][step] - baseline)
        found.append(torch.tensor(row))
    return found


def check_batch(
    url: str,
    tokenizer: Any,
    image: Image.Image,
    rows: Sequence[tuple[str, list[int], torch.Tensor]],
    advantages: Sequence[torch.Tensor],
) -> None:
    """Every row's rewards and advantages against what they have to be.

    Args:
        url: who has judged.
        tokenizer: the policy's.
        image: that of both problems.
        rows: for each response its uid, its token ids, and `rm_scores`, padded or not.
        advantages: for each response, padded or not.
    """
    uids = [uid for uid, _, _ in rows]
    lengths = [len(ids) for _, ids, _ in rows]
    dense, ends = [], []
    for uid, ids, found in rows:
        rewards, tokens = expected_rewards(url, tokenizer, ids, image, QUESTIONS[uid], "three")
        torch.testing.assert_close(found[: len(ids)], rewards, atol=1e-4, rtol=0)
        assert not found[len(ids) :].any()
        dense.append(rewards)
        ends.append(tokens)
    by_hand = expected_advantages(uids, lengths, dense, ends)
    for row, length, expected in zip(advantages, lengths, by_hand, strict=True):
        torch.testing.assert_close(row[:length], expected, atol=1e-3, rtol=0)
