import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.report.scored import HOSTILE, candidates, few, many, record, save_picture, write
from vrprm_reward.cli import app
from vrprm_reward.report.page import fill, json_for_html
from vrprm_reward.report.plots import nice_ticks


def run(scores: Path, *arguments: object) -> Result:
    out = scores.with_name("report.html")
    return CliRunner(env={"COLUMNS": "100"}).invoke(
        app, ["report", str(scores), "-o", str(out), *map(str, arguments)]
    )


def page_of(scores: Path, *arguments: object, status: int = 0) -> str:
    result = run(scores, *arguments)
    assert result.exit_code == status, result.output
    return scores.with_name("report.html").read_text()


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def one_of_n(**more: Any) -> dict[str, Any]:
    """A row of best-of-n with one candidate, some fields of which are other ones."""
    candidate = {**record("x", [0.5]), "answer": "3", "vote": 0, "right": True, **more}
    return {**record("x", [0.5]), "chosen": {}, "candidates": [candidate]}


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = page_of(few(tmp_path))
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//|/)", page)
    assert data_of(page)["images"][0][0].startswith("data:image/png;base64,")


def test_a_rollout_has_its_figures(tmp_path: Path) -> None:
    rollouts = data_of(page_of(few(tmp_path)))["rollouts"]
    falls, down = rollouts[1], rollouts[3]
    assert (falls["mean"], falls["least"], falls["drop"]) == (0.5, 0.1, 0.8)
    assert (down["p"], down["mean"], down["reason"]) == (None, None, "engine")
    assert rollouts[4]["labels"] == [1, -1]


def test_texts_cannot_leave_their_place(tmp_path: Path) -> None:
    page = page_of(few(tmp_path), "--title", HOSTILE)
    assert HOSTILE not in page
    assert page.count("</script>") == 2
    assert data_of(page)["rollouts"][5]["steps"] == [HOSTILE]


def test_figures_are_drawn_for_what_there_is(tmp_path: Path) -> None:
    page = page_of(few(tmp_path))
    assert "Step probabilities by label" in page
    assert "Reliability (calibration error" in page
    assert "Accuracy of best of N" not in page
    bare = page_of(write(tmp_path, record("a", [0.5])), "--overwrite")
    assert "Reliability" not in bare


def test_best_of_n_becomes_candidates_and_a_curve(tmp_path: Path) -> None:
    page = page_of(candidates(tmp_path))
    rollouts = data_of(page)["rollouts"]
    assert [r["id"] for r in rollouts] == ["p1 [1]", "p1 [2]", "p2 [1]", "p2 [2]"]
    assert [r["chosen"] for r in rollouts] == [["mean", "majority"], [], ["majority"], ["mean"]]
    assert "Accuracy of best of N (2 problems)" in page
    # By mean the first is chosen in both: right in one; one of two is right in both.
    assert '<th scope="row">mean (VRPRM)</th><td>0.500</td><td>0.500</td>' in page
    assert '<th scope="row">one of N is right</th><td>0.500</td><td>1.000</td>' in page


@pytest.mark.parametrize(("weight", "accuracy"), [("mean", "0.000"), ("last", "1.000")])
def test_votes_are_weighed_as_the_choice_weighed_them(
    tmp_path: Path, weight: str, accuracy: str
) -> None:
    """The second candidate of p2 is right: .575 against .85 in the mean, .95 against .8 at last."""
    row = json.loads(candidates(tmp_path).read_text().splitlines()[1])
    page = page_of(write(tmp_path, {**row, "weight": weight}))
    assert re.search(rf">weighted[^<]*</th><td>0.500</td><td>{accuracy}</td>", page)


def test_one_unscored_rollout_is_a_page_too(tmp_path: Path) -> None:
    page = page_of(write(tmp_path, record("down", None)))
    assert "1 rollouts of 1 problems: 0 scored, 1 unscored" in page
    assert "<figure>" not in page


class TestPictures:
    def test_large_images_are_made_smaller(self, tmp_path: Path) -> None:
        scores = write(tmp_path, record("a", [0.5]))
        import random

        from PIL import Image

        noise = Image.frombytes("RGB", (1500, 900), random.Random(0).randbytes(1500 * 900 * 3))
        noise.save(tmp_path / "images" / "a.png")
        url = data_of(page_of(scores))["images"][0][0]
        assert url.startswith("data:image/webp;base64,")
        assert len(url) < 1_000_000

    def test_links_are_relative_to_the_page(self, tmp_path: Path) -> None:
        scores = write(tmp_path, record("a", [0.5], images=["images/a b.png"]))
        save_picture(tmp_path / "images" / "a b.png")
        assert data_of(page_of(scores, "--images", "link"))["images"] == [
            ["images/a%20b.png", "a b.png"]
        ]

    def test_beyond_the_budget_images_are_linked(self, tmp_path: Path) -> None:
        scores = write(tmp_path, record("a", [0.5]))
        assert data_of(page_of(scores, "--embed-mb", 0))["images"][0][0] == "images/a.png"

    def test_images_at_file_urls_are_shown(self, tmp_path: Path) -> None:
        place = tmp_path / "images" / "a b.png"
        save_picture(place)
        scores = write(tmp_path, record("a", [0.5], images=[place.as_uri()]))
        page = page_of(scores)
        ((source, name),) = data_of(page)["images"]
        assert source.startswith("data:image/png;base64,")
        assert name == "a b.png"
        assert "cannot be shown" not in page
        linked = data_of(page_of(scores, "--images", "link", "--overwrite"))["images"]
        assert linked == [["images/a%20b.png", "a b.png"]]

    @pytest.mark.parametrize("mode", ["embed", "link"])
    @pytest.mark.parametrize(
        "reference",
        ["images/gone.png", "http://x.org/a.png", "s3://x/a.png", "file://x.org/a.png", "images"],
    )
    def test_an_image_that_cannot_be_had_is_said_so(
        self, tmp_path: Path, reference: str, mode: str
    ) -> None:
        scores = write(tmp_path, record("a", [0.5], images=[reference]))
        page = page_of(scores, "--images", mode)
        assert data_of(page)["images"][0][0] is None
        assert "1 images cannot be shown." in page


class TestInput:
    def test_more_rollouts_than_fit_are_left_out_and_said_so(self, tmp_path: Path) -> None:
        scores = many(tmp_path, 30)
        page = page_of(scores, "--limit", 20)
        assert len(data_of(page)["rollouts"]) == 20
        assert "10 more rollouts of the file are left out" in page

    @pytest.mark.parametrize(
        ("bad", "said"),
        [
            ({"question": "?", "response": "x"}, "not its input"),
            ({"trajectories": []}, "score them first"),
            (record("a", [0.5]) | {"question": None}, "field 'question'"),
            (record("a", [0.5]) | {"p_correct": [0.5, 0.5]}, "field 'p_correct'"),
            (record("a", [0.5]) | {"steps": None}, "field 'steps'"),
            (record("a", [0.5]) | {"steps": ["One."]}, "field 'steps[0]': a string"),
            (record("a", [0.5]) | {"steps": [{"text": 1}]}, "field 'steps[0].text'"),
            (record("a", [0.5]) | {"p_correct": [None]}, "field 'p_correct[0]': null"),
            (record("a", [0.5]) | {"p_correct": ["0.5"]}, "field 'p_correct[0]': a string"),
            (record("a", [0.5]) | {"p_correct": [True]}, "field 'p_correct[0]': true or false"),
            (record("a", [0.5]) | {"p_correct": [math.nan]}, "field 'p_correct[0]': nan is no"),
            (record("a", [0.5]) | {"p_correct": [1.5]}, "field 'p_correct[0]': 1.5 is no"),
            (record("a", [0.5]) | {"p_correct": [-0.5]}, "field 'p_correct[0]': -0.5 is no"),
            (record("a", [0.5], step_labels=[2]), "field 'step_labels[0]': 2: a label is"),
            (record("a", [0.5], step_labels=["1"]), "field 'step_labels[0]': a string"),
            (record("a", [0.5], step_labels=[1, 1]), "field 'step_labels'"),
            (record("a", [0.5], step_labels=1), "field 'step_labels'"),
            (record("a", [0.5], flags="all"), "field 'flags'"),
            (record("a", [0.5], thinking=math.nan), "field 'thinking': nan, not a text"),
            ({"question": "?", "candidates": ["A.", "B."]}, "best-of-n, not its input"),
            ({"chosen": [1], "candidates": [{}]}, "field 'chosen'"),
            ({"chosen": {}, "candidates": []}, "field 'candidates'"),
            ({"chosen": {}, "candidates": [{"p_correct": None}]}, "candidates[0].vote"),
            ({"chosen": {}, "weight": "most", "candidates": [{}]}, "'most'"),
            (one_of_n(vote=[1]), "field 'candidates[0].vote': a list"),
            (one_of_n(right="no"), "field 'candidates[0].right': a string"),
            (one_of_n(answer=3), "field 'candidates[0].answer': 3"),
            (one_of_n(p_correct=[2]), "field 'candidates[0].p_correct[0]': 2"),
        ],
    )
    def test_a_bad_row_is_said_and_the_rest_is_shown(
        self, tmp_path: Path, bad: dict[str, Any], said: str
    ) -> None:
        result = run(write(tmp_path, bad, record("a", [0.5])))
        assert result.exit_code == 1
        assert "line 1" in result.stderr
        assert said in " ".join(result.stderr.split())
        assert len(data_of((tmp_path / "report.html").read_text())["rollouts"]) == 1

    def test_a_file_without_scores_makes_no_page(self, tmp_path: Path) -> None:
        result = run(write(tmp_path, {"question": "?"}))
        assert result.exit_code == 2
        assert not (tmp_path / "report.html").exists()

    def test_a_page_can_go_to_standard_output(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        scores = few(tmp_path)
        result = CliRunner().invoke(app, ["report", str(scores), "-o", "-", "--title", "Schön"])
        assert result.exit_code == 0, result.output
        assert "<h1>Schön</h1>" in result.stdout
        assert result.stdout.startswith("<!doctype html>")
        assert result.stdout.rstrip().endswith("</html>")
        assert len(data_of(result.stdout)["rollouts"]) == 6
        assert "6 rollouts" in result.stderr
        assert not Path("-").exists()

    def test_a_page_is_not_replaced_unasked(self, tmp_path: Path) -> None:
        scores = few(tmp_path)
        page_of(scores)
        assert run(scores).exit_code == 2


def test_json_in_a_page_holds_no_markup() -> None:
    text = json_for_html({"a": "<b>&'\"\u2028"})
    assert "<" not in text
    assert json.loads(text) == {"a": "<b>&'\"\u2028"}


def test_what_is_put_into_a_template_is_not_looked_through_again() -> None:
    assert fill("a {{x}} b {{y}}", {"x": "{{y}}", "y": "1"}) == "a {{y}} b 1"


@pytest.mark.parametrize(
    ("largest", "top"), [(1, 1), (5, 5), (6, 6), (7, 8), (99, 100), (265, 300), (12345, 15000)]
)
def test_the_ticks_of_an_axis_are_few_and_round(largest: int, top: float) -> None:
    found, ticks = nice_ticks(largest)
    assert found == top
    assert 2 <= len(ticks) <= 6
