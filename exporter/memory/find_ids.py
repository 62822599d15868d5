"""Numbers of a store's passages by their ids, and by the ids of the documents that they were cut from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from glimmer_export.runtime.passage_texts import PassageTexts

__all__ = ["find_chunks", "find_numbers"]

AT_ONCE = 1024


def find_numbers(texts: PassageTexts, ids: Iterable[int | str | None]) -> Iterator[list[int]]:
    """The number of each id, or none, in a list; raises StoreError if a file cannot be read."""
    rest = iter(ids)
    while part := list(islice(rest, AT_ONCE)):
        for found in texts.find(part):
            yield [] if found is None else [found]


def find_chunks(texts: PassageTexts, documents: Iterable[int | str]) -> Iterator[list[int]]:
    """The numbers of each document's passages, `{id}#{chunk}`, that are there; raises as `find_numbers`."""
    for document in documents:
        rows = texts.find_between(f"{document}#", f"{document}$")  # $ follows # in UTF-8
        parts = ((number, identifier.rpartition("#")) for number, identifier in rows)
        yield [number for number, (before, _, chunk) in parts if before == str(document) and chunk.isdecimal()]
