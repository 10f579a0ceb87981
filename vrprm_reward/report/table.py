"""Scored rollouts on a terminal: their steps with probabilities, and the best of several."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.rule import Rule
from rich.style import Style
from rich.table import Table
from rich.text import Text

from vrprm_reward.jobs.outputs import mean_p_correct
from vrprm_reward.jobs.rows import Row
from vrprm_reward.types import ImageSource, ProcessScore, Usage

STEP_LINES = 3
"""Lines of the terminal that the text of one step may take; what is longer ends in `…`."""

QUESTION_LINES = 3
"""Lines that a question may take."""

_GOOD, _DOUBTFUL, _WRONG = "green", "yellow", "red"

# Text of a problem or a model may hold what moves the cursor or turns the reading direction.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


class RolloutPrinter:
    """Prints rollouts as they are scored, each problem's question once, its best candidate last.

    Args:
        console: where to.
        candidates: how many rows each problem has, by `Row.problem_key`. The best one is named
            when the last of them has been printed, wherever the others stood.
        thinking: whether the reward model's thinking is printed too.
    """

    def __init__(
        self, console: Console, candidates: Mapping[bytes, int], *, thinking: bool = False
    ) -> None:
        self._console = console
        self._candidates = candidates
        self._thinking = thinking
        self._heading: bytes | None = None
        self._seen: dict[bytes, _Best] = {}

    def show(self, row: Row, score: ProcessScore) -> None:
        """Print one rollout."""
        key = row.problem_key()
        if key != self._heading:
            self._heading = key
            self._console.print(problem_heading(row))
        self._console.print()
        self._console.print(rollout_table(row, score, thinking=self._thinking))
        expected = self._candidates.get(key, 1)
        if expected > 1:
            best = self._seen.setdefault(key, _Best())
            best.add(row, score)
            if best.count == expected:
                self._console.print()
                self._console.print(best.line())
                del self._seen[key]


@dataclass
class _Best:
    """The best candidate so far, by mean step probability; the first one of equals."""

    count: int = 0
    label: str | None = None
    mean: float = 0.0
    equals: int = 0

    def add(self, row: Row, score: ProcessScore) -> None:
        self.count += 1
        mean = mean_p_correct(score)
        if mean is None:
            return
        if self.label is None or mean > self.mean:
            self.label, self.mean, self.equals = row_label(row), mean, 1
        elif mean == self.mean:
            self.equals += 1

    def line(self) -> Text:
        opening = f"Best of {self.count} by mean p: "
        if self.label is None:
            return Text.assemble(opening, ("none, no candidate was scored", _DOUBTFUL))
        tie = f", the first of {self.equals} equals" if self.equals > 1 else ""
        return Text.assemble(opening, (self.label, f"bold {_GOOD}"), f", {self.mean:.3f}{tie}")


def row_label(row: Row) -> str:
    """The row's id on one line, or its line number where it has none."""
    return f"line {row.line}" if row.id == row.line else one_line(str(row.id))


def problem_heading(row: Row) -> RenderableType:
    """A rule, the question, and the names of the images."""
    problem = row.rollout.problem
    names = ", ".join(_image_name(image) for image in problem.images)
    return Group(
        Text(),
        Rule(style="dim"),
        ClippedText(Text(one_line(problem.question), style="bold"), QUESTION_LINES),
        ClippedText(Text(names, style="dim"), 1),
    )


def rollout_table(row: Row, score: ProcessScore, *, thinking: bool = False) -> RenderableType:
    """One rollout: its label and mean, a line per step from 1 on, and what is to be noted.

    Colours: green from 0.8, yellow from 0.5, red below; a step below 0.5 (judged wrong) also has
    a cross, so that nothing is said by colour alone.
    """
    parts: list[RenderableType] = [_title(row, score)]
    if thinking and score.thinking is not None:
        text = _UNSAFE.sub("\ufffd", score.thinking).strip()
        parts.append(Padding(Text(f"thinking: {text}", style="dim"), (0, 0, 0, 2)))
    if score.scored:
        parts.append(_Steps(score))
    elif score.detail:
        parts.append(Padding(Text(one_line(score.detail)), (0, 0, 0, 2)))
    if score.flags:
        flags = one_line(", ".join(score.flags))
        parts.append(Padding(Text(f"flags: {flags}", style="yellow"), (0, 0, 0, 2)))
    return Group(*parts)


def _title(row: Row, score: ProcessScore) -> Text:
    label = (row_label(row), "bold")
    mean = mean_p_correct(score)
    if mean is None:
        return Text.assemble(label, "  ", (f"{score.status}: {score.reason}", "bold yellow"))
    wrong = [str(number) for number, verdict in enumerate(score.judgements, 1) if not verdict]
    shown = wrong if len(wrong) <= 8 else [*wrong[:8], f"… ({len(wrong)} in all)"]
    note = f"  wrong: {', '.join(shown)}" if wrong else ""
    return Text.assemble(label, "  mean p ", (f"{mean:.3f}", _colour(mean)), (note, _WRONG))


@dataclass(frozen=True)
class _Steps:
    """The steps of a scored rollout; on a narrow terminal with a shorter bar, or none."""

    score: ProcessScore

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        cells = 10 if width >= 72 else 5 if width >= 48 else 0
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(justify="right", min_width=4, style="dim")
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, min_width=1)
        table.add_column(ratio=1)
        cross = "x" if options.ascii_only else "✗"
        for number, (step, p) in enumerate(
            zip(self.score.steps, self.score.p_correct, strict=True), start=1
        ):
            table.add_row(
                str(number),
                probability_bar(p, cells, ascii_only=options.ascii_only),
                Text(f"{p:.3f}", style=_colour(p)),
                Text("" if p >= 0.5 else cross, style=f"bold {_WRONG}"),
                ClippedText(Text(one_line(step.text)), STEP_LINES),
            )
        yield table


def probability_bar(p: float, cells: int, *, ascii_only: bool = False) -> Text:
    """A bar of `cells` character cells, filled in the share `p` in [0, 1]."""
    full, rest = ("#", ".") if ascii_only else ("█", "░")
    filled = round(p * cells)
    return Text.assemble((full * filled, _colour(p)), (rest * (cells - filled), "dim"))


def _colour(p: float) -> str:
    return _GOOD if p >= 0.8 else _DOUBTFUL if p >= 0.5 else _WRONG


@dataclass(frozen=True)
class ClippedText:
    """Text wrapped to the width there is, cut with `…` after so many lines."""

    text: Text
    lines: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(options.max_width, 2)
        wrapped = self.text.wrap(console, width)
        shown = wrapped[: self.lines]
        if len(wrapped) > self.lines:
            mark = "..." if options.ascii_only else "…"
            last = shown[-1]
            last.rstrip()
            last.truncate(max(width - len(mark), 0))
            last.append(mark)
        yield from shown

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)


def one_line(text: str) -> str:
    """White space made single spaces, control characters made visible."""
    return _UNSAFE.sub("\ufffd", " ".join(text.split()))


def _image_name(image: ImageSource) -> str:
    if isinstance(image, bytes):
        return f"image in the row ({len(image):,} bytes)"
    reference = str(image)
    if reference[:5].lower() == "data:":
        return f"image in the row ({len(reference):,} characters)"
    return one_line(reference)


@dataclass
class Tally:
    """What a run came to."""

    what: Literal["row", "candidate"] = "row"
    """What is scored: each row, or several candidates of one."""

    bad: int = 0
    """Rows that could not be read."""

    scored: int = 0
    """Rollouts with scores."""

    unscored: Counter[str] = field(default_factory=Counter)
    """Rollouts without, by reason."""

    usage: Usage = field(default_factory=Usage)
    """Tokens and requests of all rollouts."""

    def add(self, scores: Iterable[ProcessScore]) -> None:
        """Count scores in."""
        for score in scores:
            self.usage += score.usage
            if score.scored:
                self.scored += 1
            else:
                self.unscored[score.reason or score.status] += 1

    @property
    def complete(self) -> bool:
        """Whether every row was scored."""
        return not self.bad and not self.unscored

    def line(self, seconds: float) -> Text:
        """The run in one line; `seconds` is how long it took."""
        rollouts = self.scored + self.unscored.total()
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.unscored.most_common())
        parts = [
            (f"{self.scored} scored", _GOOD if self.scored else ""),
            (f"{self.unscored.total()} unscored ({reasons})" if reasons else "", _DOUBTFUL),
            (f"{self.bad} bad{'' if self.what == 'row' else ' rows'}" if self.bad else "", _WRONG),
            (f"{duration(seconds)}", ""),
            (
                f"{self.usage.prompt_tokens:,} prompt + {self.usage.generated_tokens:,} "
                "generated tokens",
                "",
            ),
        ]
        said = [Text(text, style=Style.parse(style)) for text, style in parts if text]
        one_each = self.what == "row"
        count = rollouts + (self.bad if one_each else 0)
        plural = "" if count == 1 else "s"
        return Text(f"{count:,} {self.what}{plural}: ") + Text(" · ").join(said)


def duration(seconds: float) -> str:
    """Seconds in words: "2.5 s", "3 min 5 s", "1 h 2 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
