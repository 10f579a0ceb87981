"""Score candidate solutions through a reward server, and name the best one.

python examples/serving/score_over_http.py [http://127.0.0.1:8000]

Needs the base install only. The token, if the server wants one, stands in VRPRM_TOKEN. A server
that still loads its model is waited for.
"""

import json
import sys
from pathlib import Path
from statistics import fmean

from vrprm_reward import Problem, Rollout
from vrprm_reward.client import RemoteProcessReward
from vrprm_reward.images import ImageSettings

SHAPES = Path(__file__).parents[1] / "shapes"


def main(url: str = "http://127.0.0.1:8000") -> None:
    lines = (SHAPES / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    rollouts = [
        Rollout(
            problem=Problem(question=row["question"], images=row["images"]),
            response=row["response"],
        )
        for row in rows
    ]
    reward = RemoteProcessReward(url, images=ImageSettings(root=SHAPES))
    means = {}
    for row, score in zip(rows, reward.score(rollouts), strict=True):
        if not score.scored:
            print(f"{row['id']}: {score.status}, {score.reason}: {score.detail}")
            continue
        means[row["id"]] = fmean(score.p_correct)
        print(f"{row['id']}: " + " ".join(f"{p:.2f}" for p in score.p_correct))
    reward.close()
    if len(means) < len(rows):
        sys.exit(1)
    print("best mean:", max(means, key=lambda name: means[name]))


if __name__ == "__main__":
    main(*sys.argv[1:])
