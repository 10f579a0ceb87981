import json
import re

import pytest
from PIL import Image
from typer.testing import CliRunner

from vrprm_openrlhf.data import Columns, prepared_row
from vrprm_reward.cli import app
from vrprm_reward.errors import RowError
from vrprm_reward.images import ImageSettings
from vrprm_reward.openrlhf_wire import read_label


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (32, 24), "red").save(tmp_path / "pictures" / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    return tmp_path


def prepare(folder, row, **columns):
    images = ImageSettings(root=folder)
    return prepared_row(row, line=7, columns=Columns(**columns), images=images)


def good(**more):
    return {"question": "How many?", "images": "pictures/a.png", "answer": 3, **more}


def test_a_row_has_prompt_images_and_a_label_that_the_reward_can_read(folder):
    path = str(folder / "pictures" / "a.png")
    found = prepare(folder, good(), system="Think.")
    assert found == {
        "prompt": [
            {"role": "system", "content": "Think."},
            {"role": "user", "content": "<image>How many?"},
        ],
        "images": [path],
        "label": {"question": "How many?", "images": [path], "answer": "3"},
        "datasource": "default",
    }
    assert read_label(found["label"]) == ("How many?", (path,), "3")
    assert read_label(json.dumps(found["label"])).images == (path,)


def test_placeholders_stay_where_they_are(folder):
    row = good(question="Is <image> like <image>?", images=["pictures/a.png"] * 2)
    assert prepare(folder, row)["prompt"][0]["content"] == "Is <image> like <image>?"


def test_images_that_came_along_become_data_urls(folder):
    data = (folder / "pictures" / "a.png").read_bytes()
    for value in (data, {"bytes": data, "path": None}, {"bytes": None, "path": "pictures/a.png"}):
        (image,) = prepare(folder, good(images=[value]))["images"]
        assert image.startswith(("data:image/png;base64,", str(folder)))


def test_keys_may_have_other_names(folder):
    row = {"problem": "Q?", "image": "pictures/a.png", "solution": "x", "datasource": "geo"}
    found = prepare(folder, row, question="problem", images="image", answer="solution")
    assert (found["label"]["question"], found["label"]["answer"]) == ("Q?", "x")
    assert found["datasource"] == "geo"


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"question": " "}, "question", "empty"),
        ({"question": None}, "question", "missing"),
        ({"question": "<image> and <image>?"}, "question", "2 times <image>, but 1 images"),
        ({"images": None}, "images", "missing"),
        ({"images": []}, "images", "missing"),
        ({"images": [3]}, "images", "not a path"),
        ({"images": "pictures/none.png"}, "images", "none.png"),
        ({"images": "broken.png"}, "images", "broken.png"),
        ({"answer": None}, "answer", "--no-answers"),
        ({"answer": [3]}, "answer", "--no-answers"),
        ({"answer": True}, "answer", "--no-answers"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_field(folder, change, field, says):
    with pytest.raises(RowError, match=re.escape(says)) as caught:
        prepare(folder, good(**change))
    assert (caught.value.line, caught.value.field) == (7, field)


def run(*arguments):
    return CliRunner().invoke(app, ["openrlhf-data", *map(str, arguments)])


def test_the_command_writes_the_good_rows_and_reports_the_others(folder):
    rows = [good(), good(answer=None), good(question="And now?"), [1]]
    source = folder / "in.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)) + "\n{", encoding="utf-8")
    ended = run(source, folder / "out.jsonl")
    assert ended.exit_code == 1
    assert "wrote 2 rows" in ended.output
    for text in ("line 2, field 'answer'", "line 4", "line 5"):
        assert text in ended.output
    written = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [row["label"]["question"] for row in written] == ["How many?", "And now?"]
    assert len({json.dumps(row, sort_keys=True).translate({}) for row in written}) == 2


def test_answers_may_be_left_out_for_all_rows(folder):
    source = folder / "in.jsonl"
    source.write_text(json.dumps(good()), encoding="utf-8")
    assert run(source, folder / "out.jsonl", "--no-answers").exit_code == 0
    assert json.loads((folder / "out.jsonl").read_text())["label"]["answer"] is None


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("in.jsonl", "in.jsonl", "is the input file"),
        ("in.jsonl", "out.csv", "neither .jsonl nor .parquet"),
        ("in.csv", "out.jsonl", "neither .jsonl nor .parquet"),
        ("none.jsonl", "out.jsonl", "cannot be read"),
        ("bad.jsonl", "out.jsonl", "no row that can be used"),
    ],
)
def test_without_anything_to_write_nothing_is_written(folder, source, target, says):
    (folder / "in.jsonl").write_text(json.dumps(good()), encoding="utf-8")
    (folder / "in.csv").write_text("a", encoding="utf-8")
    (folder / "bad.jsonl").write_text("{}", encoding="utf-8")
    ended = run(folder / source, folder / target)
    assert ended.exit_code == 2
    assert says in ended.output
    assert not (folder / "out.jsonl").exists()
    assert not list(folder.glob(".vrprm*"))
