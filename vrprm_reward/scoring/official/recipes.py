"""Which profile is made of which texts: VRPRM's requests, laid out as its own programs do it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vrprm_reward.errors import ProfileError
from vrprm_reward.scoring.profile import Profile, packaged_conversation

Texts = Mapping[str, str]
"""Name of a constant of the registry -> its text."""


@dataclass(frozen=True)
class Recipe:
    """One profile."""

    name: str
    description: str
    needs: tuple[str, ...]
    """Names of constants. `step_request` is also found inside `step_turn`."""

    keys: Callable[[Texts], dict[str, Any]]
    """The texts -> the keys in which the profile differs from the defaults."""

    def profile(self, texts: Texts) -> Profile:
        """The profile. Raises `ProfileError` if a text is not built as expected."""
        own = {
            "name": self.name,
            "description": self.description,
            "conversation": packaged_conversation(),
            "placeholder": "keep",
        }
        return Profile.model_validate(own | self.keys(texts))


def with_derived(texts: Texts) -> dict[str, str]:
    """The texts, and `step_request` out of `step_turn` where it was not found by itself.

    Raises:
        ProfileError: `step_turn` is not built as expected.
    """
    derived = dict(texts)
    if "step_request" not in derived and "step_turn" in derived:
        head = "[Previous Step Judgments]\n{previous_judgments}\n[Current Step]\n{current_step}\n"
        turn = derived["step_turn"]
        try:
            if not turn.startswith(head):
                raise ValueError("it does not begin with the sections of a step's turn")
            derived["step_request"] = turn.removeprefix(head).format()
        except (LookupError, ValueError) as error:
            raise ProfileError(f"step_turn is not built as expected: {error!r}") from error
    return derived


_TEMPLATE_HEAD = re.compile(r"\{\{ *content *(?:\| *trim *)?\}\}")


def _format_instructions(template: str) -> str:
    """What a prompt template of the RL trainer appends to a prompt."""
    template = template.strip()
    head = _TEMPLATE_HEAD.match(template)
    if head is None or re.search(r"\{\{|\{%|\{#", template[head.end() :]):
        raise ProfileError(
            "a prompt template of the RL trainer was found, but it does more than append text to "
            "{{ content | trim }}"
        )
    return template[head.end() :]


_SOLUTION_THEN_ANSWER = {
    "opening": {"order": ("question", "solution", "reference")},
    "sections": {"solution": "[Solution]", "reference": "[Answer]"},
    "show_reference": True,
}


def _two_stage(think: str, **more: Any) -> Callable[[Texts], dict[str, Any]]:
    return lambda texts: {
        "frame": "two_stage",
        "think": {"system": texts[think]},
        "judge": {"system": texts["step_score"], "request": texts["step_request"]},
        **more,
    }


def _no_think_stepwise(images: str) -> Callable[[Texts], dict[str, Any]]:
    return lambda texts: {
        "frame": "two_stage",
        "judge": {
            "system": texts["step_score_no_think"],
            "request": texts["step_request"],
            "images": images,
        },
    }


def _multi_turn(texts: Texts) -> dict[str, Any]:
    return {
        "frame": "multi_turn",
        "images": "inline",
        "show_reference": True,
        "steps": {"strip": True},
        "judge": {"request": texts["step_request"]},
    }


def _multi_turn_think(texts: Texts) -> dict[str, Any]:
    return {**_multi_turn(texts), "think": {"system": texts["multi_turn_think"]}}


def _multi_turn_no_think(texts: Texts) -> dict[str, Any]:
    keys = _multi_turn(texts)
    return {**keys, "judge": {**keys["judge"], "system": texts["multi_turn_no_think"]}}


def _answer_block(template: str) -> Callable[[Texts], dict[str, Any]]:
    return lambda texts: {
        "frame": "answer_block",
        "images": "inline",
        "placeholder": "canonical",
        "show_reference": True,
        "task": texts["answer_task"],
        "sections": {"solution": "[Candidate Solution Steps]"},
        "opening": {
            "order": ("question", "reference", "solution", "task"),
            "gap": "\n\n",
            "end": _format_instructions(texts[template]),
        },
        "steps": {"strip": True},
        "think": {"max_tokens": 2048},
    }


def _score_json(system: str, **more: Any) -> Callable[[Texts], dict[str, Any]]:
    return lambda texts: {
        "frame": "score_json",
        "steps": {"form": "split"},
        "think": {"system": texts[system], "max_tokens": 2048},
        **_SOLUTION_THEN_ANSWER,
        **more,
    }


def _boxed_continuation(texts: Texts) -> dict[str, Any]:
    return {
        "frame": "boxed_continuation",
        "steps": {"form": "split"},
        "think": {"system": texts["warm_up"], "unmarked": "drop"},
        **_SOLUTION_THEN_ANSWER,
    }


def _score_list(system: str, **more: Any) -> Callable[[Texts], dict[str, Any]]:
    return lambda texts: {
        "frame": "score_list",
        "opening": {
            "order": ("question", "reference", "solution", "count"),
            "end": "\n" + texts["single_pass_request"],
        },
        "judge": {"system": texts[system]},
        **more,
    }


RECIPES = (
    Recipe(
        "vrprm-two-stage",
        "VRPRM's benchmark protocol: thinking with the images, then a text-only request per step.",
        ("global_think", "step_score", "step_request"),
        _two_stage("global_think"),
    ),
    Recipe(
        "vrprm-two-stage-reference",
        "VRPRM's Best-of-N protocol: as the benchmark's, with the reference answer shown.",
        ("global_think_reference", "step_score", "step_request"),
        _two_stage("global_think_reference", show_reference=True, steps={"strip": True}),
    ),
    Recipe(
        "vrprm-no-think-stepwise",
        "VRPRM without thinking: a text-only request per step, which never sees the images.",
        ("step_score_no_think", "step_request"),
        _no_think_stepwise("never"),
    ),
    Recipe(
        "vrprm-no-think-stepwise-images",
        "VRPRM without thinking: a request per step, each with the images.",
        ("step_score_no_think", "step_request"),
        _no_think_stepwise("each"),
    ),
    Recipe(
        "vrprm-score-list",
        "VRPRM without thinking, in a single pass: the verdicts of all steps as one JSON list.",
        ("single_pass", "single_pass_request"),
        _score_list("single_pass"),
    ),
    Recipe(
        "vrprm-score-list-reference",
        "VRPRM without thinking, in a single pass, with the reference answer shown.",
        ("single_pass_reference", "single_pass_request"),
        _score_list("single_pass_reference", show_reference=True),
    ),
    Recipe(
        "vrprm-multi-turn",
        "The conversation VRPRM is fine-tuned on; it shows the reference answer.",
        ("multi_turn_think", "step_request"),
        _multi_turn_think,
    ),
    Recipe(
        "vrprm-multi-turn-no-think",
        "The conversation without thinking VRPRM is fine-tuned on; it shows the reference answer.",
        ("multi_turn_no_think", "step_request"),
        _multi_turn_no_think,
    ),
    Recipe(
        "vrprm-answer-block-v1",
        "VRPRM's RL rollouts: thinking and an answer block; they show the reference answer.",
        ("answer_task", "answer_format_v1"),
        _answer_block("answer_format_v1"),
    ),
    Recipe(
        "vrprm-answer-block-v2",
        "VRPRM's RL rollouts that also name the first error; they show the reference answer.",
        ("answer_task", "answer_format_v2"),
        _answer_block("answer_format_v2"),
    ),
    Recipe(
        "vrprm-score-json-short",
        "VRPRM v1 as its evaluators ask it: an analysis line per step; shows the reference answer.",
        ("score_json_short",),
        _score_json("score_json_short"),
    ),
    Recipe(
        "vrprm-score-json-long",
        "VRPRM v1 as its training data were made: numbered steps; shows the reference answer.",
        ("score_json_long",),
        _score_json(
            "score_json_long",
            images="inline",
            steps={"form": "numbered_split", "label": "always", "strip": True},
        ),
    ),
    Recipe(
        "vrprm-boxed-continuation",
        "For untuned models: thinking, then a raw completion; shows the reference answer.",
        ("warm_up",),
        _boxed_continuation,
    ),
)
"""Every profile that an import may write."""
