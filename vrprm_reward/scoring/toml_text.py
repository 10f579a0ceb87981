"""A profile as TOML text that reads back to the same profile."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from vrprm_reward.scoring.profile import Profile

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\r": "\\r"}


def profile_toml(profile: Profile, comments: Iterable[str] = ()) -> str:
    """All keys of a profile, defaults too, with comment lines above them."""
    lines = [f"# {one}".rstrip() for comment in comments for one in comment.splitlines()]
    lines += [""] * bool(lines)
    values = profile.model_dump()
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    lines += _pairs({key: value for key, value in values.items() if key not in tables})
    for name, table in tables.items():
        pairs = _pairs(table)
        lines += ["", f"[{name}]", *pairs] if pairs else []
    return "\n".join(lines) + "\n"


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in values.items() if value is not None]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _string(value)
    return f"[{', '.join(_value(item) for item in value)}]"


def _string(text: str) -> str:
    lines = "\n" in text.strip("\n")
    # A literal string keeps backslashes as they are, which LaTeX and Jinja are full of.
    quote = "'''" if lines else "'"
    hard = _CONTROL.search(text) or quote in text or text.endswith("'")
    if lines and not hard:
        return f"'''\n{text}'''"
    if ("\\" in text or '"' in text) and "\n" not in text and not hard:
        return f"'{text}'"
    escaped = re.sub(r'[\\"\r]', lambda sign: _ESCAPES[sign[0]], text)
    escaped = _CONTROL.sub(lambda sign: f"\\u{ord(sign[0]):04x}", escaped)
    if lines:
        return f'"""\n{escaped}"""'
    return '"' + escaped.replace("\n", "\\n") + '"'
