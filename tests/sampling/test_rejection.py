import asyncio
from collections.abc import Callable

import pytest
from PIL import Image

from benchmarks.world_policy import NoisySolver, OracleReward, tasks
from vrprm_reward.errors import InputError
from vrprm_reward.jobs.journal import Journal
from vrprm_reward.jobs.kept import KeptReward
from vrprm_reward.sampling.kept_policy import KeptPolicy
from vrprm_reward.sampling.policy import Continuation
from vrprm_reward.sampling.rejection import Found, SearchSettings, search
from vrprm_reward.sampling.training_rows import conversations, labelled_steps, step_pairs
from vrprm_reward.types import Problem, ProcessScore, Rollout, Usage

PROBLEM = Problem(question="How many?", images=(Image.new("RGB", (8, 8)),), reference_answer="7")


class Script:
    """A policy that proposes from lists, by the number of steps there are; `.` ends a response."""

    identity = "script"

    def __init__(self, *places: list[str]) -> None:
        self.places = places
        self.asked: list[tuple[tuple[str, ...], int]] = []
        self.used = [0] * len(places)

    async def propose(
        self, problem: Problem, prefix: tuple[str, ...], n: int, *, seed: int
    ) -> list[Continuation]:
        assert problem.reference_answer is None
        self.asked.append((prefix, n))
        place, begin = self.places[len(prefix)], self.used[len(prefix)]
        self.used[len(prefix)] += n
        texts = [place[(begin + k) % len(place)] for k in range(n)]
        return [Continuation(t.rstrip("."), finished=t.endswith("."), tokens=10) for t in texts]


class ByNumber:
    """A step says its own probability in percent; `?` cannot be scored."""

    def __init__(self) -> None:
        self.rollouts: list[Rollout] = []

    def score(self, rollouts):
        raise NotImplementedError

    async def ascore(self, rollouts):
        self.rollouts += rollouts
        return [self._score(rollout) for rollout in rollouts]

    def _score(self, rollout: Rollout) -> ProcessScore:
        assert rollout.problem.reference_answer is None
        steps = rollout.steps or ()
        if "?" in rollout.response:
            return ProcessScore(status="unscored_ours", reason="engine", detail="It is down.")
        return ProcessScore(
            status="scored",
            steps=steps,
            p_correct=tuple(int(step.text.split()[-1]) / 100 for step in steps),
            usage=Usage(prompt_tokens=5, generated_tokens=1, requests=1),
        )


def run(policy: object, reward: object | None = None, **settings: object) -> Found:
    return asyncio.run(
        search(PROBLEM, policy, reward or ByNumber(), SearchSettings(**settings))  # type: ignore[arg-type]
    )


class TestSearching:
    def test_the_best_accepted_step_goes_on_and_the_others_are_judged_in_its_context(self) -> None:
        reward = ByNumber()
        found = run(Script(["a 60", "b 90", "c 20"], ["d 80."]), reward, proposals=3)
        (trajectory,) = found.accepted
        assert trajectory.steps == ("b 90", "d 80")
        assert trajectory.p_correct == (0.9, 0.8)
        assert trajectory.response == "b 90\n\nd 80"
        assert [r.response for r in reward.rollouts] == ["a 60", "b 90", "c 20", "b 90\n\nd 80"]
        assert found.spent.policy_tokens == 60
        assert found.spent.reward.prompt_tokens == 20

    def test_the_first_accepted_step_goes_on_when_that_is_wanted(self) -> None:
        found = run(Script(["c 20", "a 60", "b 90"], ["d 80."]), proposals=3, pick="first")
        assert found.accepted[0].steps == ("a 60", "d 80")

    def test_rejected_steps_are_proposed_again_within_the_budget(self) -> None:
        policy = Script(["a 10", "b 20", "c 70"], ["d 80."])
        found = run(policy, proposals=1, tries=3)
        assert found.accepted[0].steps == ("c 70", "d 80")
        assert [n for prefix, n in policy.asked if not prefix] == [1, 1, 1]

    def test_a_budget_that_is_spent_ends_the_trajectory(self) -> None:
        found = run(Script(["a 90"], ["b 10", "c 20", "d 30"]), proposals=1, tries=2)
        assert found.accepted == ()
        (given_up,) = found.trajectories
        assert (given_up.steps, given_up.ended) == (("a 90",), "no_step_accepted")
        assert found.spent.proposals == 3

    def test_a_step_that_is_proposed_again_is_judged_once(self) -> None:
        reward = ByNumber()
        run(Script(["a 10"]), reward, proposals=2, tries=3)
        assert len(reward.rollouts) == 1

    def test_a_trajectory_that_does_not_end_is_given_up(self) -> None:
        found = run(Script(["a 90"], ["b 90"], ["c 90"]), proposals=1, max_steps=2)
        assert [t.ended for t in found.trajectories] == ["too_many_steps"]
        assert found.trajectories[0].steps == ("a 90", "b 90")

    def test_the_response_may_end_behind_an_accepted_step(self) -> None:
        found = run(Script(["a 90"], ["."]), proposals=1)
        assert [(t.steps, t.ended) for t in found.trajectories] == [(("a 90",), "finished")]

    def test_one_end_among_proposals_ends_nothing_as_long_as_a_step_is_accepted(self) -> None:
        places = ["a 90"], ["b 60", ".", "c 80"], ["d 90."]
        found = run(Script(*places), proposals=3)
        assert found.accepted[0].steps == ("a 90", "c 80", "d 90")
        assert [j.text for j in found.choices[1].accepted] == ["c 80", "b 60"]
        assert found.spent.unusable == 0
        most = run(Script(["a 90"], ["b 60", ".", "."]), proposals=3)
        assert most.accepted[0].steps == ("a 90",)
        none = run(Script(["a 90"], ["b 10", ".", "c 20"]), proposals=3)
        assert [(t.steps, t.ended) for t in none.trajectories] == [(("a 90",), "finished")]
        assert [j.text for j in none.choices[1].rejected] == ["b 10", "c 20"]

    def test_with_a_beam_an_end_is_one_way_of_several(self) -> None:
        found = run(Script(["a 90"], ["b 60", ".", "c 80"], ["d 70."]), proposals=3, beam=2)
        assert [t.steps for t in found.accepted] == [("a 90",), ("a 90", "c 80", "d 70")]

    def test_an_empty_response_is_no_trajectory(self) -> None:
        found = run(Script(["."]), proposals=1, tries=2)
        assert found.accepted == ()
        assert found.spent.unusable == 2

    def test_an_unscored_step_is_neither_accepted_nor_rejected(self) -> None:
        found = run(Script(["a ?", "b 30"]), proposals=2, tries=1)
        assert found.spent.unscored == 1
        (choice,) = found.choices
        assert (choice.accepted, [j.text for j in choice.rejected]) == ((), ["b 30"])

    def test_a_beam_follows_several_prefixes_and_keeps_the_best(self) -> None:
        found = run(
            Script(["a 90", "b 70", "c 60"], ["d 80", "e 50"], ["f 90."]), proposals=3, beam=2
        )
        assert [t.steps for t in found.accepted] == [
            ("a 90", "d 80", "f 90"),
            ("b 70", "d 80", "f 90"),
        ]

    def test_lookahead_judges_a_step_by_what_comes_of_it(self) -> None:
        class Fork(Script):
            async def propose(self, problem, prefix, n, *, seed):
                if prefix and prefix[0] == "trap 95":
                    return [Continuation("worse 10", finished=False, tokens=10)] * n
                return await super().propose(problem, prefix, n, seed=seed)

        script = ["trap 95", "fine 70"], ["next 80"], ["end 80."]
        plain = run(Fork(*script), proposals=2)
        assert plain.trajectories[0].steps == ("trap 95",)
        ahead = run(Fork(*script), proposals=2, lookahead=1)
        assert ahead.accepted[0].steps == ("fine 70", "next 80", "end 80")
        assert ahead.accepted[0].p_correct == (0.7, 0.8, 0.8)
        assert ahead.choices[0].rejected[0].p == 0.95
        assert ahead.choices[0].rejected[0].value == 0.1

    @pytest.mark.parametrize(
        "settings",
        [{"proposals": 0}, {"tries": 0}, {"beam": 0}, {"threshold": 1.5}, {"lookahead": -1}],
    )
    def test_settings_that_make_no_sense_are_refused(self, settings: dict[str, float]) -> None:
        with pytest.raises(InputError, match=next(iter(settings))):
            SearchSettings(**settings)  # type: ignore[arg-type]

    def test_an_error_of_the_policy_comes_through(self) -> None:
        class Broken(Script):
            async def propose(self, problem, prefix, n, *, seed):
                raise RuntimeError("down")

        with pytest.raises(RuntimeError, match="down"):
            run(Broken([]))


class TestTrainingRows:
    FOUND = run(Script(["a 60", "b 90", "c 20"], ["d 80."]), proposals=3)

    def test_conversations_have_images_and_the_accepted_response(self) -> None:
        assert list(conversations(PROBLEM, ["a.png"], self.FOUND)) == [
            {
                "messages": [
                    {"role": "user", "content": "<image>How many?"},
                    {"role": "assistant", "content": "b 90\n\nd 80"},
                ],
                "images": ["a.png"],
            }
        ]

    def test_pairs_have_one_prefix_and_an_accepted_and_a_rejected_step(self) -> None:
        (pair,) = step_pairs(PROBLEM, ["a.png"], self.FOUND)
        assert (pair["prefix"], pair["chosen"], pair["rejected"]) == ("", "b 90", "c 20")
        assert (pair["p_chosen"], pair["p_rejected"]) == (0.9, 0.2)
        later = run(Script(["a 90"], ["x 10", "y 80."]), proposals=2)
        (pair,) = step_pairs(PROBLEM, [], later)
        assert pair["prefix"] + pair["chosen"] == "a 90\n\ny 80"

    def test_steps_that_nothing_was_accepted_beside_make_no_pair(self) -> None:
        assert list(step_pairs(PROBLEM, [], run(Script(["a 10"]), tries=1))) == []

    def test_labelled_steps_have_the_shape_of_visualprm400k(self) -> None:
        rows = list(labelled_steps(PROBLEM, ["a.png"], self.FOUND))
        assert rows[0] == {
            "image": ["a.png"],
            "question": "<image>How many?",
            "answer": "7",
            "response": "b 90\n\nd 80",
            "steps_with_score": [{"step": "b 90", "score": 0.9}, {"step": "d 80", "score": 0.8}],
        }
        assert rows[1]["steps_with_score"] == [{"step": "c 20", "score": 0.2}]
        assert len(rows) == 2

    def test_placeholders_that_the_question_has_are_not_doubled(self) -> None:
        problem = PROBLEM.model_copy(update={"question": "<image>\nHow many?"})
        (row,) = conversations(problem, ["a.png"], self.FOUND)
        assert row["messages"][0]["content"] == "<image>\nHow many?"


class TestInTheWorld:
    TASKS = tuple(tasks(12))

    def found(
        self, make: Callable[[], NoisySolver], seed: int = 0, **settings: object
    ) -> list[Found]:
        solver = make()
        reward, rules = OracleReward(solver), SearchSettings(**settings)  # type: ignore[arg-type]

        async def all_() -> list[Found]:
            return [
                await search(task.problem, solver, reward, rules, seed=seed) for task in self.TASKS
            ]

        return asyncio.run(all_())

    def test_with_a_reward_that_is_never_wrong_every_solution_is_right(self) -> None:
        for task, found in zip(
            self.TASKS, self.found(lambda: NoisySolver(self.TASKS)), strict=True
        ):
            (trajectory,) = found.accepted
            assert trajectory.steps == task.truth

    def test_the_same_seed_finds_the_same_and_another_one_something_else(self) -> None:
        noisy = lambda: NoisySolver(self.TASKS, slip=0.5)  # noqa: E731
        assert self.found(noisy) == self.found(noisy)
        assert self.found(noisy) != self.found(noisy, seed=1)

    def test_what_is_kept_is_asked_for_once(self, tmp_path) -> None:
        solver = NoisySolver(self.TASKS)
        counted: list[int] = []

        class Counting:
            identity = solver.identity

            async def propose(self, problem, prefix, n, *, seed):
                counted.append(n)
                return await solver.propose(problem, prefix, n, seed=seed)

        def once() -> Found:
            from vrprm_reward.images import ImageSettings

            with Journal(tmp_path / "journal") as journal:
                policy = KeptPolicy(Counting(), journal, ImageSettings())
                reward = KeptReward(OracleReward(solver), journal, ImageSettings(), "oracle")
                found = asyncio.run(search(self.TASKS[0].problem, policy, reward))
                counted.append(-reward.computed)
                return found

        first = once()
        asked = list(counted)
        counted.clear()
        assert once() == first
        assert asked[:-1]
        assert counted == [0]
