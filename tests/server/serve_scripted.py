"""A process that serves a `ScriptedReward`: `python -m tests.server.serve_scripted SETTINGS`."""

import json
import sys

from tests.server.doubles import LoadingReward, ScriptedReward
from vrprm_reward.server.run import run_server
from vrprm_reward.server.settings import ServerSettings


def main() -> int:
    values = json.loads(sys.argv[1])
    host = values.pop("host", "127.0.0.1")
    reward = LoadingReward() if values.pop("loading", False) else ScriptedReward()
    settings = ServerSettings(**{"unscored_reward": -1.0, **values})
    return run_server(reward, settings, host=host, port=0, log_level="debug")


if __name__ == "__main__":
    sys.exit(main())
