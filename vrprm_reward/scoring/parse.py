"""Read what a model answered: thinking out of generated text, a probability out of a judgement."""

import math
from dataclasses import dataclass

from vrprm_reward.engines.engine import Generation, Judgement
from vrprm_reward.errors import NonFiniteLogitsError
from vrprm_reward.scoring.profile import Thinking


@dataclass(frozen=True)
class Thought:
    """Thinking without its delimiters, and what was odd about it."""

    text: str
    flags: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    """In frames that judge inside the generated text: that text up to each verdict."""


def parse_thinking(generation: Generation, rules: Thinking) -> Thought:
    """Cut the thinking out of generated text.

    The inner text of the first delimited block; where the opening is missing (a conversation
    template may have written it), all up to the closing; where the closing is missing, what
    follows the opening, or the whole text, or nothing if the profile says so. Flags:
    `thinking_truncated`, `thinking_unmarked`, `thinking_empty`.
    """
    before, opened, rest = generation.text.partition(rules.opening)
    body = rest if opened else before
    inner, closed, _ = body.partition(rules.closing)
    flags = []
    if generation.finish == "length" and not closed:
        flags.append("thinking_truncated")
    elif not closed:
        flags.append("thinking_unmarked")
    text = inner.strip() if opened or closed else generation.text.strip()
    if not closed and rules.unmarked == "drop":
        text = ""
    if not text.strip():
        flags.append("thinking_empty")
    return Thought(text, tuple(flags))


def probability(judgement: Judgement) -> float:
    """p = e^l1 / (e^l0 + e^l1), in [0, 1].

    Raises:
        NonFiniteLogitsError: a log-probability is NaN, or both verdicts are impossible.
    """
    l0, l1 = judgement.log_p0, judgement.log_p1
    if math.isnan(l0) or math.isnan(l1) or math.inf in (l0, l1) or l0 == l1 == -math.inf:
        raise NonFiniteLogitsError(
            f'the model gave log p("0") = {l0} and log p("1") = {l1}: its weights or its numeric '
            "type are broken; try dtype=float32 and check the checkpoint"
        )
    difference = l0 - l1
    if difference > 0:
        small = math.exp(-difference)
        return small / (1 + small)
    return 1 / (1 + math.exp(difference))
