"""Response text -> steps, each with its `[start, end)` characters in the response.

Positions count Unicode code points of the response as it was given: nothing is normalised, so a
response with CRLF line ends keeps them. A step is never blank, has no whitespace around it, and
steps stand in order without overlap.

The policy's own `<think>`, `</think>`, `<answer>` and `</answer>` (exactly so spelt) separate
steps wherever they stand, also in the middle of a line, and are never part of one. The text
between two of them is called a region here. `part` chooses regions; then a rule cuts them.
"""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Literal, Self, cast

from pydantic import BaseModel, ConfigDict, model_validator

from vrprm_reward.blank import is_blank
from vrprm_reward.errors import StepError
from vrprm_reward.types import Step

StepRule = Literal["vrprm", "numbered", "protected", "separator"]
StepPart = Literal["all", "thinking", "answer"]
Splitter = Callable[[str], Sequence[str] | Sequence[tuple[int, int]]]
"""Text of one region -> its steps, as strings in order or as `(start, end)` in that text."""

_Span = tuple[int, int]

_MARKER = re.compile(r"</?(?:think|answer)>")
# In this order, the first that cuts anything is used.
_VRPRM_KINDS = tuple(
    re.compile(kind)
    for kind in ("<step split>", r"\n\s*\n", r"\n(?=Step\s*\d|步骤\s*\d|[-*]\s)", r"\n")
)

# At most two spaces before a heading: from three on, Markdown nests a list inside an item.
# Not more than three digits before a dot: a sentence wrapped before "1999." is no heading.
# A letter right after the dot only outside ASCII: Chinese lists are written without the space,
# while "2.x" is more often a formula.
_NUMBERED_HEADING = re.compile(
    r"""
    ^ (?= [ ]{0,2} (?:\#{1,6}[ \t]+)? (?:\*\*|__)?
        (?: (?:Step|STEP|步骤)[ \t]*\d
          | \d{1,3}[.)] (?: \s | \Z | \*\* | __ | (?![A-Za-z])[^\W\d_] )
        )
      )
    """,
    re.MULTILINE | re.VERBOSE,
)
_FENCE_LINE = re.compile(r"^[ \t]*(`{3,}|~{3,})(.*)$", re.MULTILINE)
# The first alternative takes escapes out of the way: `\\[2pt]` is a line break, not `\[`.
_MATH_TOKEN = re.compile(r"\\[\\$]|\$\$|\\[\[\]]|\\(?:begin|end)\{[^{}\n]*\}")


class StepSettings(BaseModel):
    """How a response is divided into steps. Every value is a plain string."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: StepRule = "vrprm"
    """What cuts a step from the next; `split_steps` says what each rule does."""

    separator: str | None = None
    """The literal text between steps, kept exactly. Given if and only if rule is "separator"."""

    part: StepPart = "all"
    """Which part of the response is divided; `split_steps` says what each part is."""

    @model_validator(mode="after")
    def _separator_goes_with_its_rule(self) -> Self:
        if self.rule == "separator" and not self.separator:
            raise ValueError(
                f'rule "separator" needs a non-empty separator, got {self.separator!r}: '
                'set for example separator = "<step>", or choose another rule'
            )
        if self.rule != "separator" and self.separator is not None:
            raise ValueError(
                f'separator {self.separator!r} has no effect under rule "{self.rule}": '
                'set rule = "separator", or leave the separator out'
            )
        return self


_DEFAULT_SETTINGS = StepSettings()


def split_steps(response: str, settings: StepSettings = _DEFAULT_SETTINGS) -> tuple[Step, ...]:
    r"""Divide a response into steps.

    The rules:

    - `vrprm`: the division of VRPRM's own Best-of-N code. The first of these that cuts anything
      is the only one that is used: `<step split>`; blank lines; before a line that begins with
      `Step <digit>`, `步骤 <digit>`, or `-` or `*` and a space; every line end.
    - `protected`: the same, but what would cut inside fenced code (``` or ~~~; an unclosed fence
      runs to the end of its region) or inside display LaTeX (`$$…$$`, `\[…\]`,
      `\begin{x}…\end{x}`; unclosed ones are ordinary text) is passed over.
    - `numbered`: before each line that begins like `Step 3`, `步骤 3`, `3.` or `3)`, also with `#`
      or bold marks before it, outside fenced code. Text before the first such line is a step.
    - `separator`: at every occurrence of `settings.separator`, which is left out.

    Which of the `vrprm` cuts is used is decided once over all chosen regions. Regions are
    divided from each other in any case and that does not count as a cut, so thinking without
    blank lines is still divided when an `<answer>` follows it.

    The parts:

    - `all`: everything.
    - `thinking`: what stands inside `<think>`. A missing first `<think>` counts as standing at
      the beginning, a missing `</think>` at the end. Nothing when there are no think markers.
    - `answer`: what stands after the last `</think>` (without think markers: everything), and of
      this only the inside of `<answer>` if there is one there; a missing `</answer>` counts as
      standing at the end. Nothing when the last think marker is an open `<think>`.

    Args:
        response: what the policy wrote, whole or partial.
        settings: rule, separator and part.

    Returns:
        The steps in order; empty when the chosen part is blank.
    """
    regions = _regions(response, settings.part)
    if settings.rule == "separator":
        # Not trimmed before: the separator itself may begin or end with whitespace.
        literal = re.compile(re.escape(settings.separator or ""))
        cuts = [_spans(literal, response[start:end]) for start, end in regions]
        return _steps(response, regions, cuts)

    regions = _trimmed(response, regions)
    texts = [response[start:end] for start, end in regions]
    if settings.rule == "numbered":
        cuts = [_outside(_spans(_NUMBERED_HEADING, text), _fences(text)) for text in texts]
    elif settings.rule == "protected":
        cuts = _vrprm_cuts(texts, [_fences_and_math(text) for text in texts])
    else:
        cuts = _vrprm_cuts(texts, [[] for _ in texts])
    return _steps(response, regions, cuts)


def split_with(response: str, splitter: Splitter, part: StepPart = "all") -> tuple[Step, ...]:
    """Divide a response by a function of your own.

    Args:
        response: what the policy wrote, whole or partial.
        splitter: called with the text of each region of the part that is not blank, markers
            left out. It returns strings, which are looked up in that text in order, or
            `(start, end)` pairs of characters of that text. Whitespace around a step is
            trimmed and blank steps are dropped.
        part: as in `split_steps`.

    Returns:
        The steps in order; what the function left out belongs to no step.

    Raises:
        StepError: the function returned a string that is not in the text at its turn, or spans
            that are out of order or range. What the function itself raises passes through.
    """
    steps: list[_Span] = []
    for offset, end in _regions(response, part):
        text = response[offset:end]
        if not is_blank(text):
            for start, stop in _trimmed(text, _returned_spans(text, splitter(text))):
                steps.append((offset + start, offset + stop))
    return _at(response, steps)


def locate_steps(response: str, texts: Sequence[str]) -> tuple[Step, ...]:
    """Find ready-made steps in the response they were taken from.

    Each text is looked for from the end of the one before it, and its first occurrence is taken.

    Args:
        response: the whole response.
        texts: the steps in order, each exactly as it stands in the response.

    Returns:
        One step per text, in the same order, with `step.text` equal to the text.

    Raises:
        StepError: a text is blank, or does not stand in the response after the step before it.
    """
    steps: list[_Span] = []
    position = 0
    for index, text in enumerate(_checked_texts(texts)):
        start = response.find(text, position)
        if start < 0:
            where = (
                "stands in the response only before the end of the step before it"
                if text in response
                else "does not stand in the response"
            )
            raise StepError(
                f"step {index} ({_excerpt(text)}) {where}: pass the steps in order and exactly as "
                "they are in the response (same spaces and line ends), or leave the steps out "
                "and let the response be split"
            )
        position = start + len(text)
        steps.append((start, position))
    return _at(response, steps)


def join_steps(texts: Sequence[str]) -> tuple[str, tuple[Step, ...]]:
    """Make a response of steps that come without one, a blank line between two.

    Args:
        texts: the steps in order; each is kept exactly, whitespace around it included.

    Returns:
        The response, and the steps with their places in it. `("", ())` for no texts.

    Raises:
        StepError: a text is blank.
    """
    spans: list[_Span] = []
    position = 0
    for text in _checked_texts(texts):
        spans.append((position, position + len(text)))
        position += len(text) + len("\n\n")
    response = "\n\n".join(texts)
    return response, _at(response, spans)


def _regions(response: str, part: StepPart) -> list[_Span]:
    """The stretches between markers that belong to the part."""
    markers = list(_MARKER.finditer(response))
    names = [marker[0] for marker in markers]
    edges = [0, *(edge for marker in markers for edge in marker.span()), len(response)]
    regions = list(zip(edges[::2], edges[1::2], strict=True))
    if part == "all":
        return regions

    think_markers = [i for i, name in enumerate(names) if name in ("<think>", "</think>")]
    if part == "thinking":
        begins_inside = bool(think_markers) and names[think_markers[0]] == "</think>"
        return list(compress(regions, _inside(names, "think", begins_inside)))

    after_thinking = 0
    if think_markers:
        if names[think_markers[-1]] == "<think>":
            return []
        after_thinking = think_markers[-1] + 1
    regions, names = regions[after_thinking:], names[after_thinking:]
    if "<answer>" not in names:
        return regions
    return list(compress(regions, _inside(names, "answer", False)))


def _inside(names: list[str], tag: str, begins_inside: bool) -> list[bool]:
    """For the region before each marker, and the one after the last: is it inside the tag?"""
    inside = [begins_inside]
    for name in names:
        inside.append((inside[-1] or name == f"<{tag}>") and name != f"</{tag}>")
    return inside


def _vrprm_cuts(texts: list[str], protected: list[list[_Span]]) -> list[list[_Span]]:
    """Cuts in each trimmed text, all of the first kind that cuts any of them."""
    for kind in _VRPRM_KINDS:
        cuts = [
            _outside(_spans(kind, text), kept) for text, kept in zip(texts, protected, strict=True)
        ]
        if any(cuts):
            return cuts
    return [[] for _ in texts]


def _spans(pattern: re.Pattern[str], text: str) -> list[_Span]:
    return [match.span() for match in pattern.finditer(text)]


def _outside(cuts: list[_Span], protected: list[_Span]) -> list[_Span]:
    """The cuts that do not begin in one of the protected spans (sorted, disjoint)."""
    starts = [start for start, _ in protected]

    def is_outside(cut: _Span) -> bool:
        before = bisect_right(starts, cut[0]) - 1
        return before < 0 or cut[0] >= protected[before][1]

    return [cut for cut in cuts if is_outside(cut)] if protected else cuts


def _fences(text: str) -> list[_Span]:
    """Fenced code, from the first to the last character of its fences."""
    spans: list[_Span] = []
    opened: re.Match[str] | None = None
    for line in _FENCE_LINE.finditer(text):
        fence, rest = line[1], line[2]
        if opened is None:
            # Backticks later in the line make it inline code.
            if fence[0] == "~" or "`" not in rest:
                opened = line
        elif fence.startswith(opened[1]) and not rest.strip():
            spans.append((opened.start(1), line.end(1)))
            opened = None
    if opened is not None:
        spans.append((opened.start(1), len(text)))
    return spans


def _fences_and_math(text: str) -> list[_Span]:
    """Fenced code, and display LaTeX in what is left between; no formula crosses a fence."""
    spans: list[_Span] = []
    position = 0
    for fence in _fences(text):
        spans += [*_display_math(text, position, fence[0]), fence]
        position = fence[1]
    return spans + _display_math(text, position, len(text))


def _display_math(text: str, start: int, end: int) -> list[_Span]:
    """The outermost closed formulas in `text[start:end]`."""
    candidates: list[_Span] = []
    # Read backwards, so that each opening finds its closing without a search: time stays linear
    # also when nothing is ever closed.
    closings: defaultdict[str, list[int]] = defaultdict(list)
    for token in reversed(list(_MATH_TOKEN.finditer(text, start, end))):
        name = token[0]
        if name == "$$":
            if closings[name]:
                candidates.append((token.start(), closings[name][-1]))
            closings[name] = [token.end()]
        elif name == r"\]" or name.startswith(r"\end"):
            closings[name].append(token.end())
        elif name == r"\[" or name.startswith(r"\begin"):
            closing = r"\]" if name == r"\[" else name.replace("begin", "end", 1)
            if closings[closing]:
                candidates.append((token.start(), closings[closing].pop()))

    spans: list[_Span] = []
    for candidate in reversed(candidates):
        if not spans or candidate[0] >= spans[-1][1]:
            spans.append(candidate)
    return spans


def _steps(response: str, regions: list[_Span], cuts: list[list[_Span]]) -> tuple[Step, ...]:
    """What is left of the regions when the cuts (relative to their region) are taken out."""
    spans: list[_Span] = []
    for (start, end), region_cuts in zip(regions, cuts, strict=True):
        edges = [start, *(start + edge for cut in region_cuts for edge in cut), end]
        spans += zip(edges[::2], edges[1::2], strict=True)
    return _at(response, _trimmed(response, spans))


def _trimmed(text: str, spans: Sequence[_Span]) -> list[_Span]:
    """The spans without the whitespace around them; those that show nothing are dropped."""
    trimmed: list[_Span] = []
    for start, end in spans:
        if not is_blank(piece := text[start:end]):
            first = end - len(piece.lstrip())
            trimmed.append((first, first + len(piece.strip())))
    return trimmed


def _at(response: str, spans: list[_Span]) -> tuple[Step, ...]:
    return tuple(Step(text=response[start:end], start=start, end=end) for start, end in spans)


def _returned_spans(
    text: str, returned: Sequence[str] | Sequence[tuple[int, int]]
) -> Sequence[_Span]:
    if all(isinstance(piece, str) for piece in returned):
        texts = [piece.strip() for piece in _not_one_string(cast("Sequence[str]", returned))]
        return [
            (step.start, step.end)
            for step in locate_steps(text, [t for t in texts if not is_blank(t)])
        ]
    position = 0
    for index, piece in enumerate(returned):
        match piece:
            case (int(start), int(end)) if position <= start <= end <= len(text):
                position = end
            case _:
                raise StepError(
                    f"the splitter's item {index} is {piece!r}: return strings, or (start, end) "
                    f"in order, without overlap and within the {len(text)} characters it was given"
                )
    return cast("Sequence[_Span]", returned)


def _not_one_string(texts: Sequence[str]) -> Sequence[str]:
    if isinstance(texts, str):
        raise StepError(
            f"expected a sequence of steps, got one string ({_excerpt(texts)}): put it in a list"
        )
    return texts


def _checked_texts(texts: Sequence[str]) -> Sequence[str]:
    for index, text in enumerate(_not_one_string(texts)):
        if is_blank(text):
            raise StepError(f"step {index} is blank ({_excerpt(text)}): leave blank steps out")
    return texts


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
