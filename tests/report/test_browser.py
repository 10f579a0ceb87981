"""The report in a real browser: sorting, filtering, keyboard, 5,000 rollouts, contrast."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.report.scored import candidates, few, many
from vrprm_reward.cli import app

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install playwright"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("there is no browser: apt-get install chromium", allow_module_level=True)

CONTRAST = Path(__file__).with_name("contrast.js").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens the report of a file of scores; errors and requests to elsewhere fail the test."""
    pages, wrong = [], []

    def show(scores: Path, scheme: str = "light", width: int = 1300) -> Any:
        out = tmp_path / "report.html"
        result = CliRunner().invoke(app, ["report", str(scores), "-o", str(out), "--overwrite"])
        assert result.exit_code == 0, result.output
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.on(
            "request",
            lambda r: r.url.startswith(("file://", "data:")) or wrong.append(f"request {r.url}"),
        )
        page.goto(out.as_uri())
        pages.append(page)
        return page

    yield show
    for page in pages:
        page.close()
    assert wrong == []


def names(page: Any) -> list[str]:
    return [text.split(" ", 1)[0] for text in page.locator(".row .name").all_inner_texts()]


def test_all_rollouts_are_listed_and_the_first_is_open(show: Any, tmp_path: Path) -> None:
    page = show(few(tmp_path))
    assert names(page) == ["good", "falls", "low", "down", "labelled", "evil"]
    assert page.locator("#count").inner_text() == "6 of 6 rollouts"
    assert page.locator("#detail h2").first.inner_text() == "good"
    assert page.locator(".steps li").count() == 3
    assert page.locator(".pictures img").evaluate("image => image.naturalWidth") == 96


@pytest.mark.parametrize(
    ("order", "first"),
    [
        ("low-mean", ["low", "falls", "evil", "labelled", "good", "down"]),
        ("high-mean", ["good", "labelled", "evil", "falls", "low", "down"]),
        ("low-step", ["falls", "low", "evil", "labelled", "good", "down"]),
        ("drop", ["falls", "labelled", "good", "low", "down", "evil"]),
        ("long", ["good", "low", "falls", "labelled", "down", "evil"]),
    ],
)
def test_rollouts_are_sorted_and_the_unscored_stand_last(
    show: Any, tmp_path: Path, order: str, first: list[str]
) -> None:
    page = show(few(tmp_path))
    page.select_option("#sort", order)
    assert names(page) == first
    assert page.locator("#detail h2").first.inner_text().startswith(first[0])


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("wrong", ["falls", "low"]),
        ("right", ["good", "labelled", "evil"]),
        ("unscored", ["down"]),
        ("flagged", ["low"]),
        ("disagrees", ["labelled"]),
    ],
)
def test_rollouts_are_filtered(show: Any, tmp_path: Path, kind: str, found: list[str]) -> None:
    page = show(few(tmp_path))
    page.select_option("#filter", kind)
    assert names(page) == found
    assert page.locator("#count").inner_text() == f"{len(found)} of 6 rollouts"


def test_filters_without_meaning_for_a_file_are_not_offered(show: Any, tmp_path: Path) -> None:
    offered = show(few(tmp_path)).locator("#filter option")
    assert "wrong-answer" not in offered.evaluate_all("all => all.map((o) => o.value)")
    offered = show(candidates(tmp_path)).locator("#filter option")
    assert "wrong-answer" in offered.evaluate_all("all => all.map((o) => o.value)")


def test_an_unscored_rollout_says_why(show: Any, tmp_path: Path) -> None:
    page = show(few(tmp_path))
    page.locator(".row", has_text="down").click()
    assert "unscored_ours: engine" in page.locator("#detail").inner_text()
    assert "It is down." in page.locator("#detail").inner_text()


def test_the_keyboard_reaches_everything(show: Any, tmp_path: Path) -> None:
    page = show(few(tmp_path))
    page.focus("#list")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.locator("#detail h2").first.inner_text() == "low"
    assert page.get_attribute("#list", "aria-activedescendant") == "row-2"
    assert page.get_attribute("#row-2", "aria-selected") == "true"
    page.keyboard.press("End")
    assert page.locator("#detail h2").first.inner_text().startswith("evil")
    page.keyboard.press("Home")
    assert page.locator("#detail h2").first.inner_text() == "good"
    page.keyboard.press("/")
    page.keyboard.type("falls")
    assert names(page) == ["falls"]
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "list"


def test_hostile_texts_are_shown_and_do_nothing(show: Any, tmp_path: Path) -> None:
    page = show(few(tmp_path))
    page.locator(".row", has_text="evil").click()
    assert "window.hacked = 1" in page.locator(".steps .t").inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.locator("#detail script, .steps img").count() == 0


def test_candidates_of_a_problem_lead_to_each_other(show: Any, tmp_path: Path) -> None:
    page = show(candidates(tmp_path))
    buttons = page.locator(".others button")
    assert buttons.all_inner_texts() == [
        "p1 [1]: 0.850 ✓ chosen",
        "p1 [2]: 0.575 ✗",
        "p2 [1]: 0.850 ✗",
        "p2 [2]: 0.575 ✓ chosen",
    ]
    buttons.nth(1).click()
    assert page.locator("#detail h2").first.inner_text() == "p1 [2]"
    page.select_option("#filter", "wrong-answer")
    assert page.locator("#count").inner_text() == "2 of 4 rollouts"


def test_5000_rollouts_are_only_as_many_elements_as_fit_the_screen(
    show: Any, tmp_path: Path
) -> None:
    page = show(many(tmp_path, 5000))
    assert page.locator("#count").inner_text() == "5,000 of 5,000 rollouts"
    assert page.locator(".row").count() < 60
    page.focus("#list")
    page.keyboard.press("End")
    page.wait_for_selector("#row-4999")
    assert page.locator("#detail h2").first.inner_text() == "r4999"
    assert page.locator(".row").count() < 60
    page.select_option("#sort", "low-mean")
    means = [float(text.split()[0]) for text in page.locator(".row .mean").all_inner_texts()]
    assert means == sorted(means)
    page.fill("#search", "needle")
    assert names(page) == ["r2500"]
    assert "Here is the needle." in page.locator("#detail").inner_text()
    page.fill("#search", "nothing has these words")
    assert page.locator("#detail").inner_text() == "No rollout fits."


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("make", [few, candidates])
def test_every_text_has_enough_contrast(show: Any, tmp_path: Path, scheme: str, make: Any) -> None:
    page = show(make(tmp_path), scheme=scheme)
    for row in range(page.locator(".row").count()):
        page.locator(".row").nth(row).click()
        assert page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("width", [380, 800, 1300])
def test_nothing_is_wider_than_the_screen(show: Any, tmp_path: Path, width: int) -> None:
    page = show(few(tmp_path), width=width)
    for row in range(6):
        page.locator(".row").nth(row).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
