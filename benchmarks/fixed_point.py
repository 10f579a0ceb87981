"""Rounds and token work of single demo rollouts. `python -m benchmarks.fixed_point`"""

import statistics
from collections.abc import Sequence
from contextlib import closing
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import distinct_tokens
from benchmarks.judging import with_engine
from vrprm_reward import load_process_reward, load_profile
from vrprm_reward.demo.evaluate import held_out, rollout_of
from vrprm_reward.demo.samples import case_of
from vrprm_reward.engines.engine import Prompt
from vrprm_reward.engines.local.engine import LocalEngine
from vrprm_reward.process_reward import DEMO_FOLDER
from vrprm_reward.scoring.draft import drafted_verdicts
from vrprm_reward.scoring.frames import FRAMES
from vrprm_reward.scoring.parse import Thought
from vrprm_reward.scoring.render import Case
from vrprm_reward.scoring.schedule import verdict

PROFILE = load_profile("demo")
STEPS = range(4, 13)
"""Numbers of steps of the solutions that are asked about."""


def main(
    rollouts: int = 60,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Print rounds and token work of both schedules, one rollout after another."""
    torch.set_num_threads(threads)
    examples = [e for e in held_out(rollouts * 3) if len(e.steps) in STEPS][:rollouts]
    with closing(load_process_reward("demo")) as reward:
        scores = reward.score([rollout_of(example) for example in examples])
    table = Table("schedule", "mean rounds", "most", "token work", "verdicts differ")
    wanted: list[list[int]] = []
    for name in ("lockstep", "fixed_point", "fixed_point, drafted by the thinking"):
        schedule = name.partition(",")[0]
        engine = LocalEngine.load(DEMO_FOLDER, template=PROFILE.conversation)
        rounds: list[float] = []
        found: list[list[int]] = []
        asked: list[Prompt] = []
        for example, score in zip(examples, scores, strict=True):
            thought = Thought(score.thinking or "")

            def prompt(case: Case, verdicts: Sequence[int], thought: Thought = thought) -> Prompt:
                return FRAMES[PROFILE.frame].judge(PROFILE, case, thought, verdicts)

            case = case_of(example, PROFILE)
            first = PROFILE.steps.first_number
            draft = drafted_verdicts(thought.text, len(case.steps), first) if "," in name else ()
            p_correct, took = with_engine(engine, [case], schedule, prompt, draft)
            verdicts = [verdict(p) for p in p_correct[0]]
            asked += [prompt(case, verdicts[:index]) for index in range(len(verdicts))]
            rounds.append(took)
            found.append(verdicts)
        # What rollouts have in common may be kept from one to the next.
        work = engine.stats.tokens / distinct_tokens(engine._encoder, asked)
        engine.close()
        wanted = wanted or found
        pairs = zip(found, wanted, strict=True)
        differ = sum(a != b for x, y in pairs for a, b in zip(x, y, strict=True))
        table.add_row(
            name, f"{statistics.mean(rounds):.2f}", f"{max(rounds):.0f}",
            f"{work:.2f}", str(differ),
        )  # fmt: skip
    steps = statistics.mean(len(example.steps) for example in examples)
    console = Console(width=150)
    console.print(f"{len(examples)} solutions of {steps:.1f} steps on average, demo checkpoint")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
