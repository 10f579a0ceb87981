"""verl 0.9.1 on a CPU: everything is verl's own but for the policy's text generation.

The policy's place is taken by `ScriptedPolicy`, which has the interface of verl's client of its
generation servers. Data set, agent loops, reward loop workers under Ray, TransferQueue and the
trainer's advantage step are verl's.
"""

import asyncio
import contextlib
import io
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import ray
import torch
import verl
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from tests.integration.processes import ROOT
from vrprm_reward.process_reward import DEMO_FOLDER

CONFIG = Path(verl.__file__).parent / "trainer" / "config"

# Without these verl waits for GPUs or for more Ray CPUs than there are.
ON_A_CPU = (
    f"actor_rollout_ref.model.path={DEMO_FOLDER}",
    "+actor_rollout_ref.model.override_config.attn_implementation=eager",
    "actor_rollout_ref.rollout.name=vllm",
    "actor_rollout_ref.rollout.n=2",
    "actor_rollout_ref.rollout.prompt_length=256",
    "actor_rollout_ref.rollout.response_length=128",
    "actor_rollout_ref.rollout.agent.num_workers=1",
    "reward.reward_model.rollout.name=vllm",
    "reward.num_workers=1",
    "data.image_key=images",
    "data.train_batch_size=2",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    "algorithm.use_kl_in_reward=False",
    "trainer.device=cpu",
)

DENSE = ("actor_rollout_ref.rollout.agent.default_agent_loop=vrprm_single_turn_agent",)


def vrprm(url: str, *more: str) -> tuple[str, ...]:
    """The lines that a user writes for a reward server."""
    return (
        "reward.reward_manager.name=vrprm",
        f"+reward.vrprm.url={url}",
        "+reward.vrprm.outcome=exact",
        "+reward.vrprm.steps.part=all",
        "+reward.vrprm.combination=sum",
        "+reward.vrprm.credit=raw",
        *more,
    )


def config_of(*overrides: str) -> DictConfig:
    """verl's real configuration with overrides, as its command line composes it."""
    with initialize_config_dir(str(CONFIG), version_base=None):
        return compose("ppo_trainer", overrides=[*ON_A_CPU, *overrides])


@contextlib.contextmanager
def ray_cluster() -> Iterator[Path]:
    """Ray on this machine; the folder of its logs. Workers import the tree that the tests do."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "adapters"), os.environ.get("PYTHONPATH", "")])
    environment = {
        "PYTHONPATH": path,
        "VERL_USE_EXTERNAL_MODULES": "vrprm_verl",
        "OMP_NUM_THREADS": "1",
        "TRANSFER_QUEUE_ENABLE": "1",
    }
    context = ray.init(
        num_cpus=16,
        include_dashboard=False,
        runtime_env={"env_vars": environment},
        log_to_driver=True,
    )
    try:
        yield Path(context.address_info["session_dir"]) / "logs"
    finally:
        ray.shutdown()


class RewardLoops:
    """verl's reward workers, kept from test to test as long as their configuration is the same.

    A worker imports verl for several seconds. verl gives its workers fixed names, so that there can
    be those of one configuration at a time.
    """

    def __init__(self) -> None:
        self._loop: Any = None
        self._made_of: Any = None

    def of(self, config: DictConfig) -> Any:
        """verl's `RewardLoopManager` for a configuration."""
        from verl.experimental.reward_loop import RewardLoopManager

        reward = OmegaConf.to_container(config.reward)
        if self._made_of != reward:
            self.close()
            self._loop = RewardLoopManager(config)
            self._made_of = reward
        return self._loop

    def close(self) -> None:
        """End the workers, and wait until their names are free."""
        workers = self._loop.reward_loop_workers if self._loop else []
        self._loop = self._made_of = None
        for worker in workers:
            ray.kill(worker)
        end = time.monotonic() + 60
        while any(name.startswith("reward_loop_worker") for name in ray.util.list_named_actors()):
            assert time.monotonic() < end, ray.util.list_named_actors()
            time.sleep(0.1)


class ScriptedPolicy:
    """Answers questions with given responses, one after the other, in no matter which order.

    Args:
        responses: for each question, as many responses as it will be asked for.
        gates: a response whose text begins with this is only given once this file is there.
    """

    def __init__(
        self, responses: dict[str, Sequence[str]], gates: dict[str, Path] | None = None
    ) -> None:
        self._responses = responses
        self._gates = gates or {}
        self._count: dict[str, int] = defaultdict(int)
        self._tokenizer: Any = None

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> Any:
        from verl.utils import hf_tokenizer
        from verl.workers.rollout.replica import TokenOutput

        if self._tokenizer is None:
            self._tokenizer = hf_tokenizer(str(DEMO_FOLDER))
        prompt = self._tokenizer.decode(prompt_ids)
        question = next(each for each in self._responses if each in prompt)
        index = self._count[question]
        self._count[question] += 1
        text = self._responses[question][index % len(self._responses[question])]
        for start, gate in self._gates.items():
            while text.startswith(start) and not gate.exists():
                await asyncio.sleep(0.05)
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        ids.append(self._tokenizer.eos_token_id)
        return TokenOutput(
            token_ids=ids,
            extra_fields={"min_global_steps": 0, "max_global_steps": 0},
        )


def write_data(
    path: Path, rows: Sequence[tuple[str, str, Image.Image | None]], split: str = "train"
) -> None:
    """Rows of (question, answer, image) as verl's examples/data_preprocess/geo3k.py writes them."""
    records = []
    for index, (question, answer, image) in enumerate(rows):
        record = {
            "data_source": "shapes",
            "prompt": [{"role": "user", "content": ("<image>" if image else "") + question}],
            "images": [{"bytes": png(image), "path": None}] if image else [],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": answer},
            "extra_info": {"split": split, "index": index, "question": question},
        }
        records.append(record)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)


def png(image: Image.Image) -> bytes:
    """The file of an image."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def prompts_of(config: DictConfig, path: Path) -> dict[str, Any]:
    """One batch of verl's own data set, as its trainers get it from their loader."""
    from torch.utils.data import default_collate  # noqa: F401  verl's collate needs torch's
    from verl.utils import hf_processor, hf_tokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    OmegaConf.set_struct(config, False)
    data = RLHFDataset(
        data_files=str(path),
        tokenizer=hf_tokenizer(str(DEMO_FOLDER)),
        processor=hf_processor(str(DEMO_FOLDER)),
        config=config.data,
    )
    batch: dict[str, Any] = collate_fn([data[index] for index in range(len(data))])
    batch["uid"] = np.array([f"problem{index}" for index in range(len(data))], dtype=object)
    return batch


def padded(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows of different lengths as one tensor with zeros behind."""
    return torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True)
