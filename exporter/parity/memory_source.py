"""Where a side's memory comes from: a store, or a memory encoder on the spot, in the codec that graphs read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from glimmer_export.exporter.parity.rows import PassageTable
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.codecs import Codec
from glimmer_export.runtime.contract import BundleError, PassageError, StoreError
from glimmer_export.runtime.passage_memory import PassageMemory
from glimmer_export.runtime.store import MemoryStore

__all__ = ["Encode", "EncodedMemory", "MemorySource", "StoredMemory", "TokensAlone", "codec_name"]

Encode = Callable[[list[list[int]]], Sequence[Array]]
"""Tokenised passages -> their memory, each (tokens, d_model) float32."""

MAX_CACHED_BYTES = 1 << 30
PASSAGES_AT_ONCE = 16


class MemorySource(Protocol):
    """Memory by a passage's number in the table, as a MemoryStore gives it by its own; `codec` None: there is none."""

    @property
    def codec(self) -> Codec | None:
        """What the memory is in."""
        ...

    def prepare(self, numbers: Sequence[int]) -> None:
        """Make ready what a batch will read."""
        ...

    def prefetch(self, numbers: Iterable[int]) -> None:
        """As a MemoryStore does."""
        ...

    def memory(self, number: int) -> PassageMemory:
        """A passage's memory in the codec."""
        ...

    def input_ids(self, number: int) -> Array:
        """Token ids (tokens,) int32, which FiD encodes itself."""
        ...


def codec_name(codec: Codec | None) -> str | None:
    """The name of a codec; None for none."""
    return None if codec is None else codec.layout.name


class TokensAlone:
    """No memory: for FiD."""

    def __init__(self, table: PassageTable, codec: Codec | None = None) -> None:
        self.table, self.codec = table, codec

    def prepare(self, numbers: Sequence[int]) -> None:
        """Nothing to do."""

    def prefetch(self, numbers: Iterable[int]) -> None:
        """Nothing to do."""

    def memory(self, number: int) -> PassageMemory:
        """Raises ValueError: there is none."""
        raise ValueError(f"no memory of passage {number}")

    def input_ids(self, number: int) -> Array:
        """Token ids (tokens,) int32."""
        return np.array(self.table.input_ids(number), np.int32)


class EncodedMemory(TokensAlone):
    """Memory that an encoder gives of the passages' tokens, through the codec; up to a gigabyte of it is kept."""

    def __init__(self, table: PassageTable, encode: Encode, codec: Codec) -> None:
        super().__init__(table, codec)
        self._encode, self._encode_memory = encode, codec.encode
        self._cache: dict[int, PassageMemory] = {}
        self._bytes = 0

    def prepare(self, numbers: Sequence[int]) -> None:
        """Encode those that are not at hand, those of like length together. Raises BundleError where not finite."""
        if self._bytes > MAX_CACHED_BYTES:
            self._cache, self._bytes = {}, 0
        missing = [(number, self.table.input_ids(number)) for number in {*numbers} - self._cache.keys()]
        missing.sort(key=lambda item: (len(item[1]), item[0]))
        for start in range(0, len(missing), PASSAGES_AT_ONCE):
            group = missing[start : start + PASSAGES_AT_ONCE]
            for (number, _), states in zip(group, self._encode([ids for _, ids in group]), strict=True):
                try:
                    self._cache[number] = PassageMemory(self._encode_memory(states))
                except FloatingPointError:
                    raise BundleError(
                        "graph memory_encoder", expected="finite memory of a passage", found="NaN or infinity",
                        fix="quantise or export the bundle again",
                    ) from None
                self._bytes += self._cache[number].codes.nbytes

    def memory(self, number: int) -> PassageMemory:
        """A passage's memory in the codec."""
        if number not in self._cache:
            self.prepare([number])
        return self._cache[number]


class StoredMemory(TokensAlone):
    """Memory of a store, and of an encoder for the texts that no store has, in the same codec."""

    def __init__(self, table: PassageTable, store: MemoryStore | None, texts: EncodedMemory, *, own: bool) -> None:
        """`own`: the store is the candidate's, whose numbers the table has; another is asked by the passages' ids."""
        super().__init__(table, texts.codec)
        self._store, self._texts, self._own = store, texts, own
        self._numbers: dict[int, int] = {}

    def stored(self, number: int) -> PassageMemory | None:
        """What the store has of a passage; None for a given text. Raises StoreError as `memory`."""
        if self._store is None or self.table.store_number(number) is None:
            return None
        return self._store.memory(self._number(self._store, number))

    def prepare(self, numbers: Sequence[int]) -> None:
        """Encode the given texts."""
        self._texts.prepare([n for n in numbers if self._store is None or self.table.store_number(n) is None])

    def memory(self, number: int) -> PassageMemory:
        """A passage's memory; raises StoreError where another store has another passage under the id, or none."""
        found = self.stored(number)
        return self._texts.memory(number) if found is None else found

    def _number(self, store: MemoryStore, number: int) -> int:
        if self._own:
            return self.table.store_number(number) or 0
        if number not in self._numbers:
            passage = self.table.passage(number)
            try:
                found = store.numbers([passage.id]) if passage.id is not None else []
            except PassageError:
                found = []
            if not found or store.passage(found[0]) != passage:
                raise StoreError(
                    f"store {store.directory}, passage {passage.id!r}", expected="the candidate store's passage",
                    found="another text" if found else "none", fix="build both stores from one corpus",
                )
            self._numbers[number] = found[0]
        return self._numbers[number]
