"""What is wrong with conversation templates, each wrong in one way."""

import re

import pytest

from vrprm_reward import load_profile
from vrprm_reward.errors import ProfileError
from vrprm_reward.scoring.profile import packaged_conversation
from vrprm_reward.scoring.template import check_template, render_template

CHATML = packaged_conversation()

STRIPPING = """\
{%- set last = namespace(query=0) -%}
{%- for m in messages if m.role == 'user' -%}{%- set last.query = loop.index -%}{%- endfor -%}
{%- for m in messages -%}
{%- set text -%}
{%- for part in m.content -%}
{%- if part.type == 'text' -%}{{ part.text }}{%- else -%}<|vision_start|><|image_pad|><|vision_end|>
{%- endif -%}
{%- endfor -%}
{%- endset -%}
{%- if m.role == 'assistant' -%}
{%- if '</think>' in text -%}{%- set text = text.split('</think>')[-1].lstrip() -%}{%- endif -%}
{{ '<|im_start|>assistant\\n' }}
{%- if loop.last -%}{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}
{{ text + '<|im_end|>\\n' }}
{%- else -%}
{{ '<|im_start|>' + m.role + '\\n' + text + '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n<think>\\n' }}{%- endif -%}
"""
"""As published templates of thinking models: earlier thinking is stripped, `<think>` is opened."""


def changed(old: str, new: str) -> str:
    assert CHATML.count(old) == 1
    return CHATML.replace(old, new)


def test_the_packaged_template_is_fine_whatever_the_delimiters_of_thinking():
    assert check_template(CHATML) == []
    assert check_template(CHATML, ("<reason>", "</reason>")) == []


def test_a_template_of_a_thinking_model_strips_opens_and_cannot_continue():
    assert check_template(STRIPPING) == [
        "it deletes thinking in earlier assistant turns; they must come through unchanged",
        "it writes <think> itself when it opens an assistant turn: verdicts would be read inside "
        "thinking",
        "an assistant message cannot be continued: the template changes what is written",
        "it writes <think> before an assistant message that is continued",
    ]


PARTS = "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
WRONG = {
    "not Jinja": ("{% if %}", "fails on an ordinary conversation: not valid Jinja: .*line 1"),
    "undefined": ("{{ messages.x.y }}", "fails on an ordinary conversation: UndefinedError"),
    "refusing": ("{{ raise_exception('no system turn') }}", "no system turn"),
    "outside the sandbox": ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    "images dropped": (changed(PARTS, ""), "drops images"),
    "one image per turn": (
        changed(PARTS, "{%- if not loop.index0 > 1 -%}" + PARTS + "{%- endif -%}"),
        "drops images|not all are marked alike",
    ),
    "delimiters dropped": (
        changed("{{ part.text }}", "{{ part.text.replace('<think>', '') }}"),
        "changes the delimiters of thinking",
    ),
    "trimming": (changed("{{ part.text }}", "{{ part.text | trim }}"), "changes white space"),
    "no system turn": (
        "{%- set messages = messages[1:] -%}" + CHATML,
        "leaves out a system message",
    ),
    "turned round": (CHATML.replace("in messages", "in messages | reverse"), "their order"),
    "list printed": (
        "{% for m in messages %}<|a|>{{ m.role }}{{ m.content }}<|b|>{% endfor %}",
        "prints a message's list of parts",
    ),
    "no generation prompt": (changed("add_generation_prompt", "false"), "opens no assistant turn"),
    "thinking opened": (
        changed("{{ '<|im_start|>assistant\\n' }}", "{{ '<|im_start|>assistant\\n<think>\\n' }}"),
        "writes <think> itself",
    ),
    "thinking closed": (
        changed(
            "{{ '<|im_start|>assistant\\n' }}",
            "{{ '<|im_start|>assistant\\n</think>' }}",
        ),
        "writes </think> itself",
    ),
    "unmarked turns": (
        changed("{{ '<|im_end|>\\n' }}", "{%- if loop.index < 5 -%}<|im_end|>\n{% endif -%}"),
        "turns are marked unlike",
    ),
}


@pytest.mark.parametrize(("template", "problem"), WRONG.values(), ids=WRONG.keys())
def test_each_kind_of_wrong_template_is_named(template, problem):
    assert any(re.search(problem, found) for found in check_template(template))


def test_templates_are_applied_as_transformers_does():
    template = (
        "{%- for m in messages %}\n{%- if m.role == 'stop' %}{% break %}{% endif %}\n"
        "{% generation %}{{ m.content | tojson }}{% endgeneration %}\n"
        "{%- endfor %}{{ strftime_now('%Y')[:2] }}"
    )
    messages = [{"role": "user", "content": "é<"}, {"role": "stop", "content": "no"}]
    assert render_template(template, messages) == '"é<"20'
    with pytest.raises(ProfileError, match="ZeroDivisionError"):
        render_template("{{ 1 / 0 }}", [])


def test_the_rendering_equals_that_of_transformers():
    transformers = pytest.importorskip("transformers.utils.chat_template_utils")
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": [{"type": "text", "text": "U\n"}, {"type": "image"}]},
        {"role": "assistant", "content": "<think>t</think>"},
        {"role": "user", "content": "V"},
    ]
    for template in (load_profile("demo").conversation, STRIPPING):
        theirs = transformers.render_jinja_template(
            conversations=[messages], chat_template=template, add_generation_prompt=True
        )
        ours = render_template(template, messages, add_generation_prompt=True)
        assert ours == (theirs[0] if isinstance(theirs, tuple) else theirs)[0]
