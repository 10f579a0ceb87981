"""What the demo checkpoint is taught, and in which order."""

from dataclasses import dataclass

from vrprm_reward.scoring.profile import Profile, load_profile

PROFILES = {
    "demo": 0.25,
    "multi_turn": 0.1,
    "answer_block": 0.23,
    "score_json": 0.24,
    "boxed_continuation": 0.18,
}
"""Packaged profiles the checkpoint is trained to follow, with their share of the samples."""

VOCABULARY = 1024


@dataclass(frozen=True)
class Stage:
    """A part of the training."""

    name: str
    updates: int
    batches: int
    """Batches in an update, of all processes together. A batch holds samples of like length, which
    are mostly of one kind; an update by one kind alone undoes what the others have taught."""

    batch_tokens: int
    shares: dict[str, float]
    """Shares of the kinds of samples; none for looking, which has no text."""

    vision: bool = True
    """Whether the vision tower learns. Left as it is, an update takes less time."""

    noisy: float = 0.0
    """Share of whole examples with text around the steps that claims nothing (see `noise`)."""


STAGES = (
    Stage("look", 80, 1, 0, {}),
    Stage("see", 130, 2, 2048, {"see": 1.0}),
    Stage("claims", 250, 4, 1536, {"claims": 0.7, "see": 0.3}),
    Stage("skills", 450, 4, 1536, {"see": 0.25, "claims": 0.15, "drill": 0.35, "quiz": 0.25}),
    Stage("all", 500, 4, 2304, {"picture_quiz": 0.1, "drill": 0.15, "think": 0.6, "judge": 0.15}),
    Stage(
        "polish",
        2200,
        4,
        1792,
        {
            "see": 0.3,
            "picture_quiz": 0.04,
            "drill": 0.06,
            "think": 0.26,
            "judge": 0.08,
            "verdicts": 0.26,
        },
        vision=False,
        noisy=0.4,
    ),
)

READING_PROFILES = {
    "answer_block_no_think": 0.35,
    "score_list": 0.35,
    "multi_turn_no_think": 0.3,
}
"""Packaged profiles that the checkpoint without thinking is trained to follow."""

READING_CONTEXT = 4096
"""Tokens: a conversation without thinking shows the whole problem again with every step."""

READING = (
    Stage("count", 200, 2, 2400, {"counts": 1.0}, vision=False),
    Stage(
        "claims",
        300,
        2,
        2400,
        {"counts": 0.3, "sums": 0.3, "quiz": 0.2, "solution": 0.2},
        vision=False,
    ),
    Stage(
        "frames",
        800,
        2,
        2400,
        {
            "counts": 0.1,
            "sums": 0.15,
            "quiz": 0.1,
            "framed sums": 0.15,
            "framed quiz": 0.1,
            "framed solution": 0.4,
        },
        vision=False,
    ),
    Stage(
        "solutions",
        2000,
        2,
        2400,
        {
            "counts": 0.15,
            "sums": 0.1,
            "quiz": 0.05,
            "framed sums": 0.1,
            "framed quiz": 0.05,
            "framed solution": 0.55,
        },
        vision=False,
    ),
)
"""What is taught to the packaged checkpoint, so that it judges at first sight (see `reading`).

An update of the first stage has about 50 pictures with nine numbers each: with a sixth of them, in
frames and at a third of the rate, a tick in five was still wrong after 450 updates."""

PICTURES = 48
"""Pictures in an update of the stage that has no text."""


def demo_profile(name: str) -> Profile:
    """A packaged profile at the resolution of the demo world."""
    return load_profile(name).model_copy(update={"pixels": load_profile("demo").pixels})
