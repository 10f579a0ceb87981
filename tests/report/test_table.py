import io

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from vrprm_reward.jobs.rows import Row
from vrprm_reward.report.table import (
    ClippedText,
    RolloutPrinter,
    Tally,
    probability_bar,
    rollout_table,
)
from vrprm_reward.steps import join_steps
from vrprm_reward.types import Problem, ProcessScore, Rollout, Usage

LONG = "The picture shows three red circles and two blue squares. " * 6


def make_row(line: int = 1, question: str = "How many?", name: str | int | None = None) -> Row:
    problem = Problem(question=question, images=("a.png",))
    return Row(
        line=line,
        id=line if name is None else name,
        rollout=Rollout(problem=problem, response="One."),
    )


def scored(*p_correct: float, texts: list[str] | None = None, **more: object) -> ProcessScore:
    _, steps = join_steps(texts or [f"Text {number}." for number in range(len(p_correct))])
    return ProcessScore.model_validate(
        {"status": "scored", "steps": steps, "p_correct": p_correct, **more}
    )


def unscored(reason: str = "response_empty") -> ProcessScore:
    return ProcessScore(status="unscored_response", reason=reason, detail="It is empty.")


def make_console(width: int = 80, *, colours: bool = False, encoding: str = "utf-8") -> Console:
    return Console(
        file=io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", newline=""),
        width=width,
        force_terminal=colours,
        color_system="standard" if colours else None,
        highlight=False,
    )


def printed(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.TextIOWrapper)
    file.flush()
    assert isinstance(file.buffer, io.BytesIO)
    return file.buffer.getvalue().decode(file.encoding)


def rendered(row: Row, score: ProcessScore, width: int = 80, **more: bool) -> list[str]:
    console = make_console(width)
    console.print(rollout_table(row, score, **more))
    return [line.rstrip() for line in printed(console).splitlines()]


class TestOneRollout:
    def test_every_step_has_its_number_bar_probability_and_text(self) -> None:
        assert rendered(make_row(name="r1"), scored(0.913, 0.049)) == [
            "r1  mean p 0.481  wrong: 2",
            "   1 █████████░ 0.913   Text 0.",
            "   2 ░░░░░░░░░░ 0.049 ✗ Text 1.",
        ]

    def test_a_row_without_id_is_named_by_its_line(self) -> None:
        assert rendered(make_row(line=12), scored(1.0))[0] == "line 12  mean p 1.000"

    def test_an_unscored_rollout_says_why_and_shows_no_number(self) -> None:
        assert rendered(make_row(name="r1"), unscored()) == [
            "r1  unscored_response: response_empty",
            "  It is empty.",
        ]

    def test_flags_are_shown(self) -> None:
        lines = rendered(make_row(), scored(1.0, flags=("thinking_truncated",)))
        assert lines[-1] == "  flags: thinking_truncated"

    def test_thinking_is_shown_when_asked_for(self) -> None:
        score = scored(1.0, thinking="Three circles.\nTwo squares.")
        assert "  thinking: Three circles." not in rendered(make_row(), score)
        assert rendered(make_row(), score, thinking=True)[1:3] == [
            "  thinking: Three circles.",
            "  Two squares.",
        ]

    def test_a_step_over_several_lines_is_shown_on_one(self) -> None:
        lines = rendered(make_row(), scored(0.9, texts=["a\n\n  b\tc"]))
        assert lines[-1].endswith("a b c")

    def test_many_wrong_steps_are_counted_rather_than_listed(self) -> None:
        title = rendered(make_row(), scored(*[0.1] * 40))[0]
        assert title == "line 1  mean p 0.100  wrong: 1, 2, 3, 4, 5, 6, 7, 8, … (40 in all)"

    @pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
    @pytest.mark.parametrize(
        "text", [LONG, "图中有三个红色的圆圈" * 20, "👩‍👩‍👧👍🏽" * 40, "x" * 400]
    )
    def test_no_line_is_wider_than_the_terminal(self, width: int, text: str) -> None:
        lines = rendered(make_row(), scored(0.9, 0.1, texts=[text, text]), width)
        assert max(map(cell_len, lines)) <= width

    def test_a_long_step_is_cut_after_three_lines(self) -> None:
        lines = rendered(make_row(), scored(0.9, texts=[LONG]), 60)
        assert len(lines) == 1 + 3
        assert lines[-1].endswith("…")

    def test_the_bar_gives_way_on_narrow_terminals(self) -> None:
        assert "██████████" in rendered(make_row(), scored(1.0), 80)[1]
        assert " █████ " in rendered(make_row(), scored(1.0), 60)[1]
        assert "█" not in rendered(make_row(), scored(1.0), 40)[1]

    def test_what_could_take_over_the_terminal_is_made_visible(self) -> None:
        nasty = "a\x1b[2Jb\x07c\u202ed [red]e[/red] :smile:"
        lines = rendered(
            make_row(name=nasty), scored(0.9, texts=[nasty], thinking=nasty), thinking=True
        )
        for line in (lines[0], lines[1], lines[2]):
            assert "a\ufffd[2Jb\ufffdc\ufffdd [red]e[/red] :smile:" in line

    def test_half_a_surrogate_pair_does_not_stop_printing(self) -> None:
        assert "a\ufffd" in rendered(make_row(), scored(0.9, texts=["a\ud83d"]))[1]

    def test_ascii_is_used_where_the_encoding_has_nothing_else(self) -> None:
        console = make_console(encoding="ascii")
        console.print(rollout_table(make_row(), scored(0.1, texts=[LONG])))
        text = printed(console)
        assert "#......... 0.100 x The picture" in text
        assert "..." in text


class TestColours:
    @pytest.mark.parametrize(("p", "code"), [(0.8, 32), (0.79, 33), (0.5, 33), (0.49, 31)])
    def test_probabilities_are_green_yellow_or_red(self, p: float, code: int) -> None:
        console = make_console(colours=True)
        console.print(rollout_table(make_row(), scored(p)))
        assert f"\x1b[{code}m{p:.3f}" in printed(console)

    def test_without_a_terminal_there_are_no_escapes(self) -> None:
        console = make_console()
        RolloutPrinter(console, {}, thinking=True).show(make_row(), scored(0.1))
        assert "\x1b" not in printed(console)


class TestSeveralCandidates:
    def shown(self, *pairs: tuple[Row, ProcessScore]) -> list[str]:
        rows = [row for row, _ in pairs]
        counts = {
            r.problem_key(): sum(o.problem_key() == r.problem_key() for o in rows) for r in rows
        }
        console = make_console()
        printer = RolloutPrinter(console, counts)
        for row, score in pairs:
            printer.show(row, score)
        return [line.rstrip() for line in printed(console).splitlines()]

    def test_the_question_stands_once_and_the_best_comes_last(self) -> None:
        lines = self.shown(
            (make_row(1, name="a"), scored(0.2)),
            (make_row(2, name="b"), scored(0.9)),
            (make_row(3, name="c"), scored(0.8, 0.9)),
        )
        assert lines.count("How many?") == lines.count("a.png") == 1
        assert lines[-1] == "Best of 3 by mean p: b, 0.900"

    def test_of_equals_the_first_is_the_best_and_it_says_so(self) -> None:
        lines = self.shown(
            (make_row(1, name="a"), scored(0.2)),
            (make_row(2, name="b"), scored(0.9)),
            (make_row(3, name="c"), scored(0.9)),
        )
        assert lines[-1] == "Best of 3 by mean p: b, 0.900, the first of 2 equals"

    def test_an_unscored_candidate_is_never_the_best(self) -> None:
        lines = self.shown(
            (make_row(1, name="a"), unscored()), (make_row(2, name="b"), scored(0.0))
        )
        assert lines[-1] == "Best of 2 by mean p: b, 0.000"

    def test_without_a_score_there_is_no_best(self) -> None:
        lines = self.shown((make_row(1), unscored()), (make_row(2), unscored()))
        assert lines[-1] == "Best of 2 by mean p: none, no candidate was scored"

    def test_a_single_solution_is_not_called_the_best(self) -> None:
        assert not any("Best" in line for line in self.shown((make_row(), scored(0.9))))

    def test_candidates_that_do_not_stand_together_are_compared_all_the_same(self) -> None:
        lines = self.shown(
            (make_row(1, "First?", "a1"), scored(0.2)),
            (make_row(2, "Second?", "b1"), scored(0.5)),
            (make_row(3, "First?", "a2"), scored(0.4)),
            (make_row(4, "Second?", "b2"), scored(0.1)),
        )
        best = [line for line in lines if line.startswith("Best")]
        assert best == ["Best of 2 by mean p: a2, 0.400", "Best of 2 by mean p: b1, 0.500"]
        assert lines.index("First?") < lines.index("Second?") < lines.index(best[0])

    def test_an_image_in_the_row_is_described_rather_than_printed(self) -> None:
        problem = Problem(question="?", images=("data:image/png;base64," + "A" * 5000,))
        row = Row(line=1, id=1, rollout=Rollout(problem=problem, response="x"))
        assert "image in the row (5,022 characters)" in self.shown((row, scored(0.9)))
        problem = Problem(question="?", images=(b"\x89PNG" + bytes(96),))
        row = Row(line=1, id=1, rollout=Rollout(problem=problem, response="x"))
        assert "image in the row (100 bytes)" in self.shown((row, scored(0.9)))


class TestPieces:
    @pytest.mark.parametrize(("p", "bar"), [(0.0, "░░░░"), (0.5, "██░░"), (1.0, "████")])
    def test_a_bar_is_filled_in_the_share_of_the_probability(self, p: float, bar: str) -> None:
        assert probability_bar(p, 4).plain == bar

    def test_text_that_fits_is_not_cut(self) -> None:
        console = make_console(10)
        console.print(ClippedText(Text("one two three"), 2))
        assert printed(console).split() == ["one", "two", "three"]


class TestTheSummary:
    def test_it_counts_rows_reasons_tokens_and_time(self) -> None:
        tally = Tally(bad=1)
        usage = Usage(prompt_tokens=1000, generated_tokens=20)
        tally.add([scored(0.9, usage=usage), scored(0.1, usage=usage), unscored(), unscored("x")])
        tally.add([unscored()])
        assert tally.line(1.26).plain == (
            "6 rows: 2 scored · 3 unscored (2 response_empty, 1 x) · 1 bad · 1.3 s · "
            "2,000 prompt + 40 generated tokens"
        )
        assert not tally.complete

    def test_what_did_not_happen_is_not_mentioned(self) -> None:
        tally = Tally()
        tally.add([scored(0.9)])
        assert tally.line(0).plain == "1 row: 1 scored · 0.0 s · 0 prompt + 0 generated tokens"
        assert tally.complete

    @pytest.mark.parametrize(
        ("seconds", "said"), [(59.4, "59.4 s"), (61, "1 min 1 s"), (7320, "2 h 2 min")]
    )
    def test_long_times_are_in_minutes_and_hours(self, seconds: float, said: str) -> None:
        assert f" {said} " in Tally().line(seconds).plain
