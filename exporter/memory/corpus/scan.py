"""A corpus that was read once from end to end, where its parts begin, and its documents cut into passages."""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np

from glimmer_export.calibration.text_files import reading, unpacked_limit
from glimmer_export.exporter.memory.corpus.formats import CorpusSource, Paths, corpus_files, format_of
from glimmer_export.exporter.memory.corpus.records import FIRST, Place
from glimmer_export.runtime.contract import CorpusError
from glimmer_export.runtime.store import Passage

__all__ = ["Corpus", "IdHashes", "chunked"]

MAX_PASSAGE_BYTES = 1 << 20
"""Of id, title and text: a tokenizer takes 150 times as much for its tokens."""
MAX_PART_BYTES = 256 << 20
LEAST_BYTES = 128
"""What a passage is counted as, of what a packed file may come to: a short one takes as long to look at as this."""
WORD = re.compile(r"\S+")
Where = TypeVar("Where")
AT_ONCE = 1 << 16


@dataclass(frozen=True)
class PassagePlace:
    """Where a passage begins: its document's place, which chunk of it, and in which file of several, both from 0."""

    document: Place
    chunk: int
    file: int = 0


@dataclass(frozen=True)
class Corpus:
    """A corpus whose every passage can be stored. Holds none of them.

    `sha256` is that of the file's content, uncompressed; of several files that of their digests in hexadecimal,
    in order. `part_starts` and `part_sha256` have an entry for every `part_size` passages, so that no passage is used
    that was not checked.
    """

    source: CorpusSource
    sha256: str
    num_passages: int
    part_size: int
    part_starts: tuple[PassagePlace, ...]
    part_sha256: tuple[str, ...]

    @classmethod
    def scan(cls, source: Paths | CorpusSource, *, part_size: int) -> Corpus:
        """Check every passage before any work is done on one; keeps eight bytes for each until it is done.

        Raises CorpusError, with the line's or the row's number if there is one: what the format's reader refuses, an
        id seen before, a passage that is too long, parts that are too large to hold. Also where the name tells no
        format, or there is no passage at all.
        """
        source = source if isinstance(source, CorpusSource) else CorpusSource.of(source)
        starts, parts = [], []
        files: list[Any] = []
        most: dict[int, int] = {}
        ids, num_passages, part_bytes, unpacked = IdHashes(), 0, 0, 0
        before: tuple[Any, PassagePlace] = (None, PassagePlace(FIRST, 0))
        for place, passage in _passages(source, digests=files):
            if num_passages % part_size == 0:
                starts.append(place)
                parts.append(hashlib.sha256())
                part_bytes = 0
            num_passages += 1
            part_bytes += (size := len(content := _content(passage)))
            parts[-1].update(content)
            if size > MAX_PASSAGE_BYTES:
                raise CorpusError(
                    _subject(source, place), expected=f"a passage of at most {MAX_PASSAGE_BYTES} bytes",
                    found=str(size), fix="cut documents into passages with --chunk-words",
                )
            if part_bytes > MAX_PART_BYTES:
                raise CorpusError(
                    _subject(source, place), expected=f"at most {MAX_PART_BYTES} bytes in {part_size} passages",
                    found="more", fix="give fewer --passages-per-shard, or cut documents with --chunk-words",
                )
            if place.file not in most:
                most, unpacked = {place.file: _unpacked_limit(source, place)}, 0
            if (unpacked := unpacked + max(size, LEAST_BYTES)) > most[place.file]:
                raise CorpusError(
                    _subject(source, place), expected=f"at most {most[place.file]} bytes in a file of its size",
                    found="more", fix="do not use this file; if it is sound, write it as JSONL",
                )
            if place.chunk == 0:  # the chunks of one document differ
                if (identifier := _id(passage)) == before[0]:  # at once: packed, one row over and over takes no room
                    raise _repeated(source, identifier, before[1], place)
                ids.add(identifier)
                before = (identifier, place)
        if not parts:
            raise CorpusError(
                f"corpus {source}", expected="at least one passage", found="none", fix="name another file"
            )
        _check_ids(source, ids)
        digests = tuple(part.hexdigest() for part in parts)
        return cls(source, _digest_of(files), num_passages, part_size, tuple(starts), digests)

    def part(self, index: int) -> list[Passage]:
        """The passages of one part, without those before it, which only gzip has to be read through.

        Raises CorpusError if they are not what was scanned.
        """
        return self._part(index, self._read(self.part_starts[index]))

    def parts(self) -> Iterator[list[Passage]]:
        """The passages in file order, `part_size` at a time; raises CorpusError as `part`."""
        passages = self._read(self.part_starts[0])
        yield from (self._part(index, passages) for index in range(len(self.part_sha256)))
        if next(passages, None) is not None:
            raise self._changed("more of it")

    def passages(self) -> Iterator[Passage]:
        """The passages one by one, as `parts`."""
        return chain.from_iterable(self.parts())

    def _read(self, start: PassagePlace) -> Iterator[Passage]:
        try:
            for _, passage in _passages(self.source, start=start):
                yield passage
        except CorpusError as reason:
            raise self._changed(reason.found) from None

    def _part(self, index: int, passages: Iterator[Passage]) -> list[Passage]:
        part = list(islice(passages, self.part_size))
        digest = hashlib.sha256()
        for passage in part:
            digest.update(_content(passage))
        if digest.hexdigest() != self.part_sha256[index]:
            raise self._changed("other content")
        return part

    def _changed(self, found: str) -> CorpusError:
        return CorpusError(
            f"corpus {self.source}", expected="its content when the build began", found=found,
            fix="leave the file alone while a store is built from it, and start again",
        )


def _passages(
    source: CorpusSource, *, start: PassagePlace | None = None, digests: list[Any] | None = None
) -> Iterator[tuple[PassagePlace, Passage]]:
    """Passages with their places, from `start` on; for each file that is begun, a digest of its content."""
    for index, path in enumerate(corpus_files(source)):
        if start is not None and index < start.file:
            continue
        begin, first_chunk = (start.document, start.chunk) if start is not None and index == start.file else (FIRST, 0)
        digest = None
        if digests is not None:
            digests.append(digest := hashlib.sha256())
        for record in format_of(source, path).read(path, begin, digest):
            for chunk, passage in enumerate(chunked(record.document, source.chunk_words)):
                if record.place != begin or chunk >= first_chunk:
                    yield PassagePlace(record.place, chunk, index), passage


def _digest_of(files: Sequence[Any]) -> str:
    """What stands for a corpus: the digest of its one file, or of the digests of several."""
    digests = [file.hexdigest() for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _check_ids(source: CorpusSource, hashes: IdHashes) -> None:
    """Raise CorpusError if two passages have one id: with chunks, those of the documents 1 and "1" do."""

    def ids() -> Iterator[tuple[PassagePlace, int | str]]:
        return ((place, _id(passage)) for place, passage in _passages(source) if place.chunk == 0)

    if (repeated := hashes.first_repeated(ids)) is not None:
        raise _repeated(source, *repeated)


def _repeated(
    source: CorpusSource, identifier: int | str, earlier: PassagePlace, later: PassagePlace
) -> CorpusError:
    path = corpus_files(source)[earlier.file]
    other = "" if earlier.file == later.file else f" of {path}"
    return CorpusError(
        _subject(source, later), expected="an id of its own",
        found=f"{identifier!r}, the id of {format_of(source, path).unit} {earlier.document.number}{other}",
        fix="remove or rename one of the two",
    )


def _id(passage: Passage) -> int | str:
    assert passage.id is not None  # every format's reader sees to it
    return passage.id


def _subject(source: CorpusSource, place: PassagePlace) -> str:
    path = corpus_files(source)[place.file]
    return f"corpus {path}, {format_of(source, path).unit} {place.document.number}"


def _unpacked_limit(source: CorpusSource, place: PassagePlace) -> int:
    path = corpus_files(source)[place.file]
    with reading(f"corpus {path}", CorpusError):
        return unpacked_limit(path)


def _content(passage: Passage) -> bytes:
    """A passage as its part's digest sees it: the ids 1 and "1" are two, and no two passages read alike."""
    page = () if passage.wikipedia_id is None else (passage.wikipedia_id,)
    return json.dumps((passage.id, passage.title, passage.text, *page), ensure_ascii=False).encode("utf-8")


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


class IdHashes:
    """A 64-bit hash of every id. Two ids may share one: so a second look tells those that are in fact the same."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, identifier: int | str) -> None:
        """Take an id in."""
        self._hashes.append(hash(identifier))

    def first_repeated(
        self, ids: Callable[[], Iterable[tuple[Where, int | str]]]
    ) -> tuple[int | str, Where, Where] | None:
        """An id that occurs twice, with the places of the two; None if there is none.

        `ids` gives what was taken in once more, each with its place; it is called only if hashes are equal.
        """
        hashes = np.sort(np.frombuffer(self._hashes, np.int64))
        shared = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        for start in range(0, len(shared), AT_ONCE):  # a corpus that was appended to itself shares every one
            wanted = set(shared[start : start + AT_ONCE].tolist())
            seen: dict[int | str, Where] = {}
            for place, identifier in ids():
                if hash(identifier) in wanted and (earlier := seen.setdefault(identifier, place)) != place:
                    return identifier, earlier, place
        return None
