"""Requests made up by schemathesis from the OpenAPI description, against a real server."""

import subprocess
import sys
from pathlib import Path

from tests.server.doubles import served_process

TOKEN = "a-good-token"

# Not a plugin of this test run: a process of its own, so that its warnings are not ours.
_COMMAND = Path(sys.executable).with_name("schemathesis")


def test_no_request_made_from_the_description_breaks_the_server(tmp_path):
    with served_process(tokens=[TOKEN], max_body_bytes=2**20) as server:
        done = subprocess.run(
            [
                str(_COMMAND),
                "run",
                f"{server.url}/openapi.json",
                *("--header", f"Authorization: Bearer {TOKEN}"),
                *("--max-examples", "30", "--seed", "1", "--phases", "examples,coverage,fuzzing"),
                # Well-formed text is refused when it holds no image, or labels of another kind.
                *("--exclude-checks", "positive_data_acceptance"),
                "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert server.process.poll() is None
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Traceback" not in server.log
