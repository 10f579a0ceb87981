"""What a conversation template must do, tried out with canaries. Needs jinja2, but no model."""

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from vrprm_reward.errors import MissingExtraError, ProfileError

ChatMessage = Mapping[str, Any]
"""`role`, and `content`: a string, or a list of `{"type": "text", "text": ...}` and
`{"type": "image"}`."""

_GENERATION_TAG = re.compile(r"\{%(-?)\s*(end)?generation\s*(-?)%\}")
_SPECIAL = re.compile(r"<[^<>\s]{1,60}>")
_TAIL = "CANARY-CONTINUED"


def render_template(
    template: str, messages: Sequence[ChatMessage], *, add_generation_prompt: bool = False
) -> str:
    """Apply a template as transformers and the servers do.

    Raises:
        ProfileError: the template is not valid Jinja, or fails on these messages.
        MissingExtraError: jinja2 is not installed.
    """
    try:
        import jinja2
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise MissingExtraError(
            "applying a conversation template needs jinja2: pip install 'vrprm-reward[local]' or "
            "pip install jinja2"
        ) from error

    def refuse(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(
        value, ensure_ascii=False, **options
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    try:
        # A tag of transformers that marks training targets and prints nothing.
        source = _GENERATION_TAG.sub(
            lambda tag: f"{{%{tag[1]} {'endif' if tag[2] else 'if true'} {tag[3]}%}}", template
        )
        return environment.from_string(source).render(
            messages=[dict(message) for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
        )
    except jinja2.TemplateSyntaxError as error:
        raise ProfileError(f"not valid Jinja: {error.message} (line {error.lineno})") from error
    except (
        jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError,
        RecursionError,
    ) as error:  # fmt: skip
        raise ProfileError(f"{type(error).__name__}: {error}") from error


def check_template(template: str, thinking: tuple[str, str] = ("<think>", "</think>")) -> list[str]:
    """What is wrong with a conversation template; empty when it may be used.

    Every message must come through byte for byte and in order, also thinking in earlier turns;
    images must stay at their places; a new assistant turn must open without thinking begun; an
    assistant message must be continuable; every turn must be marked by the same special tokens.

    Args:
        template: Jinja source.
        thinking: opening and closing delimiter of the profile's thinking.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        return [
            *_messages_come_through(template, thinking),
            *_a_turn_is_opened(template, thinking),
            *_a_message_can_go_on(template, thinking),
            *_turns_are_marked_alike(template),
        ]
    except ProfileError as error:
        return [f"the template fails on an ordinary conversation: {error}"]


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _turn(role: str, *texts: str) -> dict[str, Any]:
    """A message whose texts have an image between them."""
    parts = [part for text in texts for part in (_text(text), {"type": "image"})]
    return {"role": role, "content": parts[:-1]}


def _conversation(thinking: tuple[str, str]) -> list[dict[str, Any]]:
    opening, closing = thinking
    return [
        _turn("system", "CANARY-SYSTEM"),
        _turn("user", "\n CANARY-USER-A ", " CANARY-USER-B\n", "\nCANARY-USER-C\n"),
        _turn("assistant", f"{opening}CANARY-THINKING\n{closing}"),
        _turn("user", "CANARY-USER-D\n"),
        _turn("assistant", "1"),
        _turn("user", "CANARY-USER-E"),
    ]


def _messages_come_through(template: str, thinking: tuple[str, str]) -> list[str]:
    """All texts, verbatim and in order, and the images between them."""
    messages = _conversation(thinking)
    whole = render_template(template, messages)
    if "'type': 'text'" in whole:
        return ["it prints a message's list of parts as it is: it must go through the parts"]
    problems: list[str] = []
    end = 0
    for turn in messages:
        for index, part in enumerate(turn["content"][::2]):
            start = whole.find(part["text"], end)
            if start < 0:
                problems.append(_lost(whole, turn["role"], part["text"]))
                continue
            if index and not whole[end:start].strip():
                problems.append("it drops images, or moves them away from their place in the text")
            end = start + len(part["text"])
    if whole.count(thinking[0]) > 1:
        problems.append(f"it writes {thinking[0]} where no message has it")
    return list(dict.fromkeys(problems))


def _lost(whole: str, role: str, text: str) -> str:
    if "CANARY-THINKING" in text:
        what = "changes the delimiters of" if "CANARY-THINKING" in whole else "deletes"
        return f"it {what} thinking in earlier assistant turns; they must come through unchanged"
    if text.strip() in whole and text not in whole:
        return f"it changes white space at the ends of a {role} message"
    return f"it leaves out a {role} message, or changes their order"


def _a_turn_is_opened(template: str, thinking: tuple[str, str]) -> list[str]:
    messages = [_turn("system", "CANARY-SYSTEM"), _turn("user", "CANARY-USER")]
    closed = render_template(template, messages)
    opened = render_template(template, messages, add_generation_prompt=True)
    tail = opened.removeprefix(closed).rpartition("CANARY-USER")[2]
    if opened == closed:
        return ["it opens no assistant turn for add_generation_prompt"]
    if thinking[0] in tail or thinking[1] in tail:
        return [
            f"it writes {thinking[0] if thinking[0] in tail else thinking[1]} itself when it opens "
            "an assistant turn: verdicts would be read inside thinking"
        ]
    return []


def _a_message_can_go_on(template: str, thinking: tuple[str, str]) -> list[str]:
    """As transformers does it: cut after the last message's text, which must stand there whole."""
    opening, closing = thinking
    problems = []
    for begun in (f"{opening}CANARY{closing}\n<answer>\nStep 0: ", '{"Score": [1, '):
        messages = [_turn("user", "CANARY-USER"), _turn("assistant", begun + _TAIL)]
        before, found, _ = render_template(template, messages).rpartition(begun + _TAIL)
        if not found:
            problems.append(
                "an assistant message cannot be continued: the template changes what is written"
            )
        elif opening in before or closing in before:
            problems.append(f"it writes {opening} before an assistant message that is continued")
    return list(dict.fromkeys(problems))


def _turns_are_marked_alike(template: str) -> list[str]:
    """Special tokens grow by the same number with every turn, and with every image."""
    pair = [_turn("user", "CANARY"), _turn("assistant", "1")]
    counts = [_specials(template, pair * number) for number in (1, 2, 3)]
    problems = []
    if counts[2] - counts[1] != counts[1] - counts[0]:
        problems.append(f"1, 2 and 3 turns have {counts} special tokens: turns are marked unlike")
    images = [_specials(template, [_turn("user", *"A" * number)]) for number in (1, 2, 3)]
    if images[2] - images[1] != images[1] - images[0]:
        problems.append(f"0, 1 and 2 images have {images} special tokens: not all are marked alike")
    return problems


def _specials(template: str, messages: Sequence[ChatMessage]) -> int:
    return len(_SPECIAL.findall(render_template(template, messages)))
