"""The V0 trainer, with scores of a running reward server."""

from tests.integration.verl.expected import check_batch
from tests.integration.verl.harness import ScriptedPolicy, config_of, prompts_of, vrprm, write_data
from tests.integration.verl.problems import CIRCLES, RED, RESPONSES
from tests.integration.verl.v0 import OVERRIDES, V0Run, rows_of


def test_the_v0_trainer_credits_every_token_by_its_step_and_logs_what_was_scored(
    reward_loops, reward_server, tokenizer, shapes, metrics_patch, tmp_path
):
    write_data(tmp_path / "train.parquet", [(RED, "three", shapes), (CIRCLES, "three", shapes)])
    config = config_of(*OVERRIDES, *vrprm(reward_server.url))
    run = V0Run(config, ScriptedPolicy(RESPONSES), reward_loops.of(config))
    try:
        batch = run.rollout(prompts_of(config, tmp_path / "train.parquet"))
        advantages = run.advantages(batch)
        check_batch(reward_server.url, tokenizer, shapes, rows_of(batch), advantages)
        assert "vrprm_response_mask" not in batch.non_tensor_batch
        assert "vrprm_row" in batch.meta_info["reward_extra_keys"]
        metrics = run.metrics(batch)
        assert (metrics["vrprm/masked_share"], metrics["vrprm/outcome/mean"]) == (0, 0.5)
        assert metrics["vrprm/steps/max"] == 3
    finally:
        run.close()
