"""The shared servers are there, and score."""

from contextlib import closing

from vrprm_reward import load_process_reward


def test_vllm_scores_the_demo_world(vllm_server, world_rollouts):
    with closing(load_process_reward(f"openai+{vllm_server.url}/v1", profile="demo")) as reward:
        assert all(score.scored for score in reward.score(world_rollouts))


def test_the_reward_server_scores_the_demo_world(reward_server, world_rollouts):
    with closing(load_process_reward(reward_server.url)) as reward:
        assert all(score.scored for score in reward.score(world_rollouts))
