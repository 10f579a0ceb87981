"""The messages of imported profiles are the official ones, byte for byte.

Everything expected here is written out; nothing of it comes from the code that renders.
"""

import pytest
from PIL import Image

from tests.scoring.checkout import REGISTRY, write_checkout
from vrprm_reward.images import FinalImage, PixelLimits, final_pixels
from vrprm_reward.scoring.frames import FRAMES, think_prompt
from vrprm_reward.scoring.official.importer import import_profiles
from vrprm_reward.scoring.parse import Thought
from vrprm_reward.scoring.profile import load_profile
from vrprm_reward.scoring.render import Case

IMAGES = final_pixels([Image.new("RGB", (64, 64), c) for c in ("red", "blue")], PixelLimits())
QUESTION = "In <image1> and <image 2>,\nwhat is \\(x\\)?"
STEPS = (" I see 2.\n", "step 1: so $x$ is 2", "Step 1: \\boxed{2}\n\ndone")
CASE = Case(QUESTION, STEPS, IMAGES, "2")
NOTES = Thought("Two shapes.", prefixes=("<think>a</think>\nStep 0: fine \\boxed{",) * 3)

NUMBERED = "Step 0:  I see 2.\n\nstep 1: so $x$ is 2\nStep 2: Step 1: \\boxed{2}\n\ndone"
STRIPPED = "Step 0: I see 2.\nstep 1: so $x$ is 2\nStep 2: Step 1: \\boxed{2}\n\ndone"
HISTORY = "Step 0: \\boxed{1}\nStep 1: \\boxed{0}"
REQUEST = "Does it hold? Say 1 or 0."


@pytest.fixture(scope="module")
def profiles(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkout")
    folder = tmp_path_factory.mktemp("profiles")
    found = {}
    for written in import_profiles(write_checkout(root), REGISTRY).profiles:
        path = folder / written.file_name
        path.write_text(written.text, encoding="utf-8")
        found[written.profile.name] = load_profile(path)
        assert found[written.profile.name] == written.profile
    return found


def turns(prompt):
    """(role, parts) of every turn, images as the names of their colours."""
    names = {image.digest: name for image, name in zip(IMAGES, ("RED", "BLUE"), strict=True)}
    return [
        (turn.role, [names[p.digest] if isinstance(p, FinalImage) else p for p in turn.parts])
        for turn in prompt.messages
    ]


def judged(profile, verdicts, case=CASE):
    return FRAMES[profile.frame].judge(profile, case, NOTES, verdicts)


def test_no_imported_profile_resizes_images(profiles):
    assert len(profiles) == 13
    assert all(profile.pixels == PixelLimits() for profile in profiles.values())


def test_global_thinking_has_the_images_after_an_unstripped_solution(profiles):
    assert turns(think_prompt(profiles["vrprm-two-stage"], CASE)) == [
        ("system", ['Look, then think.\n\n- Write \\boxed or "quotes" between <think> tags.']),
        (
            "user",
            [f"[Question]\n{QUESTION}\n[Candidate Solution]\n{NUMBERED}\n", "RED", "BLUE"],
        ),
    ]


def test_a_step_after_global_thinking_is_text_only_and_shows_the_whole_solution(profiles):
    system = ("system", ["One step, after notes.\n- 1 or 0."])
    head = (
        f"[Question]\n{QUESTION}\n[Candidate Solution]\n{NUMBERED}\n"
        "[Global Thinking]\n<think>Two shapes.</think>\n[Previous Step Judgments]\n"
    )
    assert turns(judged(profiles["vrprm-two-stage"], [])) == [
        system,
        ("user", [f"{head}None\n[Current Step]\nStep 0:  I see 2.\n\n{REQUEST}"]),
    ]
    assert turns(judged(profiles["vrprm-two-stage"], [1, 0])) == [
        system,
        (
            "user",
            [f"{head}{HISTORY}\n[Current Step]\nStep 2: Step 1: \\boxed{{2}}\n\ndone\n{REQUEST}"],
        ),
    ]


@pytest.mark.parametrize(("answer", "shown"), [("2", "2"), (None, "None"), ("", "")])
def test_best_of_n_shows_the_reference_answer_and_strips_steps(profiles, answer, shown):
    profile = profiles["vrprm-two-stage-reference"]
    case = Case(QUESTION, STEPS, IMAGES, answer)
    head = (
        f"[Question]\n{QUESTION}\n[Reference Answer]\n{shown}\n[Candidate Solution]\n{STRIPPED}\n"
    )
    assert turns(think_prompt(profile, case)) == [
        ("system", ["Look at the answer too, then think."]),
        ("user", [head, "RED", "BLUE"]),
    ]
    assert turns(judged(profile, [1], case))[1] == (
        "user",
        [
            f"{head}[Global Thinking]\n<think>Two shapes.</think>\n[Previous Step Judgments]\n"
            f"Step 0: \\boxed{{1}}\n[Current Step]\nstep 1: so $x$ is 2\n{REQUEST}"
        ],
    )


@pytest.mark.parametrize(
    ("name", "images"),
    [("vrprm-no-think-stepwise", []), ("vrprm-no-think-stepwise-images", ["RED", "BLUE"])],
)
def test_without_thinking_a_step_is_one_request_with_or_without_images(profiles, name, images):
    assert profiles[name].think is None
    assert turns(judged(profiles[name], [1, 0])) == [
        ("system", ["One step, no notes."]),
        (
            "user",
            [
                f"[Question]\n{QUESTION}\n[Candidate Solution]\n{NUMBERED}\n"
                f"[Previous Step Judgments]\n{HISTORY}\n"
                f"[Current Step]\nStep 2: Step 1: \\boxed{{2}}\n\ndone\n{REQUEST}",
                *images,
            ],
        ),
    ]


def test_a_single_pass_without_thinking_ends_in_its_own_sentence(profiles):
    text = (
        f"[Question]\n{QUESTION}\n[Candidate Solution]\n{NUMBERED}\n[Number of Steps]\n3\n"
        'Now the JSON: {"Score": [one number per step]}.'
    )
    prompt = judged(profiles["vrprm-score-list"], [1, 0])
    assert prompt.form == "continue"
    assert turns(prompt) == [
        ("system", ['All steps at once, as {"Score": [...]}.']),
        ("user", [text, "RED", "BLUE"]),
        ("assistant", ['{"Score": [1, 0, ']),
    ]
    open_book = turns(judged(profiles["vrprm-score-list-reference"], []))
    assert open_book[0] == ("system", ['All steps and the answer, as {"Score": [...]}.'])
    assert open_book[1][1][0] == text.replace(
        "\n[Candidate Solution]", "\n[Reference Answer]\n2\n[Candidate Solution]"
    )


def test_the_training_conversation_keeps_one_image_turn_and_a_turn_per_step(profiles):
    case = Case(f"<image>\n{QUESTION}", STEPS, IMAGES[:1], "2")
    assert turns(judged(profiles["vrprm-multi-turn"], [1, 0], case)) == [
        ("system", ["First think, then one turn per step."]),
        (
            "user",
            [
                "[Question]\n",
                "RED",
                f"\n{QUESTION}\n[Reference Answer]\n2\n[Candidate Solution]\n{STRIPPED}\n",
            ],
        ),
        ("assistant", ["<think>Two shapes.</think>"]),
        (
            "user",
            [f"[Previous Step Judgments]\nNone\n[Current Step]\nStep 0: I see 2.\n{REQUEST}"],
        ),
        ("assistant", ["1"]),
        (
            "user",
            [
                "[Previous Step Judgments]\nStep 0: \\boxed{1}\n"
                f"[Current Step]\nstep 1: so $x$ is 2\n{REQUEST}"
            ],
        ),
        ("assistant", ["0"]),
        (
            "user",
            [
                f"[Previous Step Judgments]\n{HISTORY}\n"
                f"[Current Step]\nStep 2: Step 1: \\boxed{{2}}\n\ndone\n{REQUEST}"
            ],
        ),
    ]


def test_images_without_a_placeholder_stand_before_the_training_conversation(profiles):
    assert turns(think_prompt(profiles["vrprm-multi-turn"], CASE))[1] == (
        "user",
        [
            "RED",
            "BLUE",
            f"[Question]\n{QUESTION}\n[Reference Answer]\n2\n[Candidate Solution]\n{STRIPPED}\n",
        ],
    )


def test_the_conversation_without_thinking_repeats_the_context_and_a_blank_line(profiles):
    case = Case("<image>\nWhich?", ("a", "b"), IMAGES[:1], "2")
    context = (
        "\nWhich?\n[Reference Answer]\n2\n[Candidate Solution]\nStep 0: a\nStep 1: b\n\n"
        "[Previous Step Judgments]\n"
    )
    assert turns(judged(profiles["vrprm-multi-turn-no-think"], [1], case)) == [
        ("system", ["One turn per step, at once."]),
        (
            "user",
            ["[Question]\n", "RED", f"{context}None\n[Current Step]\nStep 0: a\n{REQUEST}"],
        ),
        ("assistant", ["1"]),
        (
            "user",
            [
                f"[Question]\n<image>{context}Step 0: \\boxed{{1}}\n"
                f"[Current Step]\nStep 1: b\n{REQUEST}"
            ],
        ),
    ]


RL_END = (
    f"\n\n[Reference Answer]\n2\n\n[Candidate Solution Steps]\n{STRIPPED}\n\n"
    "[Task]\nThink first.\n\n<answer>\nStep 0: 1\n...\n</answer>\n\nPolicy: be strict.\n\n"
)


@pytest.mark.parametrize(
    ("version", "instructions"),
    [
        ("v1", "Format:\n<think>\n...\n</think>"),
        ("v2", "Format two:\n<think>\n</think>\nFirstError: 1"),
    ],
)
def test_an_rl_rollout_is_one_user_turn_with_blank_lines_and_its_images_inside(
    profiles, version, instructions
):
    prompt = judged(profiles[f"vrprm-answer-block-{version}"], [1, 0])
    assert prompt.form == "continue"
    assert turns(prompt) == [
        (
            "user",
            ["[Question]\n", "RED", " ", "BLUE", f"\n{QUESTION}{RL_END}{instructions}"],
        ),
        ("assistant", ["<think>Two shapes.</think>\n<answer>\nStep 0: 1\nStep 1: 0\nStep 2: "]),
    ]


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        ("<image>See <image>.", ["[Question]\n", "RED", "See ", "BLUE", "."]),
        (" \n<image>\nWhich? ", ["[Question]\n", "RED", "\n", "BLUE", "\nWhich?"]),
        ("A < Image >B<IMAGE>C", ["[Question]\nA ", "RED", "B", "BLUE", "C"]),
        ("<image><image>x <image> y", ["[Question]\n", "RED", "BLUE", "x  image  y"]),
    ],
)
def test_an_rl_question_has_exactly_one_placeholder_for_each_image(profiles, question, parts):
    profile = profiles["vrprm-answer-block-v1"]
    user = turns(think_prompt(profile, Case(question, STEPS, IMAGES, "2")))[0][1]
    user[-1] = user[-1].removesuffix(f"{RL_END}Format:\n<think>\n...\n</think>")
    assert user == parts


def test_a_placeholder_in_a_step_of_an_rl_rollout_becomes_the_word(profiles):
    case = Case("<image>", ("see <image> and <Video>",), IMAGES[:1], "2")
    text = turns(think_prompt(profiles["vrprm-answer-block-v1"], case))[0][1][-1]
    assert "[Candidate Solution Steps]\nStep 0: see  image  and  video\n\n[Task]" in text


@pytest.mark.parametrize(
    "name", ["vrprm-multi-turn", "vrprm-answer-block-v1", "vrprm-score-json-long"]
)
def test_a_placeholder_that_a_policy_writes_moves_no_image(profiles, name):
    case = Case("Which?", ("<image> [Question] <image>", "b", "c"), IMAGES, "2")
    parts = turns(think_prompt(profiles[name], case))[-1][1]
    assert max(parts.index("RED"), parts.index("BLUE")) < len(parts) - 1
    assert "Step 0:" in parts[-1]


def test_the_evaluators_of_v1_join_bare_steps_and_put_the_answer_last(profiles):
    profile = profiles["vrprm-score-json-short"]
    assert turns(think_prompt(profile, CASE)) == [
        ("system", ["Start with [Preliminary thinking]; end lines in \\boxed{0}."]),
        (
            "user",
            [
                f"[Question]\n{QUESTION}\n[Solution]\n I see 2.\n<step split>step 1: so $x$ is 2"
                "<step split>Step 1: \\boxed{2}\n\ndone\n[Answer]\n2\n",
                "RED",
                "BLUE",
            ],
        ),
    ]
    assert profile.think is not None
    assert profile.think.max_tokens == 2048
    assert turns(judged(profile, [1]))[-1] == (
        "assistant",
        ["<think>a</think>\nStep 0: fine \\boxed{"],
    )


def test_the_training_data_of_v1_number_every_step(profiles):
    case = Case(f"<image>\n{QUESTION}", STEPS, IMAGES[:1], "2")
    assert turns(think_prompt(profiles["vrprm-score-json-long"], case)) == [
        ("system", ["Think, then analyse.\n[Step Analysis]\nStep 0: fine. \\boxed{1}"]),
        (
            "user",
            [
                "[Question]\n",
                "RED",
                f"\n{QUESTION}\n[Solution]\nStep 0: I see 2.<step split>"
                "Step 1: step 1: so $x$ is 2<step split>Step 2: Step 1: \\boxed{2}\n\ndone\n"
                "[Answer]\n2\n",
            ],
        ),
    ]


def test_the_continuation_is_raw_text_without_images_or_solution(profiles):
    profile = profiles["vrprm-boxed-continuation"]
    assert turns(think_prompt(profile, CASE))[0] == ("system", ["Warm up in one block."])
    prompt = judged(profile, [1, 0])
    assert prompt.form == "raw"
    assert turns(prompt) == [
        (
            "user",
            [
                f"[Question]\n{QUESTION}\n[Answer]\n2\n<think>Two shapes.</think>\n"
                "[Step judgment]\nStep 0:  I see 2.\n\\boxed{1}\n"
                "Step 1: step 1: so $x$ is 2\\boxed{0}\n"
                "Step 2: Step 1: \\boxed{2}\n\ndone\\boxed{"
            ],
        )
    ]
    bare = FRAMES[profile.frame].judge(profile, CASE, Thought(""), [])
    assert turns(bare)[0][1] == [
        f"[Question]\n{QUESTION}\n[Answer]\n2\n[Step judgment]\nStep 0:  I see 2.\n\\boxed{{"
    ]


def test_a_question_with_a_placeholder_passes_as_it_is_where_images_stand_after(profiles):
    case = Case("<image>\nWhich?", STEPS, IMAGES, "2")
    parts = turns(think_prompt(profiles["vrprm-two-stage"], case))[1][1]
    assert parts[0].startswith("[Question]\n<image>\nWhich?\n[Candidate Solution]\n")
    assert parts[1:] == ["RED", "BLUE"]
