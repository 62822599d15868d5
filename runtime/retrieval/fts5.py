"""BM25 retrieval over the store's titles and texts, by SQLite's FTS5."""

from __future__ import annotations

import sqlite3

from runtime.contract.text_schema import TEXT_INDEXES
from runtime.retrieval.hits import Hit
from runtime.retrieval.unfolded import unfolded_words
from runtime.retrieval.words import search_words

__all__ = ["search_index"]


def search_index(connection: sqlite3.Connection, question: str, top_k: int, *, folding: int) -> list[Hit]:
    """The `top_k` passages that fit the question's words best, any of them; a tie goes to the lower number.

    `folding` is that of the index. Raises sqlite3.Error where the file is damaged or FTS5 is absent.
    """
    words = search_words(question) if folding else unfolded_words(question)
    if not words or top_k < 1:
        return []
    rows = connection.execute(TEXT_INDEXES[folding].search, (" OR ".join(f'"{word}"' for word in words), top_k))
    return [Hit(number, score) for number, score in rows]
