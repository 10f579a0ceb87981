"""A policy small enough for a CPU: the demo model, taught by imitation to write solutions."""

import random

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    Qwen2VLImageProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from vrprm_reward.demo.world import random_example
from vrprm_reward.process_reward import DEMO_FOLDER

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def load_policy():
    """The demo checkpoint and its processor, to be trained as a policy."""
    model = AutoModelForImageTextToText.from_pretrained(DEMO_FOLDER, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER)
    tokenizer.chat_template = TEMPLATE
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor.from_pretrained(DEMO_FOLDER),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=TEMPLATE,
    )
    return model, processor


def conversation(question):
    """The prompt for a question, its image apart."""
    return [{"role": "user", "content": question}]


def warm_up(model, processor, batches, seed=0, size=8):
    """Imitate solutions of the demo world, most of which have planted errors."""
    rng = random.Random(seed)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(batches):
        examples = [random_example(rng) for _ in range(size)]
        inputs = processor(
            text=[
                prompt_text(processor, e.question) + answer_text(e) + "<|im_end|>" for e in examples
            ],
            images=[[e.image] for e in examples],
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        for row, example in zip(labels, examples, strict=True):
            written = len(processor.tokenizer(answer_text(example) + "<|im_end|>")["input_ids"])
            row[: int((row != -100).sum()) - written] = -100
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def answer_text(example):
    """A solution as the policy is to write it: a step per paragraph."""
    return "\n\n".join(step.text for step in example.steps)


def prompt_text(processor, question):
    """The prompt with its image token, up to where the policy begins."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    return processor.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
