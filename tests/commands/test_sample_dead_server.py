from pathlib import Path
from typing import Any

import pytest

from tests.commands.test_sample import ByQuestion, lines, run, world  # noqa: F401  a fixture
from vrprm_reward.types import ProcessScore


def test_a_search_whose_reward_server_died_goes_on_and_ends_the_same(
    world: ByQuestion,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = world.root / "out"
    answers = world.ascore

    async def dying(rollouts: list[Any]) -> list[ProcessScore]:
        if world.scored > 12:
            gone = ProcessScore(status="unscored_ours", reason="server_unreachable", detail="gone")
            return [gone] * len(rollouts)
        return await answers(rollouts)

    with monkeypatch.context() as patch:
        patch.setattr(world, "ascore", dying)
        result = run(world)
    assert result.exit_code == 2, result.output
    assert "error: the server no longer scores (gone)" in result.stderr
    assert [path.name for path in out.iterdir()] == ["trajectories.jsonl.unfinished"]
    result = run(world)
    assert result.exit_code == 0, result.output
    assert "Going on from" in result.stderr
    found = lines(out / "trajectories.jsonl")
    assert all(row["spent"]["unscored_proposals"] == 0 for row in found)
    assert not Path(out, "trajectories.jsonl.unfinished").exists()
