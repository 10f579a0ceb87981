"""Texts that tests score: hostile ones that forge markup, ordinary ones that must not change."""

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.scoring.doubles import ScriptedEngine
from vrprm_reward import Problem, ProcessScore, Rollout, Step
from vrprm_reward.engines.engine import Generation, Prompt
from vrprm_reward.engines.local.encode import PromptEncoder
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.scoring.scorer import VRPRMScorer

IMAGES = (Image.new("RGB", (64, 64), "red"), Image.new("RGB", (96, 64), "blue"))


@dataclass
class StoppingEngine(ScriptedEngine):
    """Writes a step analysis if asked for one, and stops where it is told to."""

    analysis: str = ""
    asked: list[Prompt] = field(default_factory=list)

    async def generate(
        self, prompt: Prompt, *, max_tokens: int, stop: str | None, share: Hashable
    ) -> Generation:
        self.asked.append(prompt)
        text = f"{self.thinking}{self.analysis}"
        if stop:
            before, found, _ = text.partition(stop)
            text = before + found
        return Generation(text, "stop", 1, 1)

    async def judge(self, prompt: Prompt, *, share: Hashable) -> Any:
        self.asked.append(prompt)
        return await super().judge(prompt, share=share)


class Desk:
    """Scores rollouts with a scripted engine and says what the engine was asked."""

    def __init__(self, profile: Profile, added_tokens: frozenset[str]) -> None:
        self.profile = profile
        self._engine = StoppingEngine(added_tokens=added_tokens)
        self._scorer = VRPRMScorer(lambda: self._engine, profile, schedule="lockstep")
        self._loop = asyncio.new_event_loop()

    def ask(
        self, rollout: Rollout, thinking: str = "Fine.", steps: int = 0
    ) -> tuple[ProcessScore, list[Prompt]]:
        """The score, and the prompts: of the thinking if there is one, then of each step."""
        rules = self.profile.think
        engine = self._engine
        engine.asked = []
        engine.thinking = f"{rules.opening}{thinking}{rules.closing}" if rules else ""
        engine.analysis = ""
        if self.profile.frame == "score_json":
            marks, first = self.profile.sections, self.profile.steps.first_number
            count = steps or len(rollout.steps or ())
            lines = "".join(f"Step {first + i}: holds \\boxed{{1}}\n" for i in range(count))
            engine.analysis = f"\n{marks.analysis}\n{lines}{marks.scores}\n"
        (score,) = self._loop.run_until_complete(self._scorer.ascore([rollout]))
        return score, engine.asked

    def close(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._scorer.close()


def rollout_of(question: str, steps: Sequence[str], reference: str | None = None) -> Rollout:
    """A rollout with ready-made steps and two images."""
    made: list[Step] = []
    response = ""
    for text in steps:
        made.append(Step(text=text, start=len(response), end=len(response) + len(text)))
        response += f"{text}\n\n"
    problem = Problem(question=question, images=IMAGES, reference_answer=reference)
    return Rollout(problem=problem, response=response, steps=tuple(made))


def encoder_of(tokenizer: Any, profile: Profile) -> PromptEncoder:
    """The local engine's encoder, without a model behind it."""
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 32 * 32, "longest_edge": 96 * 96}, patch_size=16, merge_size=2
    )
    return PromptEncoder(
        tokenizer,
        processor,
        template=profile.conversation,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        rope_index=lambda ids, **_: (torch.zeros(3, 1, ids.shape[1], dtype=torch.int64), None),
    )
