"""What a prompt of verl holds: question, images, ground truth, notes."""

import pytest
from PIL import Image

from vrprm_reward.errors import InputError, MissingImageError
from vrprm_verl.prompt import ground_truth_of, note_of, problem_of, reference_of, why_unreadable

RED = Image.new("RGB", (8, 8), "red")
BLUE = Image.new("RGB", (8, 8), "blue")


def user(*content):
    return {"role": "user", "content": list(content)}


def text(words):
    return {"type": "text", "text": words}


def test_question_and_images_come_from_the_messages_in_their_order():
    messages = [
        {"role": "system", "content": "You reason."},
        user({"type": "image", "image": RED}, text("left, "), {"type": "image", "image": BLUE}),
        user(text("How many?")),
    ]
    problem = problem_of(messages, {}, "3", None)
    assert problem.question == "<image>left, <image>\n\nHow many?"
    assert problem.images == (RED, BLUE)
    assert problem.reference_answer == "3"


@pytest.mark.parametrize(
    ("part", "image"),
    [
        ({"type": "image", "image": RED, "bytes": b"x", "path": None}, RED),
        ({"type": "image", "bytes": b"png", "path": "a.png"}, b"png"),
        ({"type": "image", "image": "a.png"}, "a.png"),
        ({"type": "image", "path": "a.png"}, "a.png"),
        ({"type": "image_url", "image_url": {"url": "data:,x"}}, "data:,x"),
        ({"type": "image_url", "image_url": "data:,x"}, "data:,x"),
    ],
)
def test_every_form_in_which_verl_hands_images_on_is_read(part, image):
    assert problem_of([user(part, text("?"))], {}, None, None).images == (image,)


def test_the_question_may_stand_in_a_column_of_its_own():
    messages = [user({"type": "image", "image": RED}, text("Long instructions."))]
    assert problem_of(messages, {"question": "How many?"}, None, "question").question == "How many?"
    with pytest.raises(InputError, match=r"no question in extra_info\.query"):
        problem_of(messages, {}, None, "query")


def test_a_prompt_without_an_image_is_refused_rather_than_judged_blind():
    with pytest.raises(MissingImageError, match=r"data\.image_key"):
        problem_of([{"role": "user", "content": "How many?"}], {}, None, None)
    with pytest.raises(MissingImageError, match="holds no image"):
        problem_of([user({"type": "image"}, text("?"))], {}, None, None)


def test_videos_are_refused_by_name():
    with pytest.raises(InputError, match="'video'"):
        problem_of([user({"type": "video", "video": "a.mp4"}, text("?"))], {}, None, None)


@pytest.mark.parametrize(
    ("column", "truth", "reference"),
    [
        ({"ground_truth": "48"}, "48", "48"),
        ({"ground_truth": 48}, 48, "48"),
        ({"style": "rule"}, None, None),
        ({"ground_truth": ["48"]}, ["48"], None),
        (None, None, None),
    ],
)
def test_a_reference_is_a_text_or_unknown(column, truth, reference):
    assert ground_truth_of(column) == truth
    assert reference_of(truth) == reference
    assert (why_unreadable(truth, "math") is None) == (reference is not None or truth is None)


def test_a_note_is_read_from_the_first_message_only_if_it_is_one():
    assert note_of([{"role": "user", "content": "?", "vrprm": {"reference": "3"}}]) == {
        "reference": "3"
    }
    assert note_of([{"role": "user", "content": "?", "vrprm": "text"}]) == {}
    assert note_of([]) == {}
