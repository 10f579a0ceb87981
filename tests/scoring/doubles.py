"""Engines for tests: scripted ones whose prompts and answers a test can read."""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from vrprm_reward.engines.engine import Generation, Judgement, Prompt
from vrprm_reward.images import FinalImage
from vrprm_reward.scoring.profile import Profile, load_profile


def shown(prompt: Prompt) -> str:
    """All text of a prompt, images as <IMAGE>, turns behind their role."""
    turns = []
    for message in prompt.messages:
        parts = ["<IMAGE>" if isinstance(p, FinalImage) else p for p in message.parts]
        turns.append(f"{message.role}: {''.join(parts)}")
    return "\n".join(turns)


def with_bare_steps(name: str) -> Profile:
    """A packaged profile that shows steps without numbers, as some imported ones do."""
    profile = load_profile(name)
    steps = profile.steps.model_copy(update={"form": "split"})
    return profile.model_copy(update={"steps": steps})


@dataclass
class ScriptedEngine:
    """Answers every judgement by a function of the prompt's text; remembers what was asked."""

    judge_text: Callable[[str], tuple[float, float]] = lambda text: (-2.0, -0.1)
    thinking: str = "<think>Looks fine.</think>"
    finish: str = "stop"
    added_tokens: frozenset[str] = frozenset({"<|im_start|>", "<|im_end|>", "<|image_pad|>"})
    identity: str = "scripted"
    thought: list[Prompt] = field(default_factory=list)
    judged: list[Prompt] = field(default_factory=list)
    expected: list[Hashable] = field(default_factory=list)
    released: list[Hashable] = field(default_factory=list)
    closed: bool = False

    deterministic: bool = False

    def fixed_point_pays(self, *, rollouts, steps):
        return False

    async def generate(self, prompt, *, max_tokens, stop, share):
        await asyncio.sleep(0)
        self.thought.append(prompt)
        return Generation(self.thinking, self.finish, len(shown(prompt)), 3)

    async def judge(self, prompt, *, share):
        await asyncio.sleep(0)
        self.judged.append(prompt)
        return Judgement(*self.judge_text(shown(prompt)), len(shown(prompt)))

    def expect(self, share):
        self.expected.append(share)

    def release(self, share):
        self.released.append(share)

    def close(self):
        self.closed = True
