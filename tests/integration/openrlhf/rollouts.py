"""Rollouts as OpenRLHF makes them: the real processor and executors, only the sampling scripted."""

import random
from types import SimpleNamespace

from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

from tests.qwen_vocabulary import qwen3_tokenizer
from vrprm_reward import Problem, Rollout
from vrprm_reward.demo.world import random_example

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def processor():
    """Qwen3-VL's processor on its real vocabulary."""
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, merge_size=2),
        tokenizer=qwen3_tokenizer(),
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=TEMPLATE,
    )


class Case:
    """One rollout: a problem of the demo world, and a response to it."""

    def __init__(self, seed, folder, response=None):
        example = random_example(random.Random(seed))
        self.image = example.image
        self.path = str(folder / f"{seed}.png")
        example.image.save(self.path)
        self.question, self.answer = example.question, example.answer
        self.steps = [step.text for step in example.steps]
        self.response = "\n\n".join(self.steps) if response is None else response
        self.label = {"question": self.question, "images": [self.path], "answer": self.answer}

    @property
    def rollout(self):
        """What is scored when it is scored without OpenRLHF."""
        problem = Problem(question=self.question, images=(self.path,), reference_answer=self.answer)
        return Rollout(problem=problem, response=self.response)

    @property
    def prompt(self):
        message = [{"type": "image"}, {"type": "text", "text": self.question}]
        return processor().apply_chat_template(
            [{"role": "user", "content": message}], tokenize=False
        )


class ScriptedEngine:
    """Stands where vLLM stands: answers with the tokens of a text and the end of a turn."""

    def __init__(self, text, ending="<|im_end|>"):
        self.text, self.ending = text, ending
        self.prompts = []

    async def generate(self, prompt_token_ids, sampling_params, multi_modal_data=None):
        self.prompts.append((prompt_token_ids, multi_modal_data))
        ids = qwen3_tokenizer()(self.text + self.ending)["input_ids"]
        output = SimpleNamespace(token_ids=ids, text=self.text, finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[output])


async def execute(executor, case, *, engine=None, **changes):
    """What `RolloutRayActor.generate_responses` does for one sample."""
    arguments = {
        "prompt": case.prompt,
        "label": case.label,
        "sampling_params": SimpleNamespace(max_tokens=512, logprobs=None),
        "max_length": 2048,
        "hf_tokenizer": processor(),
        "llm_engine": engine or ScriptedEngine(case.response),
        "images": [case.path],
    }
    return await executor.execute(**{**arguments, **changes})
