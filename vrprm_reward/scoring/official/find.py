"""Look for known texts in a folder of Python and template files, without running any of it."""

import ast
import inspect
import os
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vrprm_reward.errors import InputError
from vrprm_reward.scoring.official.registry import REGISTRY, Constant, fingerprint

MAX_FILE_BYTES = 2_000_000
"""Larger files are skipped and reported."""

MAX_FILES = 20_000
"""A folder with more Python and template files than this is refused."""

_PYTHON = (".py",)
_TEMPLATES = (".jinja", ".jinja2", ".j2", ".txt")
_IGNORED_FOLDERS = ("__pycache__", "node_modules")

_STRIP = {"strip": str.strip, "lstrip": str.lstrip, "rstrip": str.rstrip}
_MARKER_LINE = re.compile(r"(?:\A|\n)\[[^\[\]\n]+\]\n")


@dataclass(frozen=True, order=True)
class Place:
    """Where a text stands."""

    path: str
    """Relative to the folder that was searched, with forward slashes."""

    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass
class Findings:
    """What a search found."""

    texts: dict[str, str] = field(default_factory=dict)
    """Name of a known constant -> its text."""

    places: dict[str, list[Place]] = field(default_factory=dict)
    """Name of a known constant -> every place that has it."""

    skipped: dict[str, str] = field(default_factory=dict)
    """Path of what was not searched -> why."""

    files: int = 0
    """Files that were searched."""


def find_constants(root: Path, registry: Sequence[Constant] = REGISTRY) -> Findings:
    """Search all Python and template files below `root` for the texts of a registry.

    Every string of a Python file counts, wherever it stands: implicit and explicit concatenation,
    the literal pieces of f-strings, `textwrap.dedent`, `inspect.cleandoc`, `strip` and `join`
    of literals. A text is also found with white space around it, and behind the last line of a
    string that is nothing but a section marker. Hidden folders and links to folders are left out.

    Args:
        root: a folder, or one file.
        registry: the texts to look for.

    Raises:
        InputError: there is no such folder or file, or it has too many files.
    """
    if not root.exists():
        raise InputError(f"no folder or file {str(root)!r}: pass a checkout of the VRPRM project")
    findings = Findings()
    known = {(constant.chars, constant.sha256): constant.name for constant in registry}
    lengths = {constant.chars for constant in registry}
    for path, name in _files(root, findings):
        strings = _strings_of(path, name, findings)
        if strings is None:
            continue
        findings.files += 1
        for text, line in strings:
            for form in _forms(text):
                if len(form) not in lengths:
                    continue
                constant = known.get((len(form), fingerprint(form)))
                if constant is not None:
                    findings.texts[constant] = form
                    findings.places.setdefault(constant, []).append(Place(name, line))
    for constant, places in findings.places.items():
        findings.places[constant] = sorted(set(places))
    return findings


def _files(root: Path, findings: Findings) -> Iterator[tuple[Path, str]]:
    """Python and template files in a fixed order, with their names relative to `root`."""
    if not root.is_dir():
        yield root, root.name
        return

    def unreadable(error: OSError) -> None:
        name = os.path.relpath(error.filename or root, root)
        findings.skipped[name] = error.strerror or str(error)

    count = 0
    for folder, subfolders, files in os.walk(root, onerror=unreadable):
        here = Path(folder)
        for name in sorted(subfolders):
            if (here / name).is_symlink():
                where = (here / name).relative_to(root).as_posix()
                findings.skipped[where] = "is a link to a folder"
        subfolders[:] = sorted(
            name for name in subfolders if name[0] != "." and name not in _IGNORED_FOLDERS
        )
        for name in sorted(files):
            if not name.lower().endswith(_PYTHON + _TEMPLATES):
                continue
            count += 1
            if count > MAX_FILES:
                raise InputError(
                    f"{str(root)!r} has more than {MAX_FILES} Python and template files: pass the "
                    "checkout of the VRPRM project alone"
                )
            yield here / name, (here / name).relative_to(root).as_posix()


def _strings_of(path: Path, name: str, findings: Findings) -> list[tuple[str, int]] | None:
    """All strings of a file with their lines; None, and a reason noted, if it is skipped."""
    try:
        if not path.is_file():
            findings.skipped[name] = "is not a file, or a link that leads nowhere"
            return None
        if path.stat().st_size > MAX_FILE_BYTES:
            findings.skipped[name] = f"is larger than {MAX_FILE_BYTES} bytes"
            return None
        text = path.read_bytes().decode("utf-8-sig")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if not name.lower().endswith(_PYTHON):
            return [(text, 1)]
        with warnings.catch_warnings():
            # Invalid escapes in somebody else's file are not this program's warnings.
            warnings.simplefilter("ignore")
            return list(_literals(ast.parse(text)))
    except OSError as error:
        findings.skipped[name] = error.strerror or str(error)
    except UnicodeDecodeError:
        findings.skipped[name] = "is not UTF-8"
    except SyntaxError as error:
        findings.skipped[name] = f"is not valid Python: {error.msg} (line {error.lineno})"
    except (ValueError, RecursionError, MemoryError) as error:
        findings.skipped[name] = f"cannot be parsed: {type(error).__name__} {error}".rstrip()
    return None


def _literals(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        text = _value(node)
        if text is not None:
            yield text, getattr(node, "lineno", 1)


def _value(node: ast.AST) -> str | None:
    """The string that an expression of literals stands for; None for anything else."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return _joined(parts, "")
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _joined((left, right), "")
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            return _called(name, _value(argument))
        case ast.Call(func=ast.Attribute(value=target, attr=name), args=arguments, keywords=[]):
            return _method(target, name, arguments)
    return None


def _method(target: ast.expr, name: str, arguments: list[ast.expr]) -> str | None:
    match target, arguments:
        case ast.Name(id="textwrap" | "inspect"), [argument]:
            return _called(name, _value(argument))
        case _, [ast.List(elts=parts) | ast.Tuple(elts=parts)] if name == "join":
            between = _value(target)
            return None if between is None else _joined(parts, between)
        case _, [] if name in _STRIP:
            text = _value(target)
            return None if text is None else _STRIP[name](text)
    return None


def _called(name: str, text: str | None) -> str | None:
    if text is None:
        return None
    if name == "dedent":
        return textwrap.dedent(text)
    return inspect.cleandoc(text) if name == "cleandoc" else None


def _joined(parts: Iterable[ast.expr], between: str) -> str | None:
    texts = [_value(part) for part in parts]
    known = [text for text in texts if text is not None]
    return between.join(known) if len(known) == len(texts) else None


def _forms(text: str) -> set[str]:
    """The texts that a string may hold: itself, stripped, and behind its last marker line."""
    forms = {text, text.strip()}
    markers = list(_MARKER_LINE.finditer(text))
    if markers:
        forms.add(text[markers[-1].end() :].strip())
    return forms
