import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrprm_reward.rewards.aggregate import AGGREGATIONS
from vrprm_reward.sampling.best_of_n import (
    ANY,
    MAJORITY,
    PASS,
    RULES,
    WEIGHTED,
    Accuracy,
    Candidates,
    pass_at,
    right_when_choosing,
    sizes,
)


def candidates(*p: tuple[float, ...] | None, votes: tuple[int | None, ...] = ()) -> Candidates:
    return Candidates(p, votes or tuple(range(len(p))))


class TestChoosing:
    THREE = candidates((0.9, 0.9, 0.3), (0.6, 0.7, 0.7), (0.2, 0.8, 0.95), votes=(0, 1, 1))

    @pytest.mark.parametrize(
        ("rule", "index"),
        # means .7, .667, .65; least .3, .6, .2; products .243, .294, .152; last .3, .7, .95;
        # shares before the first error 2/3, 1, 0; votes 1 against 2; weights .7 against 1.317.
        [
            ("mean", 0),
            ("min", 1),
            ("product", 1),
            ("last", 2),
            ("first_error", 1),
            (MAJORITY, 1),
            (WEIGHTED, 1),
        ],
    )
    def test_every_rule_chooses_by_its_own_measure(self, rule: str, index: int) -> None:
        assert self.THREE.choose(rule) == index

    @pytest.mark.parametrize("rule", AGGREGATIONS)
    def test_the_first_of_equals_wins(self, rule: str) -> None:
        assert candidates((0.5,), (0.5,), (0.5,)).choose(rule) == 0

    def test_equal_scores_are_told_apart_by_their_mean(self) -> None:
        assert candidates((0.6, 0.7), (0.6, 0.9)).choose("min") == 1
        assert candidates((0.6, 0.7), (0.9, 0.9)).choose("first_error") == 1

    @pytest.mark.parametrize("rule", AGGREGATIONS)
    def test_an_unscored_candidate_is_never_chosen_even_beside_the_lowest_score(
        self, rule: str
    ) -> None:
        assert candidates(None, (0.0,), None).choose(rule) == 1

    @pytest.mark.parametrize("rule", [*AGGREGATIONS, WEIGHTED])
    def test_where_all_are_unscored_nothing_is_chosen_by_scores(self, rule: str) -> None:
        assert candidates(None, None, votes=(0, 0)).choose(rule) is None

    def test_a_plain_majority_needs_no_scores(self) -> None:
        assert candidates(None, None, None, votes=(0, 1, 1)).choose(MAJORITY) == 1

    def test_the_first_answer_of_equally_many_votes_wins(self) -> None:
        p = ((0.5,),) * 4
        assert candidates(*p, votes=(0, 1, 1, 0)).choose(MAJORITY) == 0
        assert candidates(*p, votes=(0, 1, 1, 0)).choose(WEIGHTED) == 0

    def test_a_weighted_vote_can_overrule_the_majority_and_shows_its_best_member(self) -> None:
        found = candidates((0.1,), (0.1,), (0.4,), (0.5,), votes=(0, 0, 1, 1))
        assert found.choose(WEIGHTED) == 3
        found = candidates((0.1,), (0.1,), (0.9,), votes=(0, 0, 1))
        assert (found.choose(MAJORITY), found.choose(WEIGHTED)) == (0, 2)

    def test_candidates_without_an_answer_do_not_vote(self) -> None:
        found = candidates((0.9,), (0.9,), (0.1,), votes=(None, None, 0))
        assert (found.choose(MAJORITY), found.choose(WEIGHTED)) == (2, 2)
        assert candidates((0.9,), votes=(None,)).choose(MAJORITY) is None

    def test_a_single_candidate_is_chosen_by_every_rule(self) -> None:
        assert [candidates((0.2,)).choose(rule) for rule in RULES] == [0] * len(RULES)

    def test_no_candidates_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one candidate"):
            Candidates((), ())
        with pytest.raises(ValueError, match="for every candidate"):
            Candidates(((0.5,),), (0, 1))


some_p = st.none() | st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]), min_size=1, max_size=3)


@given(st.data(), st.lists(some_p, min_size=1, max_size=6), st.sampled_from(RULES))
def test_accuracy_at_n_is_the_mean_over_all_subsets_of_n(data, p, rule) -> None:
    total = len(p)
    votes = data.draw(st.lists(st.none() | st.integers(0, 2), min_size=total, max_size=total))
    right = data.draw(st.lists(st.booleans(), min_size=total, max_size=total))
    n = data.draw(st.integers(1, total))
    found = Candidates(tuple(None if x is None else tuple(x) for x in p), tuple(votes))
    hits = []
    for subset in itertools.combinations(range(total), n):
        part = Candidates(
            tuple(found.p_correct[i] for i in subset), tuple(found.votes[i] for i in subset)
        )
        chosen = part.choose(rule)
        hits.append(chosen is not None and right[subset[chosen]])
    expected = sum(hits) / len(hits)
    assert right_when_choosing(found, right, rule, n, random.Random(0)) == pytest.approx(expected)


def test_pass_at_n_by_hand() -> None:
    # One right of four: two drawn hold it in 3 of 6 cases.
    assert pass_at([True, False, False, False], 2) == 0.5
    assert pass_at([False] * 3, 3) == 0.0
    assert pass_at([True, True, False], 2) == 1.0


def test_the_sizes_are_powers_of_two_and_all() -> None:
    assert [sizes(n) for n in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


class TestAccuracy:
    def test_two_problems_by_hand(self) -> None:
        found = Accuracy()
        found.add(candidates((0.9,), (0.1,)), [True, False])
        found.add(candidates((0.9,), (0.1,)), [False, True])
        curves = found.curves()
        assert curves["mean"] == {1: 0.5, 2: 0.5}
        assert curves[PASS] == {1: 0.5, 2: 1.0}
        assert curves[ANY] == {1: 0.5, 2: 0.5}

    def test_a_problem_with_fewer_candidates_takes_part_with_all_it_has(self) -> None:
        found = Accuracy()
        found.add(candidates((0.9,)), [True])
        found.add(candidates(*[(0.1,)] * 4), [False, True, True, True])
        curves = found.curves()
        assert list(curves["mean"]) == [1, 2, 4]
        assert curves["mean"][4] == 0.5
        assert curves[PASS] == {1: (1 + 0.75) / 2, 2: 1.0, 4: 1.0}

    def test_every_column_is_exact_where_numbers_of_candidates_differ(self) -> None:
        """Scores ascend, so the last one drawn is chosen; only the last of the eight is right."""
        found = Accuracy()
        found.add(candidates(*[(k / 10,) for k in range(8)]), [False] * 7 + [True])
        found.add(candidates(*[(0.5,)] * 7), [False] * 7)
        assert found.curves()["mean"] == {n: n / 8 / 2 for n in (1, 2, 4, 8)}

    def test_unknown_outcomes_are_left_out_and_counted(self) -> None:
        found = Accuracy()
        found.add(candidates((0.9,), (0.1,)), [None, True])
        assert (found.problems, found.unknown, found.curves()) == (0, 1, {})

    def test_a_problem_without_any_score_counts_as_wrong(self) -> None:
        found = Accuracy()
        found.add(candidates(None, None), [True, True])
        assert found.no_choice == 1
        assert found.curves()["mean"] == {1: 0.0, 2: 0.0}
        assert found.curves()[PASS] == {1: 1.0, 2: 1.0}

    def test_estimated_votes_are_the_same_every_time(self) -> None:
        rng = random.Random(1)
        found = [Accuracy(), Accuracy()]
        for _ in range(3):
            p = tuple((rng.random(),) for _ in range(20))
            votes = tuple(rng.randrange(3) for _ in range(20))
            right = [vote == 0 for vote in votes]
            for each in found:
                each.add(Candidates(p, votes), right)
        assert found[0].curves() == found[1].curves()
