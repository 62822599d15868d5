"""Documents -> passages of at most so many words, whose ids lead back to the document."""

from __future__ import annotations

import re
from collections.abc import Iterator

from glimmer_export.runtime.store import Passage

__all__ = ["chunked"]

WORD = re.compile(r"\S+")


def chunked(document: Passage, chunk_words: int | None) -> Iterator[Passage]:
    """The document itself where `chunk_words` is None, else its chunks, each with the document's title and page.

    A chunk is the text from its first word to its last, as it was written; words are what stands between white space.
    The id of chunk n is the string `{id}#{n}`, n from 0: what comes before the last `#` is the document's.
    """
    if chunk_words is None:
        yield document
        return
    number, begin, end, words = 0, 0, 0, 0
    for word in WORD.finditer(document.text):
        if words == chunk_words:
            yield _chunk(document, number, begin, end)
            number, words = number + 1, 0
        if words == 0:
            begin = word.start()
        end, words = word.end(), words + 1
    yield _chunk(document, number, begin, end)


def _chunk(document: Passage, number: int, begin: int, end: int) -> Passage:
    return Passage(f"{document.id}#{number}", document.title, document.text[begin:end], document.wikipedia_id)
