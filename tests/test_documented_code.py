"""Python code in the documents runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = [
    (path, number, code)
    for path in (
        "README.md",
        "docs/demo.md",
        "docs/rewards.md",
        "docs/sampling.md",
        "docs/scoring-files.md",
    )
    for number, code in enumerate(
        re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(encoding="utf-8"), re.DOTALL)
    )
    if "import" in code
]


@pytest.mark.parametrize(
    ("path", "number", "code"), BLOCKS, ids=[f"{path}-{number}" for path, number, _ in BLOCKS]
)
def test_documented_code_runs(path, number, code, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(code, f"{path}, block {number}", "exec"), {})
    assert capsys.readouterr().out
