r"""Make text from a problem or a response safe to show to a judge, changing as little as possible.

A policy under training writes whatever raises its reward, markup of the judge's prompt included.
Only four things are changed, and all else passes byte for byte:

- (a) a string that the tokenizer turns into a reserved token: a space after its first character;
- (b) a line that is nothing but a section marker of the profile: it is put in quotes;
- (c) a line that is nothing but a verdict, `Step 3: 1`, `Step 3: \boxed{1}` or the profile's own
  history line: it is put in quotes;
- (d) the delimiters of thinking, answers and steps: as (a).

Lines are compared as a reader sees them: case, white space, invisible signs, accents and
compatibility forms (full width, mathematical letters, other scripts' digits) make no difference.
What counts is the text as it is rendered: with the number before a step, with the `\boxed{` that
some frames put behind it, and without the `<image>` placeholders that are dropped or become images.

Text is only ever added, never removed, and strings are set apart last, so nothing that is
reserved is left whatever was added before.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol

from vrprm_reward.blank import is_invisible
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.scoring.render import PLACEHOLDER, step_number

DELIMITERS = ("<think>", "</think>", "<answer>", "</answer>", "<step split>")

_BREAKS = "([\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]+)"
_LINE_BREAKS = re.compile(_BREAKS)
_VERDICT = r"step\d+:(?:[01]|\\boxed\{[01]\})"
_COMPOSES_WITH_DELIMITER = "\u0338"
"""Normalised to NFC, this sign and the `>` before it become one character."""


class ShownText(Protocol):
    """What untrusted text becomes before a judge sees it."""

    def text(self, text: str) -> str:
        """Text that stands in a prompt on lines of its own."""
        ...

    def step(self, index: int, text: str) -> str:
        """Text of step `index`, which a prompt shows behind its number."""
        ...

    def generated(self, text: str) -> str:
        """Text the reward model generated, before it is read."""
        ...


class Neutraliser:
    """Applies the four rules for one profile and one tokenizer.

    Args:
        profile: gives the section markers, the form of verdict lines, and how steps are shown.
        added_tokens: strings the tokenizer turns into a reserved token. Those with fewer than two
            visible characters cannot be set apart and are left.
    """

    def __init__(self, profile: Profile, added_tokens: Iterable[str]) -> None:
        self._profile = profile
        rules = profile.think
        thinking = {rules.opening, rules.closing} if rules else set()
        reserved = {*added_tokens, *DELIMITERS, *thinking}
        self._beginnings = _beginnings(reserved)
        self._placeholder, dropped = _placeholder(profile)
        self._in_text = _beginnings(reserved, f"(?:{dropped})*+") if dropped else self._beginnings
        self._markers = {_folded(marker) for marker in profile.sections.markers} - {""}
        self._verdict = re.compile(f"{_VERDICT}|{_history_form(profile)}")

    def text(self, text: str) -> str:
        """Text that stands in a prompt on lines of its own (a question, an answer, thinking)."""
        text = self._quoted(text)
        if self._placeholder:
            text = self._quoted(text, self._placeholder)
        return _set_apart(text, self._in_text)

    def generated(self, text: str) -> str:
        """Text the reward model generated, before it is read.

        Of the delimiters of thinking only the two around its thinking stay what they are. In
        frame `score_json`, whose judgements show this text as it is, forged lines are quoted
        here; the markers and verdicts that the frame asks for are not forged.
        """
        rules = self._profile.think
        if rules is None:
            return _set_apart(text, self._beginnings)
        before, opened, rest = text.partition(rules.opening)
        if not opened:
            before, rest = "", text
        inner, closed, after = rest.partition(rules.closing)
        if not closed:
            inner, after = "", rest
        if self._profile.frame == "score_json":
            marks = self._profile.sections
            head, analysis, lines = after.partition(marks.analysis)
            if not analysis:
                head, lines = "", after
            before = self._quoted(before, own={_folded(marks.preliminary)})
            after = self._quoted(head) + analysis
            after += self._quoted(lines, own={_folded(marks.scores)}, verdicts=False)
            inner = self._quoted(inner)
        before, inner, after = (_set_apart(t, self._beginnings) for t in (before, inner, after))
        return f"{before}{opened}{inner}{closed}{after}"

    def step(self, index: int, text: str) -> str:
        r"""Text of step `index`, which a prompt shows behind its number.

        A step that is a bare verdict would make a verdict line together with its number, and one
        that ends in `Step 5:` would make one together with the `\boxed{` behind it.
        """
        profile = self._profile
        pieces = _LINE_BREAKS.split(text)
        lines = range(0, len(pieces), 2)
        shown = [i for i in lines if pieces[i].strip()] if profile.steps.strip else lines
        first, last = (shown[0], shown[-1]) if shown else (0, 0)
        label = f"Step {step_number(profile, index)}: "
        split = profile.steps.form == "split"
        boxed = profile.frame == "boxed_continuation"
        labelled = (
            not split or profile.frame in ("two_stage", "multi_turn") or (boxed and first < last)
        )
        for i in lines:
            line = pieces[i]
            with_label = f"{label}{line}" if i == first else line
            forged = (
                self._forges(line)
                or (labelled and self._forges(with_label))
                or (boxed and i == last and self._forges(with_label + "\\boxed{0}"))
                or (split and i == first and line.strip().startswith(_COMPOSES_WITH_DELIMITER))
            )
            pieces[i] = f'"{line}"' if forged else line
        return _set_apart("".join(pieces), self._beginnings)

    def _quoted(
        self,
        text: str,
        hidden: str = "",
        *,
        own: Iterable[str] = (),
        verdicts: bool = True,
    ) -> str:
        """Forged lines in quotes. What matches `hidden` is left out of a line, its ends included.

        `own` are folded markers that are no forgery here; without `verdicts`, verdicts are none.
        """
        unseen = re.compile(hidden) if hidden else None
        markers = self._markers.difference(own)
        done, start = [], 0
        ends = re.compile(f"{hidden}|{_BREAKS}" if hidden else _BREAKS).finditer(text)
        for end in [*(match.span(1) for match in ends if match[1]), (len(text), len(text))]:
            line = text[start : end[0]]
            folded = _folded(unseen.sub("", line) if unseen else line)
            forged = folded in markers or (verdicts and self._verdict.fullmatch(folded))
            done += [f'"{line}"' if forged else line, text[end[0] : end[1]]]
            start = end[1]
        return "".join(done)

    def _forges(self, line: str) -> bool:
        folded = _folded(line)
        return folded in self._markers or self._verdict.fullmatch(folded) is not None


def _placeholder(profile: Profile) -> tuple[str, str]:
    """Patterns of what does not come through as text in a question: in all, and without a trace.

    The rest of the first becomes an image.
    """
    if profile.placeholder == "canonical":
        return r"(?i:<\s*image\s*>)", ""
    if profile.images == "inline":
        return PLACEHOLDER, ""
    if profile.placeholder == "drop":
        return f"{PLACEHOLDER}\n?+", f"{PLACEHOLDER}\n?+"
    return "", ""


def _beginnings(tokens: Iterable[str], gap: str = "") -> re.Pattern[str]:
    """Matches the first visible character (and white space before it) of every token.

    What follows is only looked at, so tokens that overlap are all found. `gap` is a pattern that
    may stand between any two characters.
    """
    rests = defaultdict(set)
    for token in tokens:
        if len("".join(token.split())) < 2:
            continue
        cut = len(token) - len(token.lstrip()) + 1
        rests[gap.join(map(re.escape, token[:cut]))].add(gap.join(map(re.escape, token[cut:])))
    heads = (f"{head}(?={gap}(?:{'|'.join(sorted(rest))}))" for head, rest in sorted(rests.items()))
    return re.compile("|".join(heads))


def _set_apart(text: str, beginnings: re.Pattern[str]) -> str:
    """A space after every beginning; again while a space completes a token that has one in it."""
    while (changed := beginnings.sub(r"\g<0> ", text)) != text:
        text = changed
    return text


def _history_form(profile: Profile) -> str:
    """Pattern of the profile's own line about an earlier verdict, folded."""
    number, verdict = 70007, 80008
    line = _folded(profile.judge.history_line.format(number=number, verdict=verdict))
    return re.escape(line).replace(str(number), r"\d+").replace(str(verdict), "[01]")


def _folded(line: str) -> str:
    """A line as a reader sees it, without white space."""
    if not line:
        return line
    if not (line.isascii() and line.isprintable()):
        line = "".join(
            str(unicodedata.decimal(c, c))
            for c in unicodedata.normalize("NFKD", line)
            if not is_invisible(c)
        )
    return "".join(line.split()).casefold()
