"""A job as OpenRLHF's is: a driver that starts Ray, and actors in which all the work is done.

`python trainer_job.py ESTIMATOR...` prints what the actors found, as one line of JSON: without an
estimator, only how the executor fared.
"""

import json
import os
import sys

import ray


@ray.remote
class TrainerActor:
    """Where OpenRLHF makes experiences."""

    def advantages(self, estimator):
        import openrlhf.trainer.ppo_utils.experience_maker as module

        from tests.integration.openrlhf.batches import computed, hand_made, options

        return computed(module, options(estimator), hand_made())[0]


@ray.remote
class RolloutActor:
    """Where OpenRLHF's executors live: an asynchronous actor."""

    async def __init__(self):
        from openrlhf.trainer.ray.vllm_engine import _load_agent_executor

        import vrprm_openrlhf.executor

        file = vrprm_openrlhf.executor.__file__.replace("executor.py", "agent.py")
        self.executor = _load_agent_executor(file)

    async def name(self):
        return type(self.executor).__name__

    async def reward(self):
        """What a reward function does when it stops a run."""
        from openrlhf.utils.agent import SingleTurnAgentExecutor

        import vrprm_openrlhf.reward

        file = vrprm_openrlhf.reward.__file__.replace("reward.py", "reward_func.py")
        executor = SingleTurnAgentExecutor(file)
        return await executor._fetch_rewards_via_func(["p r"], ["p "], [""])


def message(call):
    """What a driver is told when an actor fails."""
    try:
        return ray.get(call, timeout=250)
    except ray.exceptions.RayError as error:
        return f"{type(error).__name__}: {error}"


def main():
    # As in openrlhf/cli/train_ppo_ray.py.
    own = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": 2, "include_dashboard": False}
    ray.init(runtime_env={"env_vars": {"TOKENIZERS_PARALLELISM": "true"}}, **own)
    found = {}
    estimators = sys.argv[1:]
    if estimators:
        trainer = TrainerActor.remote()
        found = {name: message(trainer.advantages.remote(name)) for name in estimators}
        ray.kill(trainer)
    rollout = RolloutActor.remote()
    found["executor"] = message(rollout.name.remote())
    if estimators:
        found["reward function"] = message(rollout.reward.remote())
    sys.stdout.write(f"FOUND {json.dumps(found)}\n")


if __name__ == "__main__":
    main()
