import random

import pytest

from examples.tiny_rl.demonstrations import Errors, response_of, solution
from examples.tiny_rl.habits import HABITS, habits_of
from examples.tiny_rl.problems import MOVES, Task
from examples.tiny_rl.truth import labels, truth_of
from vrprm_reward.demo import world
from vrprm_reward.demo.questions import Question
from vrprm_reward.demo.scene import Kind
from vrprm_reward.rewards.answers import final_answer


def test_labels_are_those_of_the_world_on_its_own_solutions_corrections_included():
    rng = random.Random(4)
    seen = set()
    for _ in range(600):
        example = world.random_example(rng)
        if example.question_type in ("count", "arithmetic"):
            question = Question(example.question, "", example.scene, (), example.answer)
            steps = [step.text for step in example.steps]
            assert tuple(labels(Task(question, example.image), steps)) == example.labels, steps
            seen |= set(example.errors)
    assert seen == {"misread", "slip", "carry", "unsupported", "recovery"}


@pytest.mark.parametrize(
    "step",
    ["", "\\boxed{1}", "Step 1: 1", "The number of cats is two.", "The answer is a lot.", "Reds!"],
)
def test_what_the_world_does_not_know_is_wrong(some_tasks, step):
    assert labels(some_tasks[0], [step]) == [0]


def test_a_sum_that_builds_on_a_sum_nobody_wrote_is_wrong(some_tasks):
    task = some_tasks[0]
    flawless = solution(task, random.Random(0))
    assert labels(task, flawless) == [1] * len(MOVES)
    assert labels(task, flawless[4:5]) == [0]


def test_right_by_luck_is_right_but_not_sound(some_tasks):
    task = some_tasks[0]
    flawless = solution(task, random.Random(0))
    reds = task.question.scene.count(Kind(colour="red"))
    wrong = f"The number of reds is {'two' if reds != 2 else 'one'}."
    found = truth_of(task, response_of([wrong, wrong, *flawless]))
    assert found.right
    assert not found.sound
    assert found.repeated == 1


def test_a_demonstration_without_errors_is_sound_and_errors_come_at_their_rate(some_tasks):
    rng = random.Random(1)
    wrong = 0
    for _ in range(100):
        for task in some_tasks:
            assert truth_of(task, response_of(solution(task, rng))).sound
            found = truth_of(task, response_of(solution(task, rng, Errors(count=0.5))))
            wrong += 3 - sum(found.labels[:3])
    assert 0.45 < wrong / (3 * 600) < 0.55


def test_a_flawless_solution_shows_no_habit(some_tasks):
    for task in some_tasks:
        assert not any(habits_of(task, response_of(solution(task, random.Random(0)))).values())


@pytest.mark.parametrize("name", HABITS)
def test_a_habit_is_recognised_in_what_it_makes_of_a_solution(some_tasks, name):
    rng = random.Random(2)
    for task in some_tasks:
        for _ in range(10):
            changed = HABITS[name](task, solution(task, rng), rng)
            assert habits_of(task, response_of(changed))[name], changed


def test_a_solution_of_five_steps_skips_one_and_no_mark_states_an_answer(some_tasks):
    task = some_tasks[0]
    steps = solution(task, random.Random(0))
    for place in range(len(steps) - 1):
        shorter = truth_of(task, response_of(steps[:place] + steps[place + 1 :]))
        assert not shorter.complete
        assert habits_of(task, response_of([*steps[:place], *steps[place + 1 :]]))["skip"]
    rng = random.Random(3)
    for _ in range(40):
        marked = response_of(HABITS["mark"](task, steps[:-1], rng))
        assert final_answer(marked) is None, marked


def test_steps_that_nobody_needs_raise_the_share_of_right_steps_but_not_of_the_solution(some_tasks):
    steps = solution(some_tasks[0], random.Random(0))
    half = truth_of(some_tasks[0], response_of(steps[:3]))
    padded = truth_of(some_tasks[0], response_of([steps[0]] * 9 + steps[:3]))
    assert half.solved == padded.solved == 3 / len(set(steps))
    assert truth_of(some_tasks[0], response_of(steps)).solved == 1
