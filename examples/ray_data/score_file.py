"""Score a large JSONL file with several workers, each with a model of its own.

    python examples/ray_data/score_file.py examples/shapes/rollouts.jsonl scores --workers 2

Rows are `{id, question, images, response}`, images relative to the file. The folder `scores` gets
JSONL files with a line for every row: `id`, `status`, `reason`, `p_correct`, `starts`, `ends`.
`--model` may also be a reward server (`http://...`) or a vLLM fleet
(`openai+http://...,http://...`); then the workers only keep it busy.

Needs: pip install 'vrprm-reward[local]' 'ray[data]'
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import ray

from vrprm_reward import Problem, Rollout, load_process_reward
from vrprm_reward.images import ImageSettings


class Scorer:
    """What one worker does; the model is loaded once, when the first batch comes."""

    def __init__(self, model: str, profile: str | None, folder: str) -> None:
        images = ImageSettings(root=Path(folder))
        self._reward = load_process_reward(model, profile=profile, images=images)

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        rollouts = [
            Rollout(
                problem=Problem(question=row.question, images=list(row.images)),
                response=row.response,
            )
            for row in batch.itertuples()
        ]
        # A bad rollout is a row with a reason and never an exception, which would end the job.
        scores = self._reward.score(rollouts)
        columns: dict[str, list[Any]] = {
            "id": list(batch["id"]),
            "status": [score.status for score in scores],
            "reason": [score.reason for score in scores],
            "p_correct": [list(score.p_correct) if score.scored else None for score in scores],
            "starts": [[step.start for step in score.steps] for score in scores],
            "ends": [[step.end for step in score.steps] for score in scores],
        }
        return pd.DataFrame(columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--profile")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of each worker")
    # Not whole cores by default: two workers would leave none of two to the reading of the file.
    parser.add_argument("--cpus", type=float, default=0.5, help="CPUs of each worker")
    parser.add_argument("--batch", type=int, default=64, help="rollouts scored together")
    options = parser.parse_args()
    if options.output.exists():
        parser.error(f"{options.output} exists: choose another folder")
    ray.init(ignore_reinit_error=True, include_dashboard=False)
    source = options.source.resolve()
    rows = ray.data.read_json(str(source), lines=True)
    # Small blocks, so that all workers get some; answers to rows of one problem share its image
    # and its prefix, so a batch keeps them together as they stand in the file.
    rows = rows.repartition(target_num_rows_per_block=options.batch)
    scored = rows.map_batches(
        Scorer,
        fn_constructor_args=(options.model, options.profile, str(source.parent)),
        batch_format="pandas",
        batch_size=options.batch,
        compute=ray.data.ActorPoolStrategy(size=options.workers),
        num_cpus=options.cpus,
        num_gpus=options.gpus,
    )
    scored.write_json(str(options.output.resolve()))
    print(f"{source} -> {options.output}")


if __name__ == "__main__":
    main()
