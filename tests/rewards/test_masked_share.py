import pickle

import pytest

from vrprm_reward.rewards.combine import outcome_reward
from vrprm_reward.rewards.masked_share import FEWEST, WINDOW, MaskedShare
from vrprm_reward.rewards.outcome import Outcome

GOOD = outcome_reward(Outcome(1.0))
MASKED = outcome_reward(Outcome(None, "raised", "ZeroDivisionError"))


def counted(share, *batches):
    """What each batch, so many good and so many masked ones, came out with."""
    return [share.count([GOOD] * good + [MASKED] * masked) for good, masked in batches]


def test_a_share_of_too_few_says_nothing():
    share = MaskedShare(0.0, "limit")
    assert counted(share, *[(0, 1)] * (FEWEST - 1)) == [None] * (FEWEST - 1)
    assert counted(share, (0, 1)) == [
        "16 of the last 16 rollouts could not be scored, more than limit = 0.0 allows; the last "
        "one: outcome_raised: ZeroDivisionError"
    ]


def test_the_limit_itself_is_allowed_and_one_more_is_not():
    share = MaskedShare(0.25, "limit")
    assert counted(share, (12, 4), (3, 0), (0, 1)) == [None] * 3
    (wrong,) = counted(share, (0, 1))
    assert wrong.startswith("6 of the last 21")


def test_a_batch_without_masked_rollouts_stops_nothing():
    # It may be the first after the server was mended.
    share = MaskedShare(0.25, "limit")
    assert counted(share, (0, 8), (8, 0)) == [None, None]


def test_what_was_long_ago_is_forgotten():
    share = MaskedShare(0.25, "limit")
    counted(share, (0, WINDOW), (WINDOW - 1, 0))
    assert counted(share, (0, 1)) == [None]


@pytest.mark.parametrize("masked_last", [True, False])
def test_a_batch_longer_than_the_window_is_looked_at_as_a_whole(masked_last):
    share = MaskedShare(0.5, "limit")
    batch = [GOOD] * 70 + [MASKED] * 60
    assert share.count(batch if masked_last else batch[::-1]) is None
    assert "71 of the last 130" in share.count(batch[11:] + [MASKED] * 11)


def test_a_copy_counts_from_the_beginning():
    share = MaskedShare(0.0, "limit")
    counted(share, (0, FEWEST - 1))
    assert counted(pickle.loads(pickle.dumps(share)), (0, 1)) == [None]
