"""Where thinking and verdicts stand in the prompts of each frame."""

from PIL import Image

from tests.scoring.doubles import shown
from vrprm_reward import load_profile
from vrprm_reward.images import PixelLimits, final_pixels
from vrprm_reward.scoring.frames import FRAMES, think_prompt
from vrprm_reward.scoring.parse import Thought
from vrprm_reward.scoring.render import Case

PROFILE = load_profile("two_stage")
FRAME = FRAMES["two_stage"]
IMAGES = final_pixels([Image.new("RGB", (64, 64))] * 2, PixelLimits())
CASE = Case("How many?", ("I see 2.", "Step 1: so 2.", "step 7: odd"), IMAGES, "2")


def test_the_thinking_request_shows_both_images_the_question_and_numbered_steps():
    assert PROFILE.think is not None
    assert shown(think_prompt(PROFILE, CASE)) == (
        f"system: {PROFILE.think.system}\n"
        "user: <IMAGE><IMAGE>[Question]\nHow many?\n[Candidate Solution]\n"
        "Step 0: I see 2.\nStep 1: so 2.\nStep 2: step 7: odd\n"
    )


def test_a_judgement_is_text_only_and_ends_with_the_request():
    prompt = FRAME.judge(PROFILE, CASE, Thought("It shows 2."), [1, 0])
    assert prompt.images == ()
    assert shown(prompt) == (
        f"system: {PROFILE.judge.system}\n"
        "user: [Question]\nHow many?\n[Candidate Solution]\n"
        "Step 0: I see 2.\nStep 1: so 2.\nStep 2: step 7: odd\n"
        "[Global Thinking]\n<think>It shows 2.</think>\n"
        "[Previous Step Judgments]\nStep 0: \\boxed{1}\nStep 1: \\boxed{0}\n"
        f"[Current Step]\nStep 2: step 7: odd\n{PROFILE.judge.request}"
    )


def test_the_first_judgement_has_no_history():
    text = shown(FRAME.judge(PROFILE, CASE, Thought(""), []))
    assert "[Previous Step Judgments]\nNone\n[Current Step]\nStep 0: I see 2.\n" in text


def test_the_reference_answer_stands_in_the_prompt_only_when_the_profile_says_so():
    assert "[Reference Answer]" not in shown(think_prompt(PROFILE, CASE))
    open_book = PROFILE.model_copy(update={"show_reference": True})
    assert "[Reference Answer]\n2\n[Candidate Solution]" in shown(think_prompt(open_book, CASE))


def test_images_can_stand_after_the_text():
    after = PROFILE.model_copy(update={"images": "after"})
    assert shown(think_prompt(after, CASE)).endswith("odd\n<IMAGE><IMAGE>")


def test_numbering_can_start_at_one():
    steps = PROFILE.steps.model_copy(update={"first_number": 1})
    profile = PROFILE.model_copy(update={"steps": steps})
    text = shown(FRAME.judge(profile, CASE, Thought(""), [1]))
    assert "Step 1: I see 2.\nStep 2: Step 1: so 2." in text
    assert "Step 1: \\boxed{1}\n[Current Step]\nStep 2: Step 1: so 2." in text
