"""The words of a question that a full-text index is searched for. Any text at all has some, or none."""

from __future__ import annotations

import re
import unicodedata

from glimmer_export.runtime.retrieval.folding import fold, question_words

__all__ = ["search_words", "unfolded_words"]

WORD = re.compile(r"[^\W_]+")
ARTICLES = frozenset({"a", "an", "the"})
ASKING = frozenset({
    "are", "can", "did", "do", "does", "had", "has", "have", "how", "is", "was", "were", "what", "when", "where",
    "which", "who", "whom", "whose", "why",
})
"""Stop words that begin a question, where a capital says nothing."""
GLUE = frozenset({*ARTICLES, "and", "as", "at", "by", "for", "from", "in", "of", "on", "or", "to", "with"})
"""Stop words that say nothing in a name either, so long as it has another word."""
STOP_WORDS = frozenset({*ASKING, *GLUE, "be", "i", "it", "its", "s", "t", "that", "there", "they"})
LETTERS, NUMBERS, MARKS = "L", "N", "M"
"""Of the categories of Unicode, those whose characters make a word: a mark is part of the letter before it."""
UNFOLDED_STOP_WORDS = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "been", "by", "can", "did", "do", "does", "for", "from", "had", "has",
    "have", "how", "i", "in", "is", "it", "its", "of", "on", "or", "s", "t", "that", "the", "their", "there", "they",
    "this", "to", "was", "were", "what", "when", "where", "which", "who", "whom", "whose", "why", "will", "with", "you",
})


def search_words(question: str) -> list[str]:
    """The distinct words to search for, folded, in order; stop words only in a name, or if there is nothing else."""
    words = question_words(question)
    if all(word in STOP_WORDS for word in words):
        return words
    named = _named(question)
    return [word for word in words if word not in STOP_WORDS or word in named]


def _named(question: str) -> set[str]:
    """The stop words that are part of a name: after an article ("the who"), or with a capital that has no other reason.

    The first word's has one, and that of I, unless a neighbour has a capital too; where all is in capitals, they say
    nothing.
    """
    if question.isupper():
        return set()
    words = WORD.findall(question)
    named = set()
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        lower = word.lower()
        beside = after[:1].isupper() or before[:1].isupper()
        capital = word[0].isupper() and (beside if word == "I" else bool(before) or (beside and lower not in ASKING))
        if lower in STOP_WORDS and lower not in GLUE and (capital or before.lower() in ARTICLES):
            named.add(fold(word))
    return named


def unfolded_words(question: str) -> list[str]:
    """The distinct words to search for, in order; stop words only if there is nothing else.

    Composed first (NFC): a letter and its combining accent are one letter to the index, and must not split a word here.
    A word keeps its case, as the index has its own way to drop it: Python's would make two characters of a capital İ.
    """
    composed = unicodedata.normalize("NFC", question)
    spaced = "".join(character if _is_of_word(character) else " " for character in composed)
    words: dict[str, str] = {}
    for word in spaced.split():
        words.setdefault(word.lower(), word)
    return [word for lower, word in words.items() if lower not in UNFOLDED_STOP_WORDS] or list(words.values())


def _is_of_word(character: str) -> bool:
    return unicodedata.category(character)[0] in (LETTERS, NUMBERS, MARKS)
