"""The final answer that a response states, and whether it equals a reference as text."""

import re

_MARKED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL)
_STATED = re.compile(r"\banswer\s*(?:is|:|=)+\s*(?P<answer>[^\n]+)", re.IGNORECASE)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"[{}]")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")


def answer_part(response: str) -> str:
    """What stands behind the policy's thinking, and of this the inside of `<answer>`."""
    rest = response.rpartition("</think>")[2]
    marked = _MARKED.findall(rest)
    return marked[-1] if marked else rest


def final_answer(response: str) -> str | None:
    r"""The answer that a response states, or None.

    The last `\boxed{...}` with balanced braces behind the thinking, else the inside of `<answer>`,
    else the rest of the line behind the last "answer is" or "answer:".
    """
    rest = answer_part(response)
    boxed = _last_boxed(rest)
    if boxed is not None:
        return boxed.strip()
    if _MARKED.search(response.rpartition("</think>")[2]):
        return rest.strip() or None
    stated = [match["answer"] for match in _STATED.finditer(rest)]
    return stated[-1].strip() if stated else None


def same_text(answer: str, reference: str) -> bool:
    """Whether two answers are equal but for case, white space, `$`, `\text{}` and a last stop."""
    return _plain(answer) == _plain(reference)


def _plain(answer: str) -> str:
    answer = _WRAPPED.sub(r"\1", answer)
    answer = answer.replace("\\(", "").replace("\\)", "").replace("$", "").replace("*", "")
    return " ".join(answer.split()).rstrip(".").strip().casefold()


def _last_boxed(text: str) -> str | None:
    """The inside of the last box whose braces close. One pass: a policy may open thousands."""
    boxes = {match.end() for match in _BOXED.finditer(text)}
    opened: list[int] = []
    last: tuple[int, int] | None = None
    for brace in _BRACE.finditer(text):
        if brace.group() == "{":
            opened.append(brace.end())
        elif opened:
            start = opened.pop()
            if start in boxes and (last is None or start > last[0]):
                last = start, brace.start()
    return None if last is None else text[slice(*last)]
