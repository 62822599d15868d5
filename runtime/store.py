"""Open a memory store and read passages from it: memory-mapped states, texts, and retrieval."""

from __future__ import annotations

import os
import weakref
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtime.backends import Array
from runtime.bundle import Bundle, verify_file
from runtime.contract import ShardEntry, StoreError, StoreManifest
from runtime.contract.shard_layout import shard_tensors
from runtime.generation import hold_manifest
from runtime.passage_texts import Passage, PassageTexts
from runtime.retrieval import Hit
from runtime.shard import Shard, open_shard
from runtime.tombstones import live_end, read_tombstones

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Hit", "MemoryStore", "Passage", "check_store_fits"]

COPY_AGAIN = "copy the store again, or build it again with `glimmer-export memory build`"
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
        self._tombstones = read_tombstones(directory, manifest)
        self._texts = PassageTexts(directory / manifest.texts.path, live_end(manifest.num_numbers, self._tombstones))
        self._shards: dict[int, Shard] = {}
        self._starts = list(accumulate((shard.num_passages for shard in manifest.shards), initial=0))

    @classmethod
    def open(cls, directory: str | Path, bundle: Bundle, *, verify: bool = True) -> MemoryStore:
        """Open a store directory and check it against the bundle and its own manifest.

        `verify` reads every byte to compare digests; without it sizes, headers and counts are still checked. Raises
        StoreError: absent, newer, damaged or incomplete, or written by another checkpoint.
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
        try:
            for index in range(len(manifest.shards)):
                store._shard(index)
        except StoreError:
            store.close()
            raise
        return store

    @property
    def num_passages(self) -> int:
        """How many passages the store holds."""
        return self.manifest.num_passages

    def numbers(self, ids: Sequence[int | str]) -> list[int]:
        """Passage numbers of corpus ids, in their order; raises PassageError for an id that the store does not hold."""
        return self._texts.numbers(ids)

    def passage(self, number: int) -> Passage:
        """One passage; raises IndexError for a number that the store does not have."""
        return self.passages([number])[0]

    def passages(self, numbers: Sequence[int]) -> list[Passage]:
        """Several passages, in the order asked for; raises IndexError as `passage`."""
        return self._texts.passages(numbers)

    def search(self, question: str, top_k: int) -> list[Hit]:
        """The `top_k` passages that share the question's words, best first; none where it has no word in common."""
        return self._texts.search(question, top_k)

    def memory(self, number: int) -> tuple[Array, np.float32]:
        """A passage's memory in the fp16 codec: codes (tokens, d_model) float16, a view of the file, and their scale.

        Raises IndexError for a number that the store does not have, ValueError in a store without memory (`fid`).
        """
        shard, row = self._place(number)
        if shard.memory is None or shard.memory_scale is None:
            raise ValueError("a fid store holds no memory")
        return shard.memory[shard.offsets[row] : shard.offsets[row + 1]], np.float32(shard.memory_scale[row])

    def input_ids(self, number: int) -> Array:
        """A passage's token ids as they were encoded, EOS last: (tokens,) int32. Raises IndexError as `memory`."""
        shard, row = self._place(number)
        return shard.input_ids[shard.offsets[row] : shard.offsets[row + 1]]

    def close(self) -> None:
        """Release the files; views handed out before stay valid."""
        self._texts.close()
        self._shards.clear()
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _place(self, number: int) -> tuple[Shard, int]:
        if not 0 <= number < self._starts[-1] or self._is_deleted(number):
            raise IndexError(f"passage number {number}")
        index = bisect_right(self._starts, number) - 1
        return self._shards.get(index) or self._shard(index), number - self._starts[index]

    def _is_deleted(self, number: int) -> bool:
        place = int(self._tombstones.searchsorted(number))
        return place < len(self._tombstones) and bool(self._tombstones[place] == number)

    def _shard(self, index: int) -> Shard:
        """Map a shard, and let go of the first where there are many; two threads may both do so, harmlessly."""
        shard = _open_shard(self.directory, self.manifest, self.manifest.shards[index])
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
    codec = wanted.codec if wanted.model.traits.has_memory else None
    for what, expected, found in (
        ("the checkpoint's memory encoder", wanted.memory_digest, manifest.memory_digest),
        ("the tokenizer", wanted.tokenizer_digest, manifest.tokenizer_digest),
        ("the codec", codec, manifest.codec),
        ("d_model", wanted.model.d_model, manifest.d_model),
        ("passage_length", wanted.model.passage_length, manifest.passage_length),
    ):
        if expected != found:
            raise StoreError(
                f"store {directory}", expected=f"a store of {bundle}, {what} {expected}", found=f"{found}",
                fix="open it with a bundle of its own checkpoint, or build one for this bundle: "
                "`glimmer-export memory build`",
            )
