import asyncio
import json
from pathlib import Path

import pytest

from vrprm_reward.errors import RowError
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.fields import Fields
from vrprm_reward.rewards.outcome import load_outcome
from vrprm_reward.sampling.candidates import ProblemRow, compare_answers, problem_row


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"not looked into")
    return tmp_path


def read(folder: Path, **values: object) -> ProblemRow:
    row = {"question": "?", "images": "a.png", **values}
    return problem_row(Fields(json.loads(json.dumps(row)), 3), ImageSettings(root=folder))


def test_candidates_are_texts_or_objects_and_do_not_know_the_reference(folder: Path) -> None:
    row = read(
        folder,
        candidates=["One.", {"response": "A. B.", "steps": ["B."]}, {"steps": ["C.", "D."]}],
        answer="3",
    )
    assert row.problem.reference_answer == "3"
    assert [r.response for r in row.rollouts] == ["One.", "A. B.", "C.\n\nD."]
    assert [r.steps and len(r.steps) for r in row.rollouts] == [None, 1, 2]
    assert all(r.problem.reference_answer is None for r in row.rollouts)


@pytest.mark.parametrize(
    ("values", "field", "said"),
    [
        ({}, "candidates", "missing"),
        ({"candidates": []}, "candidates", "at least one"),
        ({"candidates": "One."}, "candidates", "a string: give a list"),
        ({"responses": ["One.", 3]}, "responses[1]", "a number: give a string"),
        ({"candidates": [{}]}, "candidates[0].response", "missing"),
        ({"candidates": [{"steps": "x"}]}, "candidates[0].steps", "give a list of texts"),
        ({"candidates": [{"steps": ["a", " "]}]}, "candidates[0].steps", "blank"),
        ({"candidates": [{"response": "a", "steps": []}]}, "candidates[0].steps", "empty though"),
        ({"candidates": ["x"], "reference_answer": 3}, "reference_answer", "give a string"),
    ],
)
def test_a_bad_row_is_refused_with_its_field(
    folder: Path, values: dict[str, object], field: str, said: str
) -> None:
    with pytest.raises(RowError, match=said) as caught:
        read(folder, **values)
    assert caught.value.field == field


def answers(row: ProblemRow, outcome: str):
    check = load_outcome(outcome)
    try:
        return asyncio.run(compare_answers(row, check))
    finally:
        getattr(check, "close", lambda: None)()


RESPONSES = [
    "The answer is 1/2.",
    "I do not know",
    r"\boxed{0.5}",
    "The answer is 3",
    "answer: 1/2",
]


def test_equal_answers_have_equal_votes_and_are_held_to_the_reference(folder: Path) -> None:
    found = answers(read(folder, candidates=RESPONSES, answer=r"\frac{1}{2}"), "math")
    assert found.texts == ("1/2.", None, "0.5", "3", "1/2")
    assert found.votes == (0, None, 0, 1, 0)
    assert found.right == (True, False, True, False, True)


@pytest.mark.parametrize(
    "order", [("50\\%", "0.5", "50"), ("0.5", "50\\%", "50"), ("50", "0.5", "50\\%")]
)
def test_a_percentage_has_the_votes_of_its_share_in_whatever_order(folder: Path, order) -> None:
    found = answers(
        read(folder, candidates=[rf"\boxed{{{text}}}" for text in order], answer="50"), "math"
    )
    votes = dict(zip(order, found.votes, strict=True))
    assert votes["50\\%"] == votes["0.5"] != votes["50"]


def test_text_alone_tells_fractions_and_decimals_apart(folder: Path) -> None:
    found = answers(read(folder, candidates=RESPONSES, answer="1/2"), "exact")
    assert found.votes == (0, None, 1, 2, 0)
    assert found.right == (True, False, False, False, True)


def test_without_a_reference_it_is_not_known_what_is_right(folder: Path) -> None:
    found = answers(read(folder, candidates=RESPONSES), "exact")
    assert found.right == (None,) * 5
    assert found.votes == (0, None, 1, 2, 0)
