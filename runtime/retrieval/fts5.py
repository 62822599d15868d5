"""BM25 retrieval over the store's titles and texts, by SQLite's FTS5.

FTS5 scores every passage that has one of the words. If a word is in many passages, that takes longer than all the
rest, and is left out if it can change nothing: a word in half of the passages has no weight, and one in a few
thousand cannot by itself bring a passage among the best if rarer words have found enough (MaxScore, Turtle and Flood
1995).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from glimmer_export.runtime.contract.text_schema import COUNT_MATCHES, COUNT_PASSAGES, FIRST_MATCHES, TEXT_INDEXES
from glimmer_export.runtime.retrieval.hits import Hit
from glimmer_export.runtime.retrieval.words import search_words, unfolded_words
from glimmer_export.runtime.sqlite_file import SqliteFile

__all__ = ["Fts5Index"]

SCORED_AT_ONCE = 4096
"""Passages that are scored in some milliseconds: up to so many a question is asked as it is."""
NO_WEIGHT = 1e-6
"""FTS5's weight of a word that half of the passages or more have."""
MOST_OF_WEIGHT = 2.2
"""k1 + 1: so many times its weight is a word's part of a score, at most."""
KINDS = ((int,), (float,))
"""Of a hit's number and score."""
REMEMBERED = 1 << 16
ALL = -1


class Fts5Index:
    """How the index in a store's file is searched. Safe from several threads."""

    def __init__(self, folding: int) -> None:
        """For an index of this folding; how many passages have a word is counted once."""
        self._words = search_words if folding else unfolded_words
        self._search = TEXT_INDEXES[folding].search
        self._counts: dict[str, int] = {}
        self._num_passages: int | None = None

    def search(self, file: SqliteFile, question: str, top_k: int) -> list[Hit]:
        """The `top_k` passages that fit the question's words best, any of them; a tie goes to the lower number.

        Raises the file's error if it is damaged.
        """
        words = self._words(question)
        if not words or top_k < 1:
            return []
        counts = {word: self._count(file, word) for word in words}
        if sum(counts.values()) <= SCORED_AT_ONCE:
            return self._ranked(file, any_of(words), top_k)
        total = self._total(file)
        weighty = [word for word in words if 2 * counts[word] < total]
        hits = self._best(file, weighty, counts, top_k) if weighty else []
        if len(hits) < top_k and len(weighty) < len(words):
            found = {hit.number for hit in hits}
            rows = file.checked(FIRST_MATCHES, (any_of(set(words) - set(weighty)), top_k + len(found)), KINDS[:1])
            hits += [Hit(number, NO_WEIGHT) for (number,) in rows if number not in found]
        return hits[:top_k]

    def _best(
        self, file: SqliteFile, words: Sequence[str], counts: dict[str, int], top_k: int
    ) -> list[Hit]:
        """The best passages for words that have weight."""
        rare: list[str] = []
        common: list[str] = []
        scored = 0
        for word in sorted(words, key=counts.__getitem__):
            scored += counts[word]
            (rare if scored <= SCORED_AT_ONCE else common).append(word)
        if rare and common:
            total, hits = self._total(file), self._ranked(file, any_of(rare), ALL)
            weights = (math.log((total - counts[word] + 0.5) / (counts[word] + 0.5)) for word in common)
            if len(hits) >= top_k and hits[top_k - 1].score > MOST_OF_WEIGHT * sum(weights):
                # The score is of all words that the query names, so that of a passage with both is complete.
                both = self._ranked(file, f"({any_of(common)}) AND ({any_of(rare)})", ALL)
                complete = {hit.number: hit for hit in [*hits, *both]}
                return sorted(complete.values(), key=lambda hit: (-hit.score, hit.number))[:top_k]
        return self._ranked(file, any_of(words), top_k)

    def _ranked(self, file: SqliteFile, query: str, top_k: int) -> list[Hit]:
        return [Hit(number, score) for number, score in file.checked(self._search, (query, top_k), KINDS)]

    def _count(self, file: SqliteFile, word: str) -> int:
        count = self._counts.get(word)
        if count is None:
            if len(self._counts) >= REMEMBERED:
                self._counts = {}
            count = file.number(COUNT_MATCHES, (any_of([word]),))
            self._counts[word] = count
        return int(count)

    def _total(self, file: SqliteFile) -> int:
        if self._num_passages is None:
            self._num_passages = file.number(COUNT_PASSAGES)
        return self._num_passages or 0


def any_of(words: Iterable[str]) -> str:
    """The query for any of some words; in quotes they are no operators."""
    return " OR ".join(f'"{word}"' for word in words)
