"""The final answer that a response states, and whether it equals a reference as text."""

import re

_MARKED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL)
_STATED = re.compile(
    r"""(?: (?:\banswer|答案)\**+
            (?:\s*(?:is\b|(?:must|should|will)\s++be\b|[:：=是为為]|[选選](?![项項])))++
            (?:\s++(?:therefore|thus|hence|then|so|indeed|clearly|simply)\b,?)?+
          | \b(?:option|choice)\s++is\b:?(?=\s*+[*(\[]*+(?-i:[A-J])(?![\w'-]))
          | ^[ \t]*+\#*+[ \t]*+\**+(?:final\s++)?answer\**+[^\S\n]*+\n
        )\s*+(?=\S)""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"[{}]")
_WRAPPED = re.compile(r"\\(?:text|math)(?:bf|it|rm|sf)?\s*\{([^{}]*)\}")
_WIDE = str.maketrans("（）［］【】：，；．", "()[][]:,;.")

_LETTER_ALONE = re.compile(r"[(\[]?\s*([A-Ja-j])\s*[)\]]?")
# Possessive where white space could be shared out in many ways: the text is a policy's.
_OPTION = re.compile(
    r"""(?:(?i:(?:the\s+)?(?:option|choice))|[选選][项項])\s*+[(\[]?\s*+([A-J])(?![\w'-])
      | [(\[]\s*([A-J])\s*[)\]](?!\s*[+*/^_=])
      | ([A-J])(?=\s*(?:\Z|\n|[)\]:,;、。]|\.(?![A-Za-z])))""",
    re.VERBOSE,
)
_NEXT_OPTION = re.compile(
    r"""[)\].]?[^\S\n]*+(?:
        (?:(?:[,;/&、或和\n]|or\b|and\b)\s*+)++(?i:option|choice)?+\s*+[(\[]?\s*+([A-J])
            (?![\w'-]|\s+(?!or\b|and\b)[a-z])  # "(B), A circle" has one option
      | [(\[]\s*([A-J])\s*[)\]])""",
    re.VERBOSE,
)
_OR_OPTION = re.compile(
    r"(?:\bor\b|或)\s*+(?i:option|choice)?+\s*+"
    r"(?:[(\[]\s*([A-J])\s*[)\]]|([A-J])(?:\)|[.:]\s*\S))"
)
_WORDS = re.compile(r"(?=.*[^\W\d_]{2})[^\W\d_]+(?:\s+[^\W\d_]+)*", re.DOTALL)
_PERCENTAGE = re.compile(r"\+?(-?[\d.,]*\d)\s*(?:\\?%|percent)", re.IGNORECASE)


def answer_part(response: str) -> str:
    """What stands behind the policy's thinking, and of this the inside of `<answer>`."""
    rest = response.rpartition("</think>")[2]
    marked = _MARKED.findall(rest)
    return marked[-1] if marked else rest


def final_answer(response: str) -> str | None:
    r"""The answer that a response states, or None.

    The last `\boxed{...}` with balanced braces behind the thinking, else the inside of `<answer>`,
    else the rest of the line behind the last "answer is", "answer must be", "answer:" or "答案：",
    "option is B" or "choice is B", or a heading "Answer".
    """
    rest = answer_part(response)
    boxed = _last_boxed(rest)
    if boxed is not None:
        return boxed.strip()
    if _MARKED.search(response.rpartition("</think>")[2]):
        return rest.strip() or None
    ends = [marker.end() for marker in _STATED.finditer(rest)]
    return rest[ends[-1] :].partition("\n")[0].strip() if ends else None


def last_line(response: str) -> str:
    """The last line of `answer_part` that is not blank; empty without one."""
    return answer_part(response).rstrip().rpartition("\n")[2].strip()


def same_text(answer: str, reference: str) -> bool:
    r"""Whether two answers are equal but for their dress.

    This is case, white space, `$`, `\text{}`, `*`, a last full stop, and brackets around the letter
    of an option: `(B).` equals `B`. Other brackets may be an interval's and stay.
    """
    return _plain(answer) == _plain(reference)


def text_verdict(answer: str, reference: str) -> bool | None:
    r"""Whether two answers are equal, where text decides this; None where mathematics has to.

    - Equal texts (`same_text`) are equal.
    - Options of a multiple-choice question: one of the two is a letter A to J alone, the other
      begins with one (`B) 12 cm`, `(B)`, `option B`): their letters decide. A capital counts where
      the text ends, or a bracket, full stop, colon, semicolon or comma follows, so that "A cat"
      is no option; neither are two different ones (`A or B`).
    - Plain words: a computer algebra system multiplies letters, and takes `act` for `cat`. So texts
      of letters alone, at least two of them side by side, are equal only as texts. This holds for
      `\boxed{ba}` against `ab` too; write such a product in math mode (`$ba$`), with an operator
      (`b*a`) or with a space (`b a`) on either side to have it taken for algebra.
    """
    if same_text(answer, reference):
        return True
    one, other = _option(answer), _option(reference)
    if one is not None and other is not None and (_is_letter(answer) or _is_letter(reference)):
        return one == other
    if _WORDS.fullmatch(_undressed(answer)) and _WORDS.fullmatch(_undressed(reference)):
        return False
    return None


def percentage(answer: str) -> str | None:
    r"""The number of an answer that is one number in percent: `50` of `$50\%$`. Else None."""
    found = _PERCENTAGE.fullmatch(_undressed(_without_math_mode(answer)))
    return found[1] if found else None


def _plain(answer: str) -> str:
    answer = _undressed(_without_math_mode(answer))
    letter = _LETTER_ALONE.fullmatch(answer)
    return letter[1].casefold() if letter else " ".join(answer.split()).casefold()


def _option(answer: str) -> str | None:
    """The letter of the only option that an answer begins with."""
    answer = _undressed(_without_math_mode(answer))
    found = _OPTION.match(answer)
    if found is None:
        return None
    letter, rest = found[found.lastindex or 0], answer[found.end() :]
    for further in (_NEXT_OPTION.match(rest), _OR_OPTION.search(rest)):
        if further and further[further.lastindex or 0] != letter:
            return None
    return letter


def _is_letter(answer: str) -> bool:
    return _LETTER_ALONE.fullmatch(_undressed(_without_math_mode(answer))) is not None


def _without_math_mode(answer: str) -> str:
    answer = _WRAPPED.sub(r"\1", answer)
    return answer.replace("\\(", "").replace("\\)", "").replace("$", "").replace("*", "")


def _undressed(answer: str) -> str:
    """Without text commands, wide brackets, bold type and a last full stop; still in math mode."""
    answer = _WRAPPED.sub(r"\1", answer).translate(_WIDE)
    return answer.strip().strip("*").rstrip(".。").strip().strip("*").strip()


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
