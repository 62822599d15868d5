"""Open a memory store and read passages from it: memory-mapped states, texts, and retrieval."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.runtime.arguments import (
    as_index,
    described,
    flag,
    items,
    one_of,
    path_of,
    question_text,
    threads_of,
    whole_number,
)
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.codec_file import open_store_codec
from glimmer_export.runtime.codecs import Codec
from glimmer_export.runtime.contract import (
    ClosedError,
    OptionError,
    PassageError,
    ShardEntry,
    StoreError,
    StoreManifest,
    read_shards,
)
from glimmer_export.runtime.contract.dense_layout import read_vectors
from glimmer_export.runtime.contract.store_layout import RETRIEVALS
from glimmer_export.runtime.forks import Home, leave_in_children
from glimmer_export.runtime.generation import (
    Marks,
    check_in_place,
    check_store_fits,
    hold_manifest,
    marks_of,
    read_tombstones,
    verify_store,
)
from glimmer_export.runtime.passage_memory import PassageMemory
from glimmer_export.runtime.passage_texts import Passage, PassageTexts, no_such_number
from glimmer_export.runtime.retrieval import Hit, Retriever
from glimmer_export.runtime.retrieval.dense import DenseIndex
from glimmer_export.runtime.shards import MappedShards, Shard
from glimmer_export.runtime.store_index import open_retriever, open_vectors

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Hit", "MemoryStore", "Passage"]

REMEMBERED = 4096
"""Passages that were read so lately that they are taken to be in memory still: asking the system takes longer."""


@dataclass(frozen=True)
class Options:
    """How a store was opened, and is to be opened again."""

    bundle: Bundle
    verify: bool
    retrieval: str
    threads: int | None


class MemoryStore:
    """A store opened for one bundle, as it was then: later changes of the store do not reach it, nor remove its files.

    Safe from several threads; reading takes no lock. Every method raises ClosedError once it was closed, ForkedError in
    a child that was forked from the process that opened it, and OptionError for an argument of another type.
    """

    def __init__(
        self, directory: Path, manifest: StoreManifest, shards: tuple[ShardEntry, ...], held: int, options: Options,
        marks: Marks,
    ) -> None:
        """For `open`: `held` is the descriptor that keeps the manifest held, `marks` are those of its files."""
        self._options, self._marks = options, marks
        self.directory = directory
        self.manifest = manifest
        self._home = Home(f"store {directory}")
        self._let_go = weakref.finalize(self, os.close, held)
        opened = os.open(directory, os.O_RDONLY)
        self._leave = weakref.finalize(self, os.close, opened)
        self._check_in_place = partial(check_in_place, directory, opened)
        self._codec = open_store_codec(directory, manifest)
        self._tombstones = read_tombstones(directory, manifest)
        self._texts = PassageTexts(
            directory, manifest.texts, self._tombstones, self._check_in_place, folding=manifest.index.folding,
            verify=options.verify,
        )
        self._retriever: Retriever = self._texts
        self._vectors: DenseIndex | None = None
        self._shards = MappedShards(directory, manifest, shards, self._check_in_place, verify=options.verify)
        self._read: set[int] = set()
        self._end, self._deletions = manifest.num_numbers, bool(len(self._tombstones))

    @classmethod
    def open(
        cls, directory: str | os.PathLike[str], bundle: Bundle, *, verify: bool = True, retrieval: str = "bm25",
        threads: int | None = None,
    ) -> MemoryStore:
        """Open a store directory and check it against the bundle and its own manifest.

        `verify` compares what is read of a passage with its checksums when it is read, and digests of the index and of
        all that has no checksums; without it sizes, headers and counts are still checked.
        `retrieval` is what `search` goes by: `bm25` the words, `dense` the vectors, `hybrid` both; `threads` are those
        of the sentence encoder. Raises StoreError: absent, newer, damaged or incomplete, written by another checkpoint,
        or without what the retrieval needs; MissingExtraError without its package; OptionError for an unknown one.
        """
        directory = path_of("store", directory)
        if not isinstance(bundle, Bundle):
            raise OptionError(
                "bundle", expected="a Bundle", found=described(bundle), fix="open it with Bundle.open(...)"
            )
        options = Options(
            bundle, flag("verify", verify), one_of("retrieval", retrieval, RETRIEVALS), threads_of(threads)
        )
        manifest, held = hold_manifest(directory)
        return cls._open(directory, manifest, held, options, {}, None)

    @classmethod
    def _open(
        cls, directory: Path, manifest: StoreManifest, held: int, options: Options, known: Marks,
        earlier: MappedShards | None,
    ) -> MemoryStore:
        """Open a manifest that is held; files with the marks of `known` were verified before, `earlier` mapped."""
        try:
            shards = read_shards(directory, manifest)
            marks = marks_of(directory, manifest, shards)
            check_store_fits(directory, manifest, options.bundle)
            verify_store(directory, manifest, shards, marks, known, verify=options.verify)
        except BaseException:
            os.close(held)
            raise
        store = cls(directory, manifest, shards, held, options, marks)
        try:
            if earlier is not None:
                store._shards.keep(earlier, lambda shard: marks[shard.file] == known.get(shard.file))
            store._retriever = open_retriever(
                directory, manifest, store._texts, store._tombstones, options.retrieval, verify=options.verify,
                known={entry for entry in manifest.vector_files() if marks[entry] and marks[entry] == known.get(entry)},
                threads=options.threads,
            )
        except BaseException:
            store.close()
            raise
        leave_in_children(store)
        return store

    def newer(self) -> MemoryStore | None:
        """The store that is in this one's place now, opened as this one was; None if no file of it has changed.

        What this one has verified, and is the same file, is not read again. Raises as `open`.
        """
        self._check()
        manifest, held = hold_manifest(self.directory)
        try:
            same = manifest == self.manifest and self._is_unchanged()
        except BaseException:
            os.close(held)
            raise
        if same:
            os.close(held)
            return None
        return self._open(self.directory, manifest, held, self._options, self._marks, self._shards)

    def _is_unchanged(self) -> bool:
        shards = read_shards(self.directory, self.manifest)
        return marks_of(self.directory, self.manifest, shards) == self._marks

    @property
    def num_passages(self) -> int:
        """How many passages the store holds."""
        return self.manifest.num_passages

    @property
    def num_without_vector(self) -> int:
        """How many passages `search_dense` cannot find, as they have no vector; raises StoreError if none has."""
        return read_vectors(self.directory, self.manifest).num_lacking(self.manifest.num_numbers, self._tombstones)

    @property
    def names_pages(self) -> bool:
        """Whether passages say what Wikipedia page they are of."""
        return self._texts.names_pages

    def numbers(self, ids: Iterable[int | str]) -> list[int]:
        """Passage numbers of corpus ids, in their order; raises PassageError for an id that the store does not hold."""
        self._check()
        return self._held(self._texts.numbers(items("ids", ids, of="ids", error=PassageError)), "its texts")

    def passage(self, number: int) -> Passage:
        """One passage; raises PassageNumberError for a number that the store does not have."""
        return self.passages([number])[0]

    def passages(self, numbers: Iterable[int]) -> list[Passage]:
        """Several passages, in the order asked for; raises PassageNumberError as `passage`."""
        self._check()
        wanted = [_number(number) for number in items("numbers", numbers, of="passage numbers")]
        for number in wanted:
            if not self._holds(number):
                raise no_such_number(self.directory, number)
        return self._texts.passages(wanted)

    def search(self, question: str, top_k: int) -> list[Hit]:
        """The `top_k` passages that fit the question best by the store's retrieval, best first.

        By `bm25` those that share its words, none if there is no word in common. There may be fewer than `top_k`.
        Raises QuestionError for what is no text, StoreError if the index is damaged.
        """
        self._check()
        most = min(whole_number("top_k", top_k, least=0), self.num_passages)
        hits = self._retriever.search(question_text(question), most)
        self._held([hit.number for hit in hits], "its index")
        return hits

    def search_dense(self, embedding: Array, top_k: int) -> list[Hit]:
        """The `top_k` passages whose vectors have the greatest inner product with a question's (dimension,) float32.

        Whatever the store's retrieval is. Raises StoreError if it has no vectors, MissingExtraError without faiss,
        OptionError for a vector of another dimension.
        """
        self._check()
        most = min(whole_number("top_k", top_k, least=0), self.num_passages)
        if self._vectors is None:  # two threads may both open them, harmlessly
            self._vectors = open_vectors(
                self.directory, self.manifest, self._tombstones, verify=self._options.verify
            )[1]
        hits = self._vectors.search(embedding, most)
        self._held([hit.number for hit in hits], "its vectors")
        return hits

    def memory(self, number: int) -> PassageMemory:
        """A passage's memory in the store's codec, views of the file.

        Raises PassageNumberError for a number that the store does not have, StoreError in a store without memory
        (`fid`), or if the passage is not what was written.
        """
        self._check()
        self._check_memory()
        if type(number) is not int:
            number = _number(number)
        if not self._holds(number):
            raise no_such_number(self.directory, number)
        return PassageMemory(self._shards.passage(number, self._check), (self, number))

    def prefetch(self, numbers: Iterable[int]) -> None:
        """Have the system read the memory of these passages, all at once and in the order of the files.

        If the store is larger than memory, its disk then serves many passages together instead of one by one. Raises
        as `memory`.
        """
        self._check()
        self._check_memory()
        unread = {_number(number) for number in items("numbers", numbers, of="passage numbers")} - self._read
        for number in sorted(unread):
            shard, row = self._place(number)
            shard.prefetch(row)
        if len(self._read) > REMEMBERED:
            self._read = set()
        self._read |= unread

    def first_numbers(self, count: int) -> list[int]:
        """The lowest numbers of passages that are there, at most `count`."""
        self._check()
        most = whole_number("count", count, least=0, most=sys.maxsize)
        return list(islice((number for number in range(self._end) if not self._is_deleted(number)), most))

    @property
    def codec(self) -> Codec | None:
        """What encodes and decodes its memory; None in a store without memory."""
        return self._codec

    def input_ids(self, number: int) -> Array:
        """A passage's token ids as they were encoded, EOS last: (tokens,) int32.

        Raises PassageNumberError as `memory`.
        """
        self._check()
        shard, row = self._sound(number)
        return shard.tokens(row)

    def close(self) -> None:
        """Release the files; views handed out before stay valid. Nothing a second time, and in a forked child."""
        if not self._home.is_here:
            return
        self._texts.close()
        self._shards.clear()
        self._let_go()
        self._leave()

    def left_in_child(self) -> tuple[object, ...]:
        """Let go of the generation, which is the parent's to hold; what must not be destroyed in a forked child."""
        self._let_go()
        self._leave()
        return self._texts, self._retriever, self._vectors

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check(self) -> None:
        """Raise ForkedError, or ClosedError: its files may belong to no generation any more."""
        self._home.check()
        if not self._let_go.alive:
            raise ClosedError(
                f"store {self.directory}", expected="an open one", found="one that was closed", fix="open it again"
            )

    def _check_memory(self) -> None:
        if self._codec is None:
            raise StoreError(
                f"store {self.directory}", expected="a store with memory", found="no memory, as for any fid checkpoint",
                fix="read its passages' input_ids",
            )

    def _place(self, number: int) -> tuple[Shard, int]:
        """The shard of a passage, and its row there."""
        if type(number) is not int:
            number = _number(number)
        if not self._holds(number):
            raise no_such_number(self.directory, number)
        return self._shards.place(number, self._check)

    def _sound(self, number: int) -> tuple[Shard, int]:
        """As `_place`; raises StoreError too if the passage is damaged."""
        if type(number) is not int:
            number = _number(number)
        if not self._holds(number):
            raise no_such_number(self.directory, number)
        return self._shards.sound(number, self._check)

    def _holds(self, number: int) -> bool:
        return 0 <= number < self._end and not (self._deletions and self._is_deleted(number))

    def _held(self, numbers: list[int], source: str) -> list[int]:
        """The numbers, as a file of the store gave them; raises StoreError if they are of none of its passages."""
        for number in numbers:
            if not self._holds(number):
                raise StoreError(
                    f"store {self.directory}", expected="numbers of its passages", found=f"{number} in {source}",
                    fix="see `glimmer-export memory verify`",
                )
        return numbers

    def _is_deleted(self, number: int) -> bool:
        place = int(self._tombstones.searchsorted(number))
        return place < len(self._tombstones) and bool(self._tombstones[place] == number)


def _number(value: object) -> int:
    number = as_index(value)
    if number is None:
        raise OptionError(
            "passage number", expected="a whole number", found=described(value), fix="look ids up with `numbers`"
        )
    return number
