"""Two vLLM replicas behind a reward server, many clients, and kill -9 of one replica.

    python -m benchmarks.soak_replicas [--rollouts 500] [--clients 64]

Needs the environment of `make integration`; `make soak` runs it there. Writes
`benchmarks/results/soak_replicas.json`. Exit status 0: nothing was lost.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.soak_server import (
    MODEL,
    PATIENCE,
    make_rollouts,
    metric,
    mixed_up,
    patient_clients,
    ready,
    report,
    served,
)
from tests.integration.processes import ServerProcess, exit_when_terminated, vllm
from vrprm_reward.types import Rollout


async def one_killed(
    url: str, dying: ServerProcess, rollouts: list[Rollout], clients: int
) -> dict[str, Any]:
    """Everyone at once; when a third is scored, one replica is killed."""
    await ready(url)
    before = await metric(url, "vrprm_rollouts_total")
    shares = [rollouts[n::clients] for n in range(clients)]
    rewards = patient_clients(url, clients, chunk=4)
    began = time.perf_counter()
    scoring = asyncio.gather(
        *(reward.ascore(share) for reward, share in zip(rewards, shares, strict=True))
    )
    while await metric(url, "vrprm_rollouts_total") - before < len(rollouts) / 3:
        await asyncio.sleep(0.2)
    dying.kill()
    killed_after = time.perf_counter() - began
    answers = await scoring
    seconds = time.perf_counter() - began
    counted = await metric(url, "vrprm_rollouts_total") - before
    for reward in rewards:
        await reward.aclose()
    scores = [score for answer in answers for score in answer]
    return {
        "rollouts": len(rollouts),
        "clients": clients,
        "killed_after_seconds": round(killed_after, 1),
        "seconds": round(seconds, 1),
        "scored": sum(score.scored for score in scores),
        "unscored": dict(Counter(score.reason for score in scores if not score.scored)),
        "lost": len(rollouts) - len(scores),
        "doubled": counted - len(rollouts),
        "mixed_up": sum(mixed_up(s, a) for s, a in zip(shares, answers, strict=True)),
    }


def main() -> int:
    exit_when_terminated()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=500)
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args()
    rollouts = make_rollouts(options.rollouts, seed=2)
    with (
        tempfile.TemporaryDirectory() as folder,
        vllm(Path(folder)) as one,
        vllm(Path(folder)) as two,
    ):
        MODEL.extend(["--upstream", f"{one.url},{two.url}", "--profile", "demo"])
        with served("--queue", "4096", "--score-seconds", str(PATIENCE)) as (_, url):
            found = asyncio.run(one_killed(url, one, rollouts, options.clients))
    print("kill -9", found)
    held = {
        "nothing lost, doubled or mixed up": not (found["lost"] or found["mixed_up"])
        and found["doubled"] == 0,
        "everything scored": found["scored"] == options.rollouts,
    }
    return report("soak_replicas", {"kill": found, "held": held})


if __name__ == "__main__":
    sys.exit(main())
