"""Command lines in the documents name commands and options that exist, with usable values."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from vrprm_reward.cli import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]


def command_lines(text: str) -> list[str]:
    """Lines of fenced blocks that run `vrprm-reward`, continuation lines joined."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [re.match(r"(?:\$ )?(vrprm-reward .*)", line) for line in lines]
    return [line[1] for line in found if line]


LINES = [
    pytest.param(line, id=f"{path.name}: {line[:60]}")
    for path in DOCUMENTS
    for line in command_lines(path.read_text(encoding="utf-8"))
]


def test_there_are_command_lines_to_look_at():
    assert len(LINES) > 20


@pytest.mark.parametrize("line", LINES)
def test_a_documented_command_line_is_understood(line):
    words = [word for word in shlex.split(line, comments=True)[1:] if word != "…"]
    command = typer.main.get_command(app)
    context = command.make_context("vrprm-reward", words)
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(context, words)
        context = command.make_context(name, list(words), parent=context)
    assert not context.args
