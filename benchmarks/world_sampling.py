"""What step scores are worth for choosing and building answers, with the world's true labels.

    python -m benchmarks.world_sampling [--model demo] [--problems 100] [--candidates 8]
    python -m benchmarks.world_sampling --oracle 0.9

The policy is `world_policy.NoisySolver`. First, its candidates for each problem are scored once:
best of N by every rule, majority, and how often one of N is right. Second, step-level rejection
sampling against plain sampling at equal policy tokens: plain solutions are drawn until they have
cost as many tokens as the search did, and the share of fully right ones (every step right by the
true labels) among what each method hands over is compared.
`--oracle HIT` puts a reward in the model's place that is right about a step with that probability.
"""

import argparse
import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.world_policy import NoisySolver, OracleReward, Task, tasks
from vrprm_reward.commands.best_of_n import accuracy_table
from vrprm_reward.process_reward import ProcessReward, load_process_reward
from vrprm_reward.sampling.best_of_n import ANY, Accuracy, Candidates
from vrprm_reward.sampling.rejection import Found, SearchSettings, search
from vrprm_reward.steps import join_steps
from vrprm_reward.types import Rollout


def measure_best_of_n(
    reward: ProcessReward, solver: NoisySolver, count: int
) -> dict[str, dict[int, float]]:
    """Accuracy of the final answer by rule and N."""
    rng, found = random.Random(11), Accuracy()
    solutions = [[solver.solve(task, rng) for _ in range(count)] for task in solver.tasks]
    rollouts = [
        Rollout(problem=_hidden(task), response=text, steps=steps)
        for task, several in zip(solver.tasks, solutions, strict=True)
        for text, steps in map(join_steps, several)
    ]
    scores = iter(reward.score(rollouts))
    for task, several in zip(solver.tasks, solutions, strict=True):
        answers = [steps[-1] for steps in several]
        kinds = {answer: number for number, answer in enumerate(dict.fromkeys(answers))}
        scored = [next(scores) for _ in several]
        candidates = Candidates(
            tuple(s.p_correct if s.scored else None for s in scored),
            tuple(kinds[answer] for answer in answers),
        )
        found.add(candidates, [answer == task.truth[-1] for answer in answers])
    return found.curves()


def measure_rejection(
    reward: ProcessReward, solver: NoisySolver, settings: SearchSettings
) -> dict[str, Any]:
    """Shares of fully right solutions, of both methods, at equal policy tokens."""

    async def all_() -> list[Found]:
        return list(
            await asyncio.gather(
                *(search(task.problem, solver, reward, settings, seed=5) for task in solver.tasks)
            )
        )

    rng = random.Random(12)
    built = [0, 0]
    plain = [0, 0]
    tokens = [0, 0]
    for task, found in zip(solver.tasks, asyncio.run(all_()), strict=True):
        for trajectory in found.accepted:
            built[0] += all(task.labels(list(trajectory.steps)))
            built[1] += 1
        tokens[0] += found.spent.policy_tokens
        spent = 0
        while spent < found.spent.policy_tokens:
            steps = solver.solve(task, rng)
            spent += sum(len(step.split()) for step in steps)
            plain[0] += all(task.labels(steps))
            plain[1] += 1
        tokens[1] += spent
    return {
        "problems": len(solver.tasks),
        "plain": {
            "solutions": plain[1],
            "fully_right": plain[0],
            "share": plain[0] / max(1, plain[1]),
            "policy_tokens": tokens[1],
        },
        "step_level": {
            "solutions": built[1],
            "fully_right": built[0],
            "share": built[0] / max(1, built[1]),
            "policy_tokens": tokens[0],
            "problems_without": len(solver.tasks) - built[1],
        },
    }


def _hidden(task: Task) -> Any:
    return task.problem.model_copy(update={"reference_answer": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--oracle", type=float, metavar="HIT")
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--proposals", type=int, default=4)
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--slip", type=float, default=0.15)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    solver = NoisySolver(tuple(tasks(options.problems)), slip=options.slip)
    reward: Any
    if options.oracle is None:
        reward, name = load_process_reward(options.model), options.model
    else:
        reward, name = OracleReward(solver, options.oracle), f"oracle {options.oracle}"
    began = time.monotonic()
    curves = measure_best_of_n(reward, solver, options.candidates)
    console = Console()
    title = f"{name}: accuracy of the final answer, {options.problems} problems"
    console.print(accuracy_table(curves, title, list(curves[ANY])))
    settings = SearchSettings(proposals=options.proposals, threshold=options.threshold)
    rejection = measure_rejection(reward, solver, settings)
    for method in ("plain", "step_level"):
        row = rejection[method]
        console.print(
            f"{method.replace('_', '-')}: {row['fully_right']} of {row['solutions']} solutions "
            f"fully right ({row['share']:.3f}), {row['policy_tokens']:,} policy tokens"
        )
    console.print(f"{time.monotonic() - began:.0f} s")
    if options.json is not None:
        options.json.write_text(
            json.dumps({"model": name, "accuracy": curves, "rejection": rejection}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
