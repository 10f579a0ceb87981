"""verl's reward manager under load: does scoring overlap, and how long does it hold verl's loop up?

    python -m benchmarks.verl_rows [--rollouts 64] [--pixels 1000] [--url URL]

in an environment with verl 0.9, with PYTHONPATH=.:adapters. Without a URL a stub server answers
after a fixed time, so that what is measured is the manager. The longest stall is how much later
than asked a task of verl's event loop that sleeps 5 ms at a time was woken; on a machine that does
other things it is not 0 with nothing to do either.
"""

import argparse
import asyncio
import http.server
import json
import multiprocessing
import time
from statistics import median
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

STUB_SECONDS = 0.5
IDLE_SECONDS = 10.0


class Stub(http.server.BaseHTTPRequestHandler):
    """Answers every rollout with 0.5 for each step, after a while."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(STUB_SECONDS)
        scores = [
            {"status": "scored", "p_correct": [0.5] * len(r["steps"]), "steps": r["steps"]}
            for r in asked["rollouts"]
        ]
        body = json.dumps({"scores": scores}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def serve_stub(port: Any) -> None:
    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Stub)
    port.value = server.server_address[1]
    server.serve_forever()


def manager_for(url: str) -> Any:
    """The manager as verl's reward workers make it, with the demo's tokenizer for the policy's."""
    from pathlib import Path

    import verl
    from verl.utils import hf_tokenizer

    from vrprm_reward.process_reward import DEMO_FOLDER
    from vrprm_verl.reward import VRPRMRewardManager

    with initialize_config_dir(
        str(Path(verl.__file__).parent / "trainer/config"), version_base=None
    ):
        config = compose(
            "ppo_trainer",
            overrides=[
                "reward.reward_model.rollout.name=vllm",
                f"+reward.vrprm.url={url}",
                "+reward.vrprm.outcome=exact",
            ],
        )
    tokenizer = hf_tokenizer(str(DEMO_FOLDER))

    async def made() -> Any:
        return VRPRMRewardManager(config, tokenizer)

    return asyncio.run(made()), tokenizer


def samples(count: int, pixels: int, steps: int, tokenizer: Any) -> list[Any]:
    """Rollouts as verl's reward workers get them, no two alike."""
    from tensordict import TensorDict
    from verl import DataProto

    found = []
    rng = np.random.default_rng(0)
    for index in range(count):
        texts = [f"The number of red shapes is {k % 3} of {index}." for k in range(steps)]
        ids = torch.tensor([tokenizer.encode("\n\n".join(texts), add_special_tokens=False)])
        noise = rng.integers(0, 255, (pixels, pixels, 3), dtype=np.uint8)
        message = {
            "role": "user",
            "content": [
                {"type": "image", "image": Image.fromarray(noise)},
                {"type": "text", "text": "How many red shapes are there?"},
            ],
        }
        fields = {"raw_prompt": [message], "reward_model": {"ground_truth": "3"}, "extra_info": {}}
        arrays = {}
        for name, value in fields.items():
            arrays[name] = np.empty(1, dtype=object)
            arrays[name][0] = value
        batch = TensorDict({"responses": ids, "attention_mask": torch.ones_like(ids)}, batch_size=1)
        found.append(DataProto(batch=batch, non_tensor_batch=arrays))
    return found


async def longest_stall(until: asyncio.Event) -> float:
    worst = 0.0
    while not until.is_set():
        asked = time.perf_counter()
        await asyncio.sleep(0.005)
        worst = max(worst, time.perf_counter() - asked - 0.005)
    return worst


async def measure(manager: Any, rows: list[Any]) -> dict[str, float]:
    single = []
    for row in rows[:8]:
        started = time.perf_counter()
        await manager.run_single(row)
        single.append(time.perf_counter() - started)
    idle = asyncio.Event()
    control = asyncio.create_task(longest_stall(idle))
    await asyncio.sleep(IDLE_SECONDS)
    idle.set()
    done = asyncio.Event()
    stall = asyncio.create_task(longest_stall(done))
    await asyncio.sleep(0.05)
    started = time.perf_counter()
    results = await asyncio.gather(*(manager.run_single(row) for row in rows))
    seconds = time.perf_counter() - started
    done.set()
    masked = sum(result["reward_extra_info"]["vrprm_masked"] for result in results)
    return {
        "rollouts": len(rows),
        "masked": masked,
        "single call, median s": median(single),
        "sum of single calls, s": median(single) * len(rows),
        "batch, s": seconds,
        "longest stall of verl's loop, ms": 1000 * await stall,
        "the same with nothing to do, ms": 1000 * await control,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=64)
    parser.add_argument("--pixels", type=int, default=1000, help="side of each image")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--url", help="a running vrprm-reward serve; without it, a stub")
    options = parser.parse_args()
    port = multiprocessing.Value("i", 0)
    stub = multiprocessing.Process(target=serve_stub, args=(port,), daemon=True)
    url = options.url
    if url is None:
        stub.start()
        while port.value == 0:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{port.value}"
    manager, tokenizer = manager_for(url)
    rows = samples(options.rollouts, options.pixels, options.steps, tokenizer)
    for name, value in asyncio.run(measure(manager, rows)).items():
        print(f"{name:36} {value:10.3f}")


if __name__ == "__main__":
    main()
