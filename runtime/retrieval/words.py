"""The words of a question that a full-text index is searched for. Any text at all has some, or none."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["search_words"]

WORD = re.compile(r"[^\W_]+")
STOP_WORDS = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "been", "by", "can", "did", "do", "does", "for", "from", "had", "has",
    "have", "how", "i", "in", "is", "it", "its", "of", "on", "or", "s", "t", "that", "the", "their", "there", "they",
    "this", "to", "was", "were", "what", "when", "where", "which", "who", "whom", "whose", "why", "will", "with", "you",
})


def search_words(question: str) -> list[str]:
    """The distinct words to search for, in order; stop words only where there is nothing else.

    Composed first (NFC): a letter and its combining accent are one letter to the index, and must not split a word here.
    """
    words = list(dict.fromkeys(WORD.findall(unicodedata.normalize("NFC", question).lower())))
    return [word for word in words if word not in STOP_WORDS] or words
