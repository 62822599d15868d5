"""How an index of folding 0 is searched, whose engine made its own words: a store of before they were folded."""

from __future__ import annotations

import unicodedata

__all__ = ["unfolded_words"]

LETTERS, NUMBERS, MARKS = "L", "N", "M"
"""Of the categories of Unicode, those whose characters make a word: a mark is part of the letter before it."""
STOP_WORDS = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "been", "by", "can", "did", "do", "does", "for", "from", "had", "has",
    "have", "how", "i", "in", "is", "it", "its", "of", "on", "or", "s", "t", "that", "the", "their", "there", "they",
    "this", "to", "was", "were", "what", "when", "where", "which", "who", "whom", "whose", "why", "will", "with", "you",
})


def unfolded_words(question: str) -> list[str]:
    """The distinct words to search for, in order; stop words only where there is nothing else.

    Composed first (NFC): a letter and its combining accent are one letter to the index, and must not split a word here.
    A word keeps its case, as the index has its own way to drop it: Python's would make two characters of a capital İ.
    """
    composed = unicodedata.normalize("NFC", question)
    spaced = "".join(character if _is_of_word(character) else " " for character in composed)
    words: dict[str, str] = {}
    for word in spaced.split():
        words.setdefault(word.lower(), word)
    return [word for lower, word in words.items() if lower not in STOP_WORDS] or list(words.values())


def _is_of_word(character: str) -> bool:
    return unicodedata.category(character)[0] in (LETTERS, NUMBERS, MARKS)
