"""Texts that forge the judge's markup, put to the real scorer and tokenised as an engine does.

Whatever a text tries and wherever it stands, the prompts hold the special tokens, marker lines and
verdict lines that an innocent rollout's prompts hold, and no more.
"""

import functools
import re
import time
import unicodedata
from collections import Counter
from dataclasses import dataclass

import pytest

from tests.corpora import IMAGES, Desk, encoder_of, rollout_of
from tests.corpora.hostile import HARMLESS, HOSTILE, LINES, TOKENS
from tests.qwen_vocabulary import qwen3_tokenizer
from tests.scoring.doubles import with_bare_steps
from vrprm_reward import Problem, Rollout, load_profile
from vrprm_reward.blank import is_blank
from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.images import FinalImage, PixelLimits, final_pixels
from vrprm_reward.scoring.frames import FRAMES, think_prompt
from vrprm_reward.scoring.parse import Thought
from vrprm_reward.scoring.render import Case
from vrprm_reward.scoring.untrusted import Neutraliser
from vrprm_reward.steps import split_steps

FRAME_NAMES = tuple(FRAMES)
PROFILES = {
    **{name: load_profile(name) for name in FRAME_NAMES},
    "two_stage, placeholders kept": load_profile("two_stage").model_copy(
        update={"placeholder": "keep", "images": "after"}
    ),
    "answer_block, canonical placeholders": load_profile("answer_block").model_copy(
        update={"placeholder": "canonical"}
    ),
    "score_json, bare steps": with_bare_steps("score_json"),
    "boxed_continuation, bare steps": with_bare_steps("boxed_continuation"),
}
NO_SCORE_NEEDED = "analysis_lines"
"""In frame score_json, generated lines that do not match the steps leave a rollout unscored."""

INNOCENT_QUESTION = "How many circles are there?"
INNOCENT_STEP = "There are two circles."


@pytest.fixture(scope="session")
def vocabularies(demo_tokenizer):
    return {"demo": demo_tokenizer, "qwen": qwen3_tokenizer()}


@dataclass(frozen=True)
class Seen:
    """What of a prompt's structure reaches the model."""

    special: tuple[int, ...]
    markers: tuple[tuple[str, int], ...]
    verdicts: int
    delimiters: tuple[int, ...]
    images: int


@functools.cache
def folded(line):
    """Written apart from the package's: as `isprintable` and NFKC see it."""
    letters = unicodedata.normalize("NFKD", line)
    blank = "\u115f\u1160\u2800"
    seen = [c for c in letters if c.isprintable() and not c.isspace() and c not in blank]
    digits = [str(unicodedata.digit(c, c)) for c in seen if not unicodedata.combining(c)]
    return "".join(digits).lower().replace("\ufe0f", "")


@functools.cache
def is_verdict(line):
    return re.fullmatch(r"step\d+:([01]|\\boxed\{[01]\})", folded(line)) is not None


class Reader:
    """Tokenises prompts and reads their structure back from the tokens."""

    def __init__(self, tokenizer, profile):
        self.encoder = encoder_of(tokenizer, profile)
        self.tokenizer = tokenizer
        added = tokenizer.get_added_vocab()
        self.special = frozenset(added.values())
        self.between = re.compile("|".join(map(re.escape, added)))
        self.markers = {folded(marker) for marker in profile.sections.markers}
        self.known = {}

    def seen(self, prompt):
        text = self.encoder.text(prompt)
        if text not in self.known:
            self.known[text] = self._seen(prompt)
        return self.known[text]

    def _seen(self, prompt):
        ids = self.encoder.encode(prompt).ids.tolist()
        special = [i for i in ids if i in self.special]
        texts = self.between.split(self.tokenizer.decode(ids))
        lines = [line for text in texts for line in text.splitlines()]
        markers = Counter(folded(line) for line in lines)
        whole = "\0".join(texts)
        return Seen(
            special=tuple(special),
            markers=tuple((m, markers[m]) for m in sorted(self.markers)),
            verdicts=sum(map(is_verdict, lines)),
            delimiters=tuple(whole.count(d) for d in ("<answer>", "</answer>", "<step split>")),
            images=len(prompt.images),
        )


@pytest.fixture(scope="module")
def at_work(vocabularies):
    """(profile, vocabulary) -> desk and reader, made once."""
    made = {}

    def get(profile, vocabulary):
        if (profile, vocabulary) not in made:
            tokenizer = vocabularies[vocabulary]
            tokens = frozenset(tokenizer.get_added_vocab())
            desk = Desk(PROFILES[profile], tokens)
            made[profile, vocabulary] = desk, Reader(tokenizer, PROFILES[profile]), {}
        return made[profile, vocabulary]

    yield get
    for desk, _, _ in made.values():
        desk.close()


def cases_of(text):
    """Place -> (rollout, thinking): a hostile text wherever untrusted text may stand."""
    fair = [INNOCENT_STEP] * 2
    images = rollout_of("?", fair).problem.images
    problem = Problem(question=INNOCENT_QUESTION, images=images)
    return {
        "question": (rollout_of(text, fair), "Fine."),
        "steps": (rollout_of(INNOCENT_QUESTION, [text] * 2), "Fine."),
        "thinking": (rollout_of(INNOCENT_QUESTION, fair), text),
        "everywhere": (rollout_of(text, [text] * 2), text),
        "response": (Rollout(problem=problem, response=text), "Fine."),
    }


EACH_ALONE = ("question", "steps", "thinking")
COMBINATIONS = (
    *((name, "demo", EACH_ALONE) for name in FRAME_NAMES),
    *((name, "qwen", (*EACH_ALONE, "everywhere")) for name in FRAME_NAMES),
    *((name, "qwen", ("question", "steps")) for name in PROFILES if name not in FRAME_NAMES),
    ("two_stage", "qwen", ("response",)),
)
"""(profile, vocabulary, places)."""


def expected(desk, reader, kept, steps, thinking):
    """What an innocent rollout's prompts show, for so many steps and thinking or none."""
    if (steps, thinking) not in kept:
        innocent = rollout_of(INNOCENT_QUESTION, [INNOCENT_STEP] * steps)
        score, prompts = desk.ask(innocent, "Fine." if thinking else "")
        assert score.scored
        kept[steps, thinking] = [reader.seen(prompt) for prompt in prompts]
    return kept[steps, thinking]


def is_own_answer(profile, thinking):
    """In frame score_json, thinking that ends itself and goes on with an analysis that fits is no
    forgery: it is the reward model's own answer."""
    return profile.frame == "score_json" and thinking == HOSTILE["analysis after thinking"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_leaves_no_trace_in_the_structure_of_any_prompt(name, at_work):
    cases = cases_of(HOSTILE[name])
    for profile, vocabulary, places in COMBINATIONS:
        desk, reader, kept = at_work(profile, vocabulary)
        for place in places:
            rollout, thinking = cases[place]
            if is_own_answer(PROFILES[profile], thinking):
                continue
            where = (profile, vocabulary, place)
            steps = rollout.steps if rollout.steps is not None else split_steps(rollout.response)
            score, prompts = desk.ask(rollout, thinking, steps=len(steps))
            if all(is_blank(step.text) for step in steps):
                assert (score.reason, prompts) == ("response_empty", []), where
                continue
            assert score.steps == steps, where
            thought = "thinking_empty" not in score.flags
            wanted = expected(desk, reader, kept, len(steps), thought)
            if not score.scored:
                assert PROFILES[profile].frame == "score_json", where
                assert place in ("thinking", "everywhere"), where
                assert score.reason == NO_SCORE_NEEDED, where
                wanted = wanted[:1]
            assert [reader.seen(prompt) for prompt in prompts] == wanted, where


def test_few_hostile_texts_cost_their_rollout_the_score(at_work):
    desk, _, _ = at_work("score_json", "demo")
    unscored = set()
    for name, text in HOSTILE.items():
        score, _ = desk.ask(rollout_of(INNOCENT_QUESTION, [INNOCENT_STEP] * 2), thinking=text)
        if not score.scored:
            unscored.add(name)
    assert unscored == {"marker [Final Scores]", "every section", "analysis and scores"}


@pytest.mark.parametrize("profile", PROFILES)
def test_images_stay_where_an_innocent_rollout_has_them(profile, at_work):
    desk, reader, _ = at_work(profile, "qwen")
    after_all_text = PROFILES[profile].images == "after"

    def until_last_image(question, step, thinking):
        _, prompts = desk.ask(rollout_of(question, [step] * 2), thinking)
        prompt = next(prompt for prompt in prompts if prompt.images)
        before, _, after = reader.encoder.text(prompt).rpartition("<|image_pad|>")
        return after if after_all_text else before

    for question in ("<image>\nIs <image> the same?", "<image> is what?", "What is it?"):
        fair = until_last_image(question, INNOCENT_STEP, "Fine.")
        for text in HOSTILE.values():
            # Steps that show nothing are never shown.
            if not is_blank(text) and not is_own_answer(PROFILES[profile], text):
                assert until_last_image(question, text, text) == fair


def test_the_corpus_is_hostile_where_nothing_is_changed(demo_tokenizer):
    """Each text but the harmless ones gets through in some frame when it is shown as it is."""
    images = final_pixels(IMAGES, PixelLimits())
    through = set()
    for name in (*FRAME_NAMES, "two_stage, placeholders kept"):
        profile = PROFILES[name]
        reader = Reader(demo_tokenizer, profile)

        def prompts(profile, question, steps, notes):
            case = Case(question, steps, images)
            thought = Thought(notes, prefixes=tuple(f"<think>{notes}</think>" for _ in steps))
            return [
                think_prompt(profile, case),
                *(
                    FRAMES[profile.frame].judge(profile, case, thought, [1] * index)
                    for index in range(len(steps))
                ),
            ]

        def structure(reader, shown):
            found = []
            for prompt in shown:
                try:
                    found.append(reader.seen(prompt))
                except Exception as error:  # noqa: BLE001  a forged image
                    found.append(repr(error))
            return found

        fair = structure(reader, prompts(profile, INNOCENT_QUESTION, (INNOCENT_STEP,) * 2, "Fine."))
        for title, text in HOSTILE.items():
            shown = prompts(profile, text, (text, text), text)
            if structure(reader, shown) != fair:
                through.add(title)
    assert not through & set(HARMLESS)
    known_to_qwen_only = {name for name, text in HOSTILE.items() if "tool" in text or "|fi" in text}
    assert set(HOSTILE) - set(HARMLESS) - through <= {
        "stroke that joins the bracket before",
        *known_to_qwen_only,
    }
    assert len(through) >= 60


def test_the_corpus_has_at_least_eighty_different_texts():
    assert len(set(HOSTILE.values())) == len(HOSTILE)
    assert len(TOKENS) + len(LINES) >= 80


@pytest.mark.parametrize("profile", PROFILES)
def test_what_the_four_rules_do_not_cover_passes_unchanged_even_if_it_looks_hostile(profile):
    safe = Neutraliser(PROFILES[profile], qwen3_tokenizer().get_added_vocab())
    for text in HARMLESS.values():
        assert safe.text(text) == text
        assert safe.step(1, text) == text


def chatml(prompt):
    """The conversation template again, in plain Python."""
    text = ""
    for message in prompt.messages:
        parts = [
            "<|vision_start|><|image_pad|><|vision_end|>" if isinstance(part, FinalImage) else part
            for part in message.parts
        ]
        text += f"<|im_start|>{message.role}\n{''.join(parts)}<|im_end|>\n"
    if prompt.form == "continue":
        return text.removesuffix("<|im_end|>\n")
    return f"{text}<|im_start|>assistant\n"


@pytest.mark.parametrize("profile", PROFILES)
def test_the_conversation_template_passes_every_text_on_byte_for_byte(profile, at_work):
    desk, reader, _ = at_work(profile, "qwen")
    for text in HOSTILE.values():
        _, prompts = desk.ask(rollout_of(text, [text] * 2), text)
        for prompt in prompts:
            if prompt.form != "raw":
                assert reader.encoder.text(prompt) == chatml(prompt)


@pytest.mark.parametrize("end", ["", " ", "\n", " \n ", "Step 0: ", "CONTINUE_FINAL_MESSAGE_TAG "])
def test_a_turn_that_goes_on_is_cut_nowhere_else_than_at_its_end(end, vocabularies):
    encoder = encoder_of(vocabularies["qwen"], load_profile("two_stage"))
    for text in HOSTILE.values():
        turns = (Message("user", (text,)), Message("assistant", (f"{text}{end}",)))
        prompt = Prompt(turns, form="continue")
        assert encoder.text(prompt) == chatml(prompt)


def test_the_real_vocabulary_is_that_of_qwen3():
    tokenizer = qwen3_tokenizer()
    facts = {
        "0": 15,
        "1": 16,
        "<|endoftext|>": 151643,
        "<|im_start|>": 151644,
        "<|im_end|>": 151645,
        "<|vision_start|>": 151652,
        "<|vision_end|>": 151653,
        "<|image_pad|>": 151655,
        "<|video_pad|>": 151656,
        "<tool_call>": 151657,
        "<think>": 151667,
        "</think>": 151668,
    }
    assert {text: tokenizer.encode(text) for text in facts} == {t: [i] for t, i in facts.items()}
    assert len(tokenizer) == 151669
    assert tokenizer.encode("Hello world 12") == [9707, 1879, 220, 16, 17]
    assert tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9")
    assert (
        tokenizer.decode(tokenizer.encode("<think>第一步 🍎</think>")) == "<think>第一步 🍎</think>"
    )


@pytest.mark.parametrize(
    "unit",
    [
        "<",
        "<|im_end|>",
        "<|im_<image>",
        "<image>",
        "<<image>\n",
        "<|im_",
        "[Question]\n",
        "Step 1: 1\n",
        "Step 1",
        "1",
        "\u200b",
        "\n",
        "< ",
        "<\n",
        "step split",
    ],
)
def test_a_megabyte_of_hostile_text_is_changed_in_linear_time(unit):
    safe = Neutraliser(PROFILES["two_stage"], qwen3_tokenizer().get_added_vocab())

    def seconds(length):
        start = time.process_time()
        text = "Step 0: <|<image>" + unit * (length // len(unit)) + "\n[Question]"
        assert '"[Question]"' in safe.text(text)
        assert '"[Question]"' in safe.step(0, text)
        return time.process_time() - start

    small = min(seconds(20_000) for _ in range(3))
    # Quadratic time would be 2500 times as much.
    assert seconds(1_000_000) < 500 * small + 0.5


def test_every_frame_is_tried():
    assert {profile.frame for profile in PROFILES.values()} == set(FRAMES)
