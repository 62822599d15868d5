"""BM25 retrieval by tantivy: how a passage's words are indexed, and how they are found.

Title and text are one field, the title in it twice. tantivy's BM25 has fixed constants (k1 = 1.2, b = 0.75) and adds
the scores of several fields up, each with its own count of a word; in one field a word's count is that of the whole
passage, and the title weighs two.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.contract import StoreError
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line, is_panic
from glimmer_export.runtime.contract.store_layout import FOLDING, SegmentEntry
from glimmer_export.runtime.retrieval.folding import passage_words
from glimmer_export.runtime.retrieval.hits import Hit, first_of_equals, import_extra, steady
from glimmer_export.runtime.retrieval.tantivy_segments import INDEX_FIX, IndexPart, index_parts, lay_out
from glimmer_export.runtime.retrieval.words import search_words, unfolded_words

__all__ = [
    "NUMBER", "PASSAGE", "WORD_FORMS", "TantivyIndex", "import_tantivy", "index_schema", "indexed_text",
    "tantivy_errors", "word_forms",
]

NUMBER, PASSAGE = "number", "passage"
WORD_FORMS = "word_forms"
MAX_WORD_BYTES = 255
"""A longer one is no word; the index holds terms of less than 64 KiB."""


def import_tantivy() -> Any:
    """The package; raises MissingExtraError if it is not installed."""
    return import_extra("tantivy", "retrieval")


def word_forms(folding: int = FOLDING) -> Any:
    """The analyser of passages and questions: English stems of words, which if they are not folded it finds itself.

    Those it finds are in lower case and without accents, and none is longer than MAX_WORD_BYTES.
    """
    tantivy = import_tantivy()
    builder, stems = tantivy.TextAnalyzerBuilder, tantivy.Filter.stemmer("english")
    if folding:
        return builder(tantivy.Tokenizer.whitespace()).filter(stems).build()
    own = builder(tantivy.Tokenizer.simple()).filter(tantivy.Filter.remove_long(MAX_WORD_BYTES))
    return own.filter(tantivy.Filter.lowercase()).filter(tantivy.Filter.ascii_fold()).filter(stems).build()


def index_schema() -> Any:
    """Passage numbers to read, and word counts to search: no positions, no texts."""
    builder = import_tantivy().SchemaBuilder()
    builder.add_unsigned_field(NUMBER, fast=True)
    builder.add_text_field(PASSAGE, tokenizer_name=WORD_FORMS, index_option="freq")
    return builder.build()


def indexed_text(title: str, text: str, folding: int = FOLDING) -> str:
    """What is indexed of a passage; unfolded it is composed (NFC), as the words of a question are."""
    return passage_words(title, text) if folding else unicodedata.normalize("NFC", f"{title}\n{title}\n{text}")


def tantivy_errors(named: Callable[[BaseException], Exception]) -> LibraryErrors:
    """For a call of tantivy: it refuses by ValueError or OSError, or panics, if a file is damaged."""
    return LibraryErrors(lambda kind: kind is ValueError or issubclass(kind, OSError) or is_panic(kind), named)


class TantivyIndex:
    """A store's index opened for reading. Safe from several threads and processes; nothing is written beside it.

    Passages that are deleted are not found. Until the segment that has them is written anew, a word is counted in them
    too, which lowers its weight a little.
    """

    def __init__(
        self, directory: Path, segments: Sequence[SegmentEntry], tombstones: NDArray[np.int64], *,
        folding: int = FOLDING,
    ) -> None:
        """Open the index of the segments of the store in `directory`; `tombstones` (n,) rise: what is not found.

        `folding` is that of the index. Raises StoreError if the files are no index, or one of another number of
        passages; MissingExtraError without the package.
        """
        self._tantivy = import_tantivy()
        self._subject = f"index {directory}"
        self._schema = index_schema()
        self._word_forms = word_forms(folding)
        self._words = search_words if folding else unfolded_words
        self._errors = tantivy_errors(self._damaged)
        self._deleted = still_indexed(segments, tombstones)
        self._searcher = self._open(index_parts(directory, segments))
        with self._errors:
            self._share = len(self._deleted) / max(1, self._searcher.num_docs)

    def search(self, question: str, top_k: int) -> list[Hit]:
        """The `top_k` passages that fit the question's words best, any of them; a tie goes to the lower number.

        Raises StoreError if the index is damaged.
        """
        words = self._word_forms.analyze(" ".join(self._words(question)))
        query = self._tantivy.Query
        terms = [query.term_query(self._schema, PASSAGE, word, "freq") for word in dict.fromkeys(words)]
        if not terms:
            return []
        any_of = query.boolean_query([(self._tantivy.Occur.Should, term) for term in terms])
        return first_of_equals(lambda limit, highest: self._live_hits(any_of, limit, highest), top_k)

    def _open(self, parts: Sequence[IndexPart]) -> Any:
        """A searcher.

        tantivy locks a directory by a file that it makes there. The index may lie on a medium that is read alone, and
        must stay as its manifest lists it: it is opened through a directory of links, which is not needed afterwards.
        Of what is on the disk only the segments' own files are read: what tantivy lists them by is made here.
        """
        # tantivy may still remove its lock there when we do: then an empty directory is left.
        with TemporaryDirectory(prefix="glimmer-index-", ignore_cleanup_errors=True) as directory, self._errors:
            self._tantivy.Index(self._schema, directory)
            lay_out(Path(directory), parts)
            index = self._tantivy.Index.open(directory)
            index.config_reader("manual")  # a finished index does not change: no thread need watch it
            return index.searcher()

    def _live_hits(self, query: Any, limit: int, highest: int | None) -> list[Hit]:
        """As `_hits`, of passages that are there: more are asked for as there may be deleted ones among them."""
        if not len(self._deleted):
            return self._hits(query, limit, highest)
        asked = limit + math.ceil(2 * self._share * limit)
        while True:
            hits = self._hits(query, asked, highest)
            live = [hit for hit, dead in zip(hits, self._are_deleted(hits), strict=True) if not dead]
            if len(live) >= limit or len(hits) < asked:
                return live[:limit]
            asked *= 2

    def _are_deleted(self, hits: Sequence[Hit]) -> list[bool]:
        numbers = np.array([hit.number for hit in hits], np.uint64).astype(np.int64)
        places = np.minimum(self._deleted.searchsorted(numbers), len(self._deleted) - 1)
        deleted: list[bool] = (self._deleted[places] == numbers).tolist()
        return deleted

    def _hits(self, query: Any, limit: int, highest: int | None) -> list[Hit]:
        if highest is not None:
            query = self._up_to(query, highest)
        with self._errors:
            # It takes memory for as many as it is asked for, and if there is none ends the process.
            most = max(1, min(limit, self._searcher.num_docs))
            found = self._searcher.search(query, most, count=False).hits
            numbers = self._searcher.fast_field_values(NUMBER, [address for _, address in found])
        # Whoever asks looks for the lowest numbers among equals, which would never end where these are not kept to.
        known = None not in numbers and len(set(numbers)) == len(found)
        if not known or (highest is not None and any(number > max(highest, 0) for number in numbers)):
            raise StoreError(
                self._subject, expected="a passage's number a document", found="none, or another", fix=INDEX_FIX
            )
        return [Hit(number, steady(score)) for number, (score, _) in zip(numbers, found, strict=True)]

    def _up_to(self, query: Any, highest: int) -> Any:
        """What the query finds among the passages up to a number, with the same scores."""
        kind, must = self._tantivy.Query, self._tantivy.Occur.Must
        numbers = kind.range_query(self._schema, NUMBER, self._tantivy.FieldType.Unsigned, 0, max(highest, 0))
        return kind.boolean_query([(must, query), (must, kind.boost_query(numbers, 0.0))])

    def _damaged(self, raised: BaseException) -> StoreError:
        return StoreError(self._subject, expected="an index of tantivy", found=first_line(raised), fix=INDEX_FIX)


def still_indexed(segments: Sequence[SegmentEntry], tombstones: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of the deleted numbers (n,) those of segments that were written before one was deleted: they may be found."""
    parts = [np.zeros(0, np.int64)]
    for segment in segments:
        dead = tombstones[slice(*tombstones.searchsorted([segment.first, segment.end]))]
        if len(dead) > segment.num_numbers - segment.num_passages:
            parts.append(dead)
    return np.concatenate(parts)
