"""Text that shows nothing to a reader, however many characters it has."""

import unicodedata

_BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Signs that Unicode counts as letters or symbols and that show nothing."""


def is_invisible(character: str) -> bool:
    """Whether a character shows nothing by itself and is not white space.

    Control and format characters, marks without a letter, what Unicode has not assigned, and the
    fillers of Hangul and Braille.
    """
    return unicodedata.category(character)[0] in "CM" or character in _BLANK_LETTERS


def is_blank(text: str) -> bool:
    """Whether a text is empty or nothing but white space and invisible characters."""
    return all(character.isspace() or is_invisible(character) for character in text)
