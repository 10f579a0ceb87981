"""What the benchmarks share: random checkpoints, cases, the plain clients, and measuring."""

import copy
import dataclasses
import platform
import random
import resource
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from benchmarks.shapes import Shape
from vrprm_reward import load_profile
from vrprm_reward.demo import world
from vrprm_reward.engines.engine import Prompt
from vrprm_reward.engines.local.checkpoint import Checkpoint, load_checkpoint
from vrprm_reward.engines.local.device import pick_device, pick_dtype
from vrprm_reward.engines.local.encode import EncodedPrompt, PromptEncoder
from vrprm_reward.engines.local.engine import LocalEngine
from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.images import FinalImage, PixelLimits, final_pixels
from vrprm_reward.process_reward import DEMO_FOLDER
from vrprm_reward.scoring.frames import FRAMES
from vrprm_reward.scoring.parse import Thought
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.scoring.render import Case

PROFILE = load_profile("two_stage")


def random_checkpoint(shape: Shape) -> Checkpoint:
    """A Qwen3-VL of this shape with random weights, where and in the type an engine would use.

    It has the demo's tokenizer, whose tokens are the first of its vocabulary.
    """
    torch.manual_seed(0)
    demo = load_checkpoint(DEMO_FOLDER, device="cpu")
    tokenizer, token = demo.tokenizer, demo.tokenizer.convert_tokens_to_ids
    demo.image_processor.size = {"shortest_edge": 64 * 64, "longest_edge": 1024 * 1024}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            **shape.text,
            **ends,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config=dict(shape.vision),
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    device = pick_device()
    before = torch.get_default_dtype()
    torch.set_default_dtype(pick_dtype(device))
    try:
        with device:
            model = Qwen3VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    model.eval().requires_grad_(False)
    return Checkpoint(f"random, {shape.name}", model, tokenizer, demo.image_processor)


def twin(checkpoint: Checkpoint) -> Checkpoint:
    """A copy with a model of its own: an engine changes how its model attends."""
    return dataclasses.replace(checkpoint, model=copy.deepcopy(checkpoint.model))


def language_parameters(checkpoint: Checkpoint) -> int:
    """Parameters of the language model."""
    return sum(p.numel() for p in checkpoint.model.model.language_model.parameters())


def cases(
    problems: int, candidates: int, steps: int, *, words_per_step: int = 30, image_px: int = 96
) -> list[Case]:
    """Problems of the demo world with wordy candidate solutions of exactly `steps` steps."""
    rng = random.Random(0)
    sentences = [s.text for _ in range(400) for s in world.random_example(rng).steps]

    def text(words: int) -> str:
        found: list[str] = []
        while len(found) < words:
            found += rng.choice(sentences).split()
        return " ".join(found[:words]) + "."

    made = []
    for _ in range(problems):
        example = world.random_example(rng)
        picture = example.image.resize((image_px, image_px))
        images = final_pixels([picture], PixelLimits())
        question = f"{example.question} {text(60)}"
        for _ in range(candidates):
            solution = tuple(text(words_per_step) for _ in range(steps))
            made.append(Case(question, solution, images))
    return made


@dataclass
class Plain:
    """Transformers as anybody would call it: whole prompts, no keys or values kept."""

    checkpoint: Checkpoint
    encoder: PromptEncoder
    tokens: int = 0
    images: int = 0

    @torch.inference_mode()
    def judge(self, prompts: Sequence[Prompt]) -> list[tuple[float, float]]:
        """Log-probabilities of both verdicts, one padded batch."""
        encoded = [self.encoder.encode(prompt) for prompt in prompts]
        output = self.checkpoint.model(**self._inputs(encoded), logits_to_keep=1, use_cache=False)
        log_p = output.logits[:, -1].log_softmax(-1)[:, list(self.encoder.verdict_ids)]
        return [(l0, l1) for l0, l1 in log_p.tolist()]

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], max_tokens: int) -> list[str]:
        """Greedy text of exactly `max_tokens`, one padded batch."""
        encoded = [self.encoder.encode(prompt) for prompt in prompts]
        inputs = self._inputs(encoded)
        output = self.checkpoint.model.generate(
            **inputs, max_new_tokens=max_tokens, min_new_tokens=max_tokens, do_sample=False
        )
        new = output[:, inputs["input_ids"].shape[1] :]
        self.tokens += new.numel()
        return [self.encoder.tokenizer.decode(row) for row in new]

    def _inputs(self, encoded: Sequence[EncodedPrompt]) -> dict[str, Any]:
        self.checkpoint.model.model.rope_deltas = None
        longest = max(map(len, encoded))
        self.tokens += longest * len(encoded)
        pad = self.encoder.tokenizer.pad_token_id
        ids = torch.tensor([[*[pad] * (longest - len(e)), *e.ids.tolist()] for e in encoded])
        mask = torch.tensor([[0] * (longest - len(e)) + [1] * len(e) for e in encoded])
        ids, mask = ids.to(self._device), mask.to(self._device)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        inputs["mm_token_type_ids"] = ((ids == self.encoder.image_token_id) & (mask == 1)).int()
        images: list[FinalImage] = [image for e in encoded for image in e.images]
        self.images += len(images)
        if images:
            pixels, grid = self.encoder.pixels(images)
            inputs["pixel_values"] = pixels.to(self._device)
            inputs["image_grid_thw"] = grid.to(self._device)
        return inputs

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.checkpoint.model.device
        return device


def plain_client(checkpoint: Checkpoint) -> Plain:
    """A plain client on a checkpoint that nobody else uses."""
    encoder = PromptEncoder(
        checkpoint.tokenizer,
        checkpoint.image_processor,
        template=PROFILE.conversation,
        image_token_id=checkpoint.model.config.image_token_id,
        rope_index=checkpoint.model.model.get_rope_index,
    )
    return Plain(checkpoint, encoder)


def engine_on(checkpoint: Checkpoint, **options: Any) -> LocalEngine:
    """This package's engine, with nothing cached, on a checkpoint that no plain client uses."""
    chosen = LocalOptions(cuda_graphs=True, **options)
    return LocalEngine(checkpoint, template=PROFILE.conversation, options=chosen)


def judge_prompt(case: Case, verdicts: Sequence[int], profile: Profile = PROFILE) -> Prompt:
    """The prompt of the next verdict, with thinking of about 200 tokens."""
    notes = Thought(" ".join(f"{step[:80]} holds." for step in case.steps[:8]))
    return FRAMES[profile.frame].judge(profile, case, notes, verdicts)


def distinct_tokens(encoder: PromptEncoder, prompts: Sequence[Prompt]) -> int:
    """Nodes of the prefix tree of all prompts: what must be computed at the least."""
    nodes: set[int] = set()
    for prompt in prompts:
        state = 0
        for key in encoder.encode(prompt).keys.tolist():
            state = hash((state, key))
            nodes.add(state)
    return len(nodes)


@dataclass(frozen=True)
class Measured:
    """Medians over repeats."""

    seconds: float
    spread: float
    result: Any


def measure(
    run: Callable[..., Any], repeats: int, prepare: Callable[[], Any] | None = None
) -> Measured:
    """Median seconds of `repeats` runs, and (max - min) / median.

    `run` gets what `prepare` makes for it, whose time does not count.
    """
    seconds, result = [], None
    for _ in range(repeats):
        given = () if prepare is None else (prepare(),)
        began = time.monotonic()
        result = run(*given)
        seconds.append(time.monotonic() - began)
    middle = statistics.median(seconds)
    return Measured(middle, (max(seconds) - min(seconds)) / middle, result)


class PeakMemory:
    """Growth of memory while the block runs, in MiB: the GPU's, or what is resident."""

    def __enter__(self) -> "PeakMemory":
        self._on_gpu = torch.cuda.is_available()
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()
            self._start = self._peak = torch.cuda.memory_allocated()
            return self
        self._stop = threading.Event()
        self._start = self._peak = _resident()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._on_gpu:
            self._peak = torch.cuda.max_memory_allocated()
            return
        self._stop.set()
        self._thread.join()

    @property
    def mib(self) -> float:
        return (self._peak - self._start) / 2**20

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self._peak = max(self._peak, _resident())


def where() -> str:
    """The machine, for the head of a table."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
