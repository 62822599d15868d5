"""Open a memory store and read passages from it: memory-mapped states, texts, and retrieval."""

from __future__ import annotations

import os
import weakref
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.backends import Array
from runtime.bundle import Bundle, verify_file
from runtime.codec_file import open_store_codec
from runtime.codecs import Codec
from runtime.contract import GlimmerError, ShardEntry, StoreError, StoreManifest
from runtime.contract.shard_layout import shard_tensors
from runtime.generation import check_in_place, hold_manifest
from runtime.passage_memory import PassageMemory
from runtime.passage_texts import Passage, PassageTexts
from runtime.retrieval import Hit, Retriever
from runtime.retrieval.dense import DenseIndex
from runtime.shard import Shard, open_shard
from runtime.store_index import open_retriever, open_vectors
from runtime.tombstones import live_end, read_tombstones

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Hit", "MemoryStore", "Passage", "check_store_fits"]

COPY_AGAIN = "copy the store again, or build it again with `glimmer-export memory build`"
REMEMBERED = 4096
"""Passages that were read so lately that they are taken to be in memory still: asking the system takes longer."""
NO_MEMORY = "a fid store holds no memory"
MAX_MAPPED_SHARDS = 256
"""A mapping holds a file descriptor, of which a process commonly has 1,024; a Wikipedia has thousands of shards."""


class MemoryStore:
    """A store opened for one bundle, as it was then: later changes of the store do not reach it, nor remove its files.

    Safe from several threads; reading takes no lock.
    """

    def __init__(self, directory: Path, manifest: StoreManifest, held: int) -> None:
        """For `open`: `held` is the descriptor that keeps the manifest held."""
        self.directory = directory
        self.manifest = manifest
        self._let_go = weakref.finalize(self, os.close, held)
        opened = os.open(directory, os.O_RDONLY)
        self._leave = weakref.finalize(self, os.close, opened)
        self._check_in_place = partial(check_in_place, directory, opened)
        self._codec = open_store_codec(directory, manifest)
        self._tombstones = read_tombstones(directory, manifest)
        end = live_end(manifest.num_numbers, self._tombstones)
        self._texts = PassageTexts(
            directory / manifest.texts.path, end, self._check_in_place, folding=manifest.index.folding
        )
        self._retriever: Retriever = self._texts
        self._vectors: DenseIndex | None = None
        self._verify = True
        self._shards: dict[int, Shard] = {}
        self._read: set[int] = set()
        self._starts = list(accumulate((shard.num_passages for shard in manifest.shards), initial=0))
        self._end, self._deletions = self._starts[-1], bool(len(self._tombstones))

    @classmethod
    def open(
        cls, directory: str | Path, bundle: Bundle, *, verify: bool = True, retrieval: str = "bm25",
        threads: int | None = None,
    ) -> MemoryStore:
        """Open a store directory and check it against the bundle and its own manifest.

        `verify` reads every byte to compare digests; without it sizes, headers and counts are still checked.
        `retrieval` is what `search` goes by: `bm25` the words, `dense` the vectors, `hybrid` both; `threads` are those
        of the sentence encoder. Raises StoreError: absent, newer, damaged or incomplete, written by another checkpoint,
        or without what the retrieval needs; MissingExtraError without its package; OptionError for an unknown one.
        """
        directory = Path(directory)
        manifest, held = hold_manifest(directory)
        try:
            check_store_fits(directory, manifest, bundle)
            subject = f"store {directory}"
            for entry in manifest.files():
                verify_file(directory, entry, error=StoreError, subject=subject, fix=COPY_AGAIN, digest=verify)
        except BaseException:
            os.close(held)
            raise
        store = cls(directory, manifest, held)
        store._verify = verify
        try:
            for index in range(len(manifest.shards)):
                store._shard(index)
            store._retriever = open_retriever(
                directory, manifest, store._texts, retrieval, verify=verify, threads=threads
            )
        except GlimmerError:
            store.close()
            raise
        return store

    @property
    def num_passages(self) -> int:
        """How many passages the store holds."""
        return self.manifest.num_passages

    @property
    def names_pages(self) -> bool:
        """Whether passages say what Wikipedia page they are of."""
        return self._texts.names_pages

    def numbers(self, ids: Sequence[int | str]) -> list[int]:
        """Passage numbers of corpus ids, in their order; raises PassageError for an id that the store does not hold."""
        return self._held(self._texts.numbers(ids), "its texts")

    def passage(self, number: int) -> Passage:
        """One passage; raises IndexError for a number that the store does not have."""
        return self.passages([number])[0]

    def passages(self, numbers: Sequence[int]) -> list[Passage]:
        """Several passages, in the order asked for; raises IndexError as `passage`."""
        for number in numbers:
            if not self._holds(number):
                raise IndexError(f"passage number {number}")
        return self._texts.passages(numbers)

    def search(self, question: str, top_k: int) -> list[Hit]:
        """The `top_k` passages that fit the question best by the store's retrieval, best first.

        By `bm25` those that share its words, none where there is no word in common. There may be fewer than `top_k`.
        Raises StoreError where the index is damaged.
        """
        hits = self._retriever.search(question, min(top_k, self.num_passages))
        self._held([hit.number for hit in hits], "its index")
        return hits

    def search_dense(self, embedding: Array, top_k: int) -> list[Hit]:
        """The `top_k` passages whose vectors have the greatest inner product with a question's (dimension,) float32.

        Whatever the store's retrieval is. Raises StoreError where it has no vectors, MissingExtraError without faiss,
        OptionError for a vector of another dimension.
        """
        if self._vectors is None:  # two threads may both open them, harmlessly
            self._vectors = open_vectors(self.directory, self.manifest, verify=self._verify)[1]
        return self._vectors.search(embedding, min(top_k, self.num_passages))

    def memory(self, number: int) -> PassageMemory:
        """A passage's memory in the store's codec, views of the file.

        Raises IndexError for a number that the store does not have, ValueError in a store without memory (`fid`).
        """
        if self._codec is None:
            raise ValueError(NO_MEMORY)
        shard, row = self._place(number)
        return PassageMemory(shard.passage(row), (self, number))

    def prefetch(self, numbers: Iterable[int]) -> None:
        """Have the system read the memory of these passages, all at once and in the order of the files.

        Where the store is larger than memory, its disk then serves many passages together instead of one by one. Raises
        as `memory`.
        """
        if self._codec is None:
            raise ValueError(NO_MEMORY)
        unread = {number for number in numbers if number not in self._read}
        for number in sorted(unread):
            shard, row = self._place(number)
            shard.prefetch(row)
        if len(self._read) > REMEMBERED:
            self._read = set()
        self._read |= unread

    @property
    def codec(self) -> Codec | None:
        """What encodes and decodes its memory; None in a store without memory."""
        return self._codec

    def input_ids(self, number: int) -> Array:
        """A passage's token ids as they were encoded, EOS last: (tokens,) int32. Raises IndexError as `memory`."""
        shard, row = self._place(number)
        return shard.tokens(row)

    def close(self) -> None:
        """Release the files; views handed out before stay valid."""
        self._texts.close()
        self._shards.clear()
        self._let_go()
        self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _place(self, number: int) -> tuple[Shard, int]:
        """The shard of a passage, and its row there."""
        if not self._holds(number):
            raise IndexError(f"passage number {number}")
        index = bisect_right(self._starts, number) - 1
        return self._shards.get(index) or self._shard(index), number - self._starts[index]

    def _holds(self, number: int) -> bool:
        return 0 <= number < self._end and not (self._deletions and self._is_deleted(number))

    def _held(self, numbers: list[int], source: str) -> list[int]:
        """The numbers, as a file of the store gave them; raises StoreError where they are of none of its passages."""
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

    def _shard(self, index: int) -> Shard:
        """Map a shard, and let go of the first where there are many; two threads may both do so, harmlessly.

        Raises StoreError where the store is no longer in its place.
        """
        if not self._let_go.alive:  # the files may belong to no generation any more
            raise ValueError("the store is closed")
        try:
            shard = _open_shard(self.directory, self.manifest, self.manifest.shards[index])
        finally:
            self._check_in_place()  # only now: what was opened before was the store's
        self._shards[index] = shard
        if len(self._shards) > MAX_MAPPED_SHARDS:
            # A list is made in one step; an iterator would fail where another thread adds a shard between two.
            self._shards.pop(list(self._shards)[0], None)  # noqa: RUF015
        return shard


def _open_shard(directory: Path, manifest: StoreManifest, entry: ShardEntry) -> Shard:
    tensors = shard_tensors(entry.num_passages, entry.num_tokens, manifest.d_model, manifest.codec)
    return open_shard(directory / entry.file.path, tensors)


def check_store_fits(directory: Path, manifest: StoreManifest, bundle: Bundle) -> None:
    """Raise StoreError where the store is not one that this bundle's checkpoint writes, whatever its precision."""
    wanted = bundle.manifest
    for what, expected, found in (
        ("the checkpoint's memory encoder", wanted.memory_digest, manifest.memory_digest),
        ("the tokenizer", wanted.tokenizer_digest, manifest.tokenizer_digest),
        ("d_model", wanted.model.d_model, manifest.d_model),
        ("passage_length", wanted.model.passage_length, manifest.passage_length),
    ):
        if expected != found:
            raise StoreError(
                f"store {directory}", expected=f"a store of {bundle}, {what} {expected}", found=f"{found}",
                fix="open it with a bundle of its own checkpoint, or build one for this bundle: "
                "`glimmer-export memory build`",
            )
    if manifest.codec not in wanted.codecs and (manifest.codec is not None or wanted.codecs):
        served = ", ".join(wanted.codecs) or "none"
        raise StoreError(
            f"store {directory}", expected=f"a store of {bundle}, in a codec that it decodes, {served}",
            found=str(manifest.codec),
            fix=f"export the bundle again with `--codecs {manifest.codec}`, or re-encode the store with "
            "`glimmer-export memory convert`",
        )
