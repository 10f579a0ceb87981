"""The draft of verdicts is read off the thinking, and only ever a guess."""

import pytest

from vrprm_reward.scoring.draft import drafted_verdicts


@pytest.mark.parametrize(
    ("thinking", "first", "expected"),
    [
        ("0: reds THREE two no. 0 wrong\n1: greens TWO two yes. 1 right", 0, [0, 1, 1]),
        ("Step 1: the count is correct.\n\nStep 2: 3 + 4 is 8, which is incorrect.", 1, [1, 0, 1]),
        ("**Step 1** is not correct. Step 3 has no mistake, step 2 has a mistake.", 1, [0, 0, 1]),
        ("- 1. Wrong at first sight, but it is right.\n- 2. False", 1, [1, 0, 1]),
        ("Step 7 is wrong. Step 0 is wrong.", 1, [1, 1, 1]),
        ("All is wrong.", 0, [1, 1, 1]),
        ("", 0, [1, 1, 1]),
        ("Step 99999999999999999999 is wrong", 0, [1, 1, 1]),
    ],
)
def test_the_last_opinion_behind_a_steps_number_counts(thinking, first, expected):
    assert drafted_verdicts(thinking, 3, first) == expected
