"""The prompts of the VRPRM project, known by their length and hash only.

They were read in the public repository two-tiger/VRPRM2, whose files use different constants for
prompts of one kind, so neither a name nor a path identifies a prompt.
"""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Constant:
    """A text that a profile needs."""

    name: str
    chars: int
    """Length in Unicode code points."""

    sha256: str
    """The first 16 hexadecimal digits of the SHA-256 of its UTF-8 bytes."""

    what: str
    """What it is for, and where the project has it."""


def fingerprint(text: str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


REGISTRY = (
    Constant("global_think", 520, "b3f782a71e5816ed", "system prompt, thinking (eval_vpb)"),
    Constant(
        "global_think_reference",
        573,
        "425961f1e129f94b",
        "system prompt, thinking with the reference answer (eval_vpb, Best-of-N)",
    ),
    Constant("step_score", 552, "4df26d95e2af2f26", "system prompt, a step after thinking"),
    Constant("step_score_no_think", 528, "2907e72d622068b3", "system prompt, a step unthought"),
    Constant("single_pass", 740, "bac9791c7a71a9bb", "system prompt, all steps as a JSON list"),
    Constant(
        "single_pass_reference",
        760,
        "0903e0f8f0438a72",
        "system prompt, all steps as a JSON list, with the reference answer",
    ),
    Constant(
        "single_pass_request",
        82,
        "34cc6162be978c07",
        "the sentence that ends that request (inside an f-string)",
    ),
    Constant(
        "step_request",
        70,
        "c3b7a6fe0f8d80ed",
        "the sentence that ends a step's request (inside f-strings)",
    ),
    Constant(
        "step_turn", 147, "8368390956590f0f", "a step's turn with that sentence (build_multiturn)"
    ),
    Constant("multi_turn_think", 515, "ddcf09ec52d0f78e", "system prompt, training conversation"),
    Constant(
        "multi_turn_no_think",
        281,
        "e7cebf6c743d8c7b",
        "system prompt, training conversation without thinking",
    ),
    Constant("score_json_short", 1054, "1d1419776f2e87ce", "system prompt, analysis (evaluators)"),
    Constant("score_json_long", 2559, "14df2fbd1015487e", "system prompt, analysis (training)"),
    Constant("warm_up", 453, "c97fc69717576fb2", "system prompt, thinking before a completion"),
    Constant(
        "answer_task",
        535,
        "96d894bfd731f89f",
        "text of the section [Task] (inside an f-string of the RL data builder)",
    ),
    Constant("answer_format_v1", 1031, "60ea458d22e5605e", "RL prompt template, version 1"),
    Constant("answer_format_v2", 1216, "126bd6052eac0f8a", "RL prompt template, version 2"),
)
"""Every text that some profile needs."""
