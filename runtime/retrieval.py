"""BM25 retrieval over the store's titles and texts, by SQLite's FTS5. Any text at all is a valid query."""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from dataclasses import dataclass

from runtime.contract.text_schema import SEARCH

__all__ = ["Hit", "search_index", "search_words"]

WORD = re.compile(r"[^\W_]+")
STOP_WORDS = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "been", "by", "can", "did", "do", "does", "for", "from", "had", "has",
    "have", "how", "i", "in", "is", "it", "its", "of", "on", "or", "s", "t", "that", "the", "their", "there", "they",
    "this", "to", "was", "were", "what", "when", "where", "which", "who", "whom", "whose", "why", "will", "with", "you",
})


@dataclass(frozen=True)
class Hit:
    """A retrieved passage: its number, and its BM25 score, where higher is better."""

    number: int
    score: float


def search_words(question: str) -> list[str]:
    """The distinct words to search for, in order; stop words only where there is nothing else.

    Composed first (NFC): a letter and its combining accent are one letter to the index, and must not split a word here.
    """
    words = list(dict.fromkeys(WORD.findall(unicodedata.normalize("NFC", question).lower())))
    return [word for word in words if word not in STOP_WORDS] or words


def search_index(connection: sqlite3.Connection, question: str, top_k: int) -> list[Hit]:
    """The `top_k` passages that fit the question's words best, any of them; a tie goes to the lower number.

    Raises sqlite3.Error where the file is damaged or FTS5 is absent.
    """
    words = search_words(question)
    if not words or top_k < 1:
        return []
    rows = connection.execute(SEARCH, (" OR ".join(f'"{word}"' for word in words), top_k))
    return [Hit(number, score) for number, score in rows]
