"""Make text from a problem or a response safe to show to a judge, changing as little as possible.

A policy under training writes whatever raises its reward, markup of the judge's prompt included.
Only four things are changed, and all else passes byte for byte:

- (a) a string that the tokenizer turns into a reserved token: its first character is set apart;
- (b) a line that is nothing but a section marker of the profile: it is put in quotes;
- (c) a line that is nothing but a verdict: it is put in quotes;
- (d) the delimiters of thinking, answers and steps: as (a).

Text is only ever added, never removed, so a change cannot bring about another reserved string.
"""

import re
import unicodedata
from collections.abc import Iterable

from vrprm_reward.scoring.profile import Profile

DELIMITERS = ("<think>", "</think>", "<answer>", "</answer>", "<step split>")

_LINE_BREAK = re.compile("(\r\n|[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029])")
_VERDICT = re.compile(
    r"step\s*\d+\s*[:.]\s*(?:[01]|\\?boxed\s*\{\s*[01]\s*\}|\\boxed\s*[01])\s*\.?"
)


class Neutraliser:
    """Applies the four rules for one profile and one tokenizer.

    Args:
        profile: gives the section markers and the form of a verdict line.
        added_tokens: strings the tokenizer turns into a reserved token.
    """

    def __init__(self, profile: Profile, added_tokens: Iterable[str]) -> None:
        self._profile = profile
        reserved = {token for token in added_tokens if token.strip()} | set(DELIMITERS)
        rules = profile.think
        self._thinking = (rules.opening, rules.closing) if rules else ()
        reserved |= set(self._thinking)
        longest_first = sorted(reserved, key=lambda token: (-len(token), token))
        self._reserved = re.compile("|".join(map(re.escape, longest_first)))
        self._markers = {_folded(marker) for marker in profile.sections.markers}

    def text(self, text: str) -> str:
        """Text that stands in a prompt on lines of its own (a question, an answer, thinking)."""
        pieces = _LINE_BREAK.split(self._set_apart(text))
        return "".join(f'"{piece}"' if self._forges(piece) else piece for piece in pieces)

    def generated(self, text: str) -> str:
        """Text the reward model generated, before it is read: only reserved strings that are no
        delimiter of thinking are taken apart, so that it tokenises as text wherever it is shown.
        """
        return self._set_apart(text, keep_thinking=True)

    def step(self, index: int, text: str) -> str:
        """Text of step `index`, which a prompt shows behind its number.

        A step that is a bare verdict would make a verdict line together with its number.
        """
        first, *rest = _LINE_BREAK.split(self._set_apart(text))
        label = f"Step {index + self._profile.steps.first_number}: {first}"
        if self._forges(first) or self._forges(label):
            first = f'"{first}"'
        return first + "".join(f'"{piece}"' if self._forges(piece) else piece for piece in rest)

    def _set_apart(self, text: str, keep_thinking: bool = False) -> str:
        kept = self._thinking if keep_thinking else ()

        def apart(match: re.Match[str]) -> str:
            return match[0] if match[0] in kept else f"{match[0][0]} {match[0][1:]}"

        changed = self._reserved.sub(apart, text)
        return changed if changed == text else self._set_apart(changed, keep_thinking)

    def _forges(self, line: str) -> bool:
        folded = _folded(line)
        return folded in self._markers or _VERDICT.fullmatch(folded) is not None


def _folded(line: str) -> str:
    """A line as a reader sees it: compatibility forms and case folded, invisible signs dropped."""
    if line.isascii():
        return line.strip().lower()
    visible = "".join(c for c in line if unicodedata.category(c) not in ("Cf", "Mn", "Cc"))
    return unicodedata.normalize("NFKC", visible).strip().lower()
