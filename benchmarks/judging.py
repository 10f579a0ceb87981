"""Judging 16 rollouts of 8 steps against plain clients. `python -m benchmarks.judging`"""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import (
    Measured,
    PeakMemory,
    Plain,
    cases,
    distinct_tokens,
    engine_on,
    judge_prompt,
    language_parameters,
    measure,
    plain_client,
    random_checkpoint,
    twin,
    where,
)
from benchmarks.shapes import ShapeName, chosen
from vrprm_reward.engines.engine import Prompt
from vrprm_reward.engines.local.engine import LocalEngine
from vrprm_reward.scoring.render import Case
from vrprm_reward.scoring.schedule import fixed_point, lockstep, verdict

Scores = list[list[float]]

COLUMNS = (
    "client",
    "seconds",
    "spread",
    "tokens",
    "token work",
    "x (a)",
    "x best plain",
    "speed / token bound",
    "extra MiB",
    "rounds",
    "max |dp|",
    "verdicts differ",
)


def p_of(pair: tuple[float, float]) -> float:
    return 1 / (1 + math.exp(pair[0] - pair[1]))


def naive(client: Plain, asked: list[Case]) -> Scores:
    """(a) One full prompt per step, one rollout after another."""
    found: Scores = []
    for case in asked:
        found.append([])
        for _ in case.steps:
            prompt = judge_prompt(case, [verdict(p) for p in found[-1]])
            found[-1].append(p_of(client.judge([prompt])[0]))
    return found


def batched(client: Plain, asked: list[Case], batch_tokens: int = 4096) -> Scores:
    """(b) Step k of all rollouts at once, full prompts sorted by length, padded."""
    found: Scores = [[] for _ in asked]
    for _ in asked[0].steps:
        prompts = [
            judge_prompt(case, [verdict(p) for p in row])
            for case, row in zip(asked, found, strict=True)
        ]
        lengths = [len(client.encoder.encode(prompt)) for prompt in prompts]
        order = sorted(range(len(asked)), key=lengths.__getitem__)
        while order:
            size = max(1, batch_tokens // lengths[order[-1]])
            rows, order = order[:size], order[size:]
            for row, pair in zip(rows, client.judge([prompts[r] for r in rows]), strict=True):
                found[row].append(p_of(pair))
    return found


def with_engine(
    engine: LocalEngine,
    asked: list[Case],
    schedule: str,
    prompt: Callable[[Case, Sequence[int]], Prompt] = judge_prompt,
    draft: Sequence[int] = (),
) -> tuple[Scores, float]:
    """This package's schedules on this package's engine; also the mean number of rounds."""

    async def one(case: Case) -> tuple[list[float], int]:
        share = object()
        engine.expect(share)

        async def ask(verdicts: list[int]) -> float:
            answer = await engine.judge(prompt(case, verdicts), share=share)
            return p_of((answer.log_p0, answer.log_p1))

        order = lockstep if schedule == "lockstep" else fixed_point
        result = await order(ask, len(case.steps), draft)
        engine.release(share)
        return list(result.p_correct), result.rounds

    async def run() -> list[tuple[list[float], int]]:
        return await asyncio.gather(*(one(case) for case in asked))

    results = asyncio.run(run())
    return [p for p, _ in results], sum(r for _, r in results) / len(results)


def main(
    problems: int = 4,
    candidates: int = 4,
    steps: int = 8,
    repeats: int = 3,
    shape: Annotated[ShapeName, typer.Option(help="small, or 4b for a GPU.")] = "small",
    layers: Annotated[int, typer.Option(help="Of a small one.")] = 13,
    width: Annotated[int, typer.Option(help="Of a small one.")] = 640,
    image_px: int = 96,
    batch_tokens: Annotated[int, typer.Option(help="Padded tokens of a batch of (b).")] = 4096,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Print seconds, ratios, token work, memory, and agreement with the plain client."""
    torch.set_num_threads(threads)
    checkpoint = random_checkpoint(chosen(shape, layers=layers, width=width))
    client = plain_client(twin(checkpoint))
    asked = cases(problems, candidates, steps, image_px=image_px)
    lengths = [
        len(client.encoder.encode(judge_prompt(c, [1] * k))) for c in asked for k in (0, -1 + steps)
    ]
    console = Console(width=150)
    console.print(
        f"{language_parameters(checkpoint) / 1e6:.0f} M language parameters, "
        f"{len(asked)} rollouts x {steps} steps, prompts of {min(lengths)} to {max(lengths)} "
        f"tokens, {where()}, median of {repeats}"
    )
    rows: list[tuple[str, Measured, int, float, float]] = []

    def plain(name: str, run: Callable[[Plain, list[Case]], Scores]) -> None:
        client.tokens = 0
        measured = measure(lambda: run(client, asked), repeats)
        rows.append((name, measured, client.tokens // repeats, 0.0, 0.0))

    plain("(a) naive", naive)
    plain("(b) batched", lambda client, asked: batched(client, asked, batch_tokens))
    oracle = rows[0][1].result
    for schedule in ("lockstep", "fixed_point"):
        pushed, took, memory = [], [], []

        def fresh(engine: LocalEngine, schedule: str = schedule) -> Scores:
            with PeakMemory() as peak:
                found, rounds = with_engine(engine, asked, schedule)
            pushed.append(engine.stats.tokens)  # noqa: B023
            took.append(rounds)  # noqa: B023
            memory.append(peak.mib)  # noqa: B023
            engine.close()
            return found

        measured = measure(fresh, repeats, lambda: engine_on(checkpoint))
        rows.append((schedule, measured, pushed[-1], max(memory), took[-1]))
    prompts = [
        judge_prompt(case, [verdict(p) for p in row[:k]])
        for case, row in zip(asked, oracle, strict=True)
        for k in range(steps)
    ]
    floor = distinct_tokens(client.encoder, prompts)
    table = Table(*COLUMNS)
    best = min(rows[0][1].seconds, rows[1][1].seconds)
    for name, measured, tokens, extra, rounds in rows:
        gap = max(
            abs(p - q)
            for a, b in zip(measured.result, oracle, strict=True)
            for p, q in zip(a, b, strict=True)
        )
        differ = sum(
            verdict(p) != verdict(q) and abs(q - 0.5) > 2.5e-4
            for a, b in zip(measured.result, oracle, strict=True)
            for p, q in zip(a, b, strict=True)
        )
        speed = rows[0][1].seconds / measured.seconds
        bound = rows[0][2] / tokens
        table.add_row(
            name, f"{measured.seconds:.2f}", f"{measured.spread:.0%}", str(tokens),
            f"{tokens / floor:.2f}", f"{speed:.2f}", f"{best / measured.seconds:.2f}",
            f"{speed / bound:.2f}", f"{extra:.0f}", f"{rounds:.2f}", f"{gap:.1e}", str(differ),
        )  # fmt: skip
    console.print(table)
    console.print(f"{floor} distinct tokens; ceiling {rows[0][2] / floor:.2f} x (a)")


if __name__ == "__main__":
    typer.run(main)
