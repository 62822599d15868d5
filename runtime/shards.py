"""The shards of an open store: mapped when they are first read, each passage checked when it is.

A shard's safetensors header is checked before any data is touched.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glimmer_export.runtime.array_files import fault_of_rising
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.bundle import verify_file
from glimmer_export.runtime.contract import ShardEntry, StoreError, StoreManifest
from glimmer_export.runtime.contract.files import file_errors
from glimmer_export.runtime.contract.shard_layout import CHECKSUMS, ShardTensor, entry_tensors, passage_checksum
from glimmer_export.runtime.contract.store_mending import saying_what_mends
from glimmer_export.runtime.mapped_file import MappedFile
from glimmer_export.runtime.passage_memory import CODES

__all__ = ["MappedShards", "Shard", "open_shard"]

ENTRIES = ("token", "passage")
ABSENT = np.empty(0)
LENGTH_BYTES = 8
MAX_HEADER_BYTES = 1 << 20
FIX = "copy the store again, or build it again with `glimmer-export memory build`"


@dataclass(frozen=True, slots=True)
class Shard:
    """Read-only views of a mapped shard; passage i owns the token rows offsets[i] to offsets[i + 1].

    input_ids (tokens,) int32, and the codec's tensors by token (tokens, ...) and by passage (passages, ...), of which a
    store without memory has none; `views` are these, by token or not, `names` theirs as the file has them. `starts`
    says at which byte of the `file` each tensor begins. `checksums` (passages,) uint32, None where it has none;
    `checked` has a byte a passage: 1 where it was found to have its own.
    """

    offsets: array[int]
    input_ids: Array
    by_token: Mapping[str, Array]
    by_passage: Mapping[str, Array]
    file: MappedFile
    starts: Mapping[str, int]
    views: tuple[tuple[str, Array, bool], ...]
    names: tuple[str, ...]
    checksums: Array | None
    checked: bytearray

    def prefetch(self, row: int) -> None:
        """Have the system begin to read a passage's codes, and return at once; nothing happens if they are there."""
        token_bytes = self.by_token[CODES].strides[0]
        begin, end = (self.starts[CODES] + offset * token_bytes for offset in self.offsets[row : row + 2])
        self.file.read_ahead(begin, end)

    def tokens(self, row: int) -> Array:
        """Token ids of a passage, (tokens,) int32."""
        return self.input_ids[self.offsets[row] : self.offsets[row + 1]]

    def passage(self, row: int) -> dict[str, Array]:
        """A passage's memory in the shard's codec: tensors (tokens, ...), and (...) if it has one a passage."""
        offsets = self.offsets
        rows = slice(offsets[row], offsets[row + 1])
        tensors = {}
        for name, values, by_token in self.views:  # not a comprehension, which calls a function of its own
            tensors[name] = values[rows if by_token else row]
        return tensors

    def is_sound(self, row: int) -> bool:
        """Whether a passage has its checksum, or the shard has none; once it was found to, it is not read again."""
        if self.checksums is not None and not self.checked[row]:
            if passage_checksum(self.parts(row)) != self.checksums[row]:
                return False
            self.checked[row] = 1
        return True

    def parts(self, row: int) -> Iterator[Array]:
        """What a passage's checksum is of: its token ids, then its rows of the other tensors."""
        yield self.tokens(row)
        tensors = self.passage(row)
        for name in self.names:
            yield tensors[name]


def open_shard(path: Path, tensors: tuple[ShardTensor, ...], *, num_empty: int = 0) -> Shard:
    """Map a shard that must hold exactly `tensors`, and `num_empty` passages without tokens.

    Raises StoreError if its header or offsets say otherwise, or if the system can map no more.
    """
    subject = f"shard {path}"
    with file_errors(error=StoreError, subject=subject, fix=FIX):
        mapped = MappedFile(path)
    if not mapped.size:
        raise StoreError(subject, expected="a safetensors file", found="an empty one", fix=FIX)
    start, header = _read_header(mapped, subject)
    _check_names(header, tensors, subject)
    num_bytes = mapped.size - start
    starts = {tensor.name: start + _begin(header[tensor.name], tensor, num_bytes, subject) for tensor in tensors}
    views = {tensor.name: _view(mapped, starts[tensor.name], tensor) for tensor in tensors}
    offsets, input_ids = views["offsets"], views["input_ids"]
    num_tokens = len(input_ids)
    fault = fault_of_rising(offsets, least=0, most=num_tokens, equals=num_empty)
    if fault or offsets[0] != 0 or offsets[-1] != num_tokens:
        found = fault or f"{offsets[0]} to {offsets[-1]}"
        raise StoreError(subject, expected=f"offsets that rise from 0 to {num_tokens}", found=found, fix=FIX)
    by_token, by_passage = (
        {tensor.name: views[tensor.name] for tensor in tensors if tensor.entry == entry} for entry in ENTRIES
    )
    ordered = [(name, view, True) for name, view in by_token.items()]
    ordered += [(name, view, False) for name, view in by_passage.items()]
    names = tuple(tensor.name for tensor in tensors if tensor.entry is not None)
    return Shard(
        array("q", offsets.tobytes()), input_ids, by_token, by_passage, mapped, starts, tuple(ordered), names,
        views.get(CHECKSUMS),
        bytearray(len(offsets) - 1),
    )


def _read_header(mapped: MappedFile, subject: str) -> tuple[int, dict[str, Any]]:
    """Where the data starts, in bytes, and the parsed header."""
    length = int.from_bytes(mapped.content(0, LENGTH_BYTES), "little")
    limit = min(MAX_HEADER_BYTES, mapped.size - LENGTH_BYTES)
    if not 0 < length <= limit:
        raise StoreError(
            subject, expected=f"a safetensors header of at most {limit} bytes", found=f"a length of {length}", fix=FIX
        )
    start = LENGTH_BYTES + length
    try:
        header = json.loads(mapped.content(LENGTH_BYTES, start))
    except (ValueError, RecursionError) as reason:
        raise StoreError(subject, expected="a header in JSON", found=str(reason), fix=FIX) from None
    if not isinstance(header, dict):
        raise StoreError(subject, expected="a header that is a JSON object", found=type(header).__name__, fix=FIX)
    header.pop("__metadata__", None)
    return start, header


def _check_names(header: dict[str, Any], tensors: tuple[ShardTensor, ...], subject: str) -> None:
    expected = sorted(tensor.name for tensor in tensors)
    if sorted(header) != expected:
        raise StoreError(
            subject, expected=f"the tensors {', '.join(expected)}", found=", ".join(sorted(header)) or "none", fix=FIX
        )


def _view(mapped: MappedFile, begin: int, tensor: ShardTensor) -> Array:
    count = tensor.num_bytes // np.dtype(tensor.dtype).itemsize
    return mapped.view(tensor.dtype, count, begin).reshape(tensor.shape)


def _begin(entry: Any, tensor: ShardTensor, data_bytes: int, subject: str) -> int:
    """Where the tensor begins in the data, in bytes; raises StoreError if its entry is not the manifest's."""
    if isinstance(entry, dict) and entry.get("dtype") == tensor.safetensors_dtype:
        offsets = entry.get("data_offsets")
        pair = offsets if isinstance(offsets, list) and len(offsets) == 2 else (-1, -1)
        if entry.get("shape") == list(tensor.shape) and all(type(offset) is int for offset in pair):
            begin, end = pair
            if 0 <= begin <= end <= data_bytes and end - begin == tensor.num_bytes:
                return int(begin)
    raise StoreError(
        f"{subject}, tensor {tensor.name}",
        expected=f"{tensor.safetensors_dtype} {list(tensor.shape)} within the file", found=repr(entry)[:120], fix=FIX,
    )


class Table(NamedTuple):
    """What reading a passage needs of its shard, side by side for all shards, so that few objects are touched for it.

    `places` (numbers,) uint32 has, of each passage that was found sound, the place of its shard, counted from 1; of the
    others 0. Passage i of shard n owns the token rows offsets[i + n] to offsets[i + n + 1]. Of the codec's tensors
    `by_token` and `by_passage` have that of shard n at n, and `scalars` the value of each passage. The system gives
    memory where there are entries.
    """

    places: memoryview
    offsets: memoryview
    by_token: tuple[tuple[str, list[Array]], ...]
    by_passage: tuple[tuple[str, list[Array]], ...]
    scalars: tuple[tuple[str, Array], ...]

    @classmethod
    def of(cls, manifest: StoreManifest, shards: Sequence[ShardEntry]) -> Table:
        """An empty one."""
        numbers, kept = shards[-1].end if shards else 0, len(shards) + 1
        tensors = entry_tensors(shards[0], manifest.d_model, manifest.codec) if shards else ()
        wide = any(shard.num_tokens > np.iinfo(np.uint32).max for shard in shards)
        by_token, by_passage = (
            tuple(
                (tensor.name, [ABSENT] * kept) for tensor in tensors
                if tensor.entry == entry and (entry == "token" or len(tensor.shape) > 1)
            )
            for entry in ENTRIES
        )
        scalars = tuple(
            (tensor.name, np.zeros(numbers, tensor.dtype)) for tensor in tensors
            if tensor.entry == "passage" and len(tensor.shape) == 1
        )
        return cls(
            np.zeros(numbers, np.uint32).data,
            np.zeros(numbers + kept, np.uint64 if wide else np.uint32).data,
            by_token, by_passage, scalars,
        )

    def enter(self, shard: Shard, place: int, number: int, row: int) -> None:
        """Enter a passage, and its shard if that is new; two threads may both do so, harmlessly."""
        if self.by_token[-1][1][place] is ABSENT:
            first, rows = number - row, len(shard.checked)
            np.asarray(self.offsets)[first + place : first + place + rows + 1] = shard.offsets
            for name, values in self.scalars:
                values[first : first + rows] = shard.by_passage[name]
            for name, column in self.by_passage:
                column[place] = shard.by_passage[name]
            for name, column in self.by_token:
                column[place] = shard.by_token[name]
        self.places[number] = place


class MappedShards:
    """The shards of a store, by passage number. Safe from several threads; reading takes no lock."""

    def __init__(
        self, directory: Path, manifest: StoreManifest, shards: Sequence[ShardEntry],
        check_in_place: Callable[[], None], *, verify: bool,
    ) -> None:
        """`check_in_place` raises StoreError if the store is no longer the one that was opened.

        `verify`: each passage is checked when it is first read, and a shard without checksums when it is mapped.
        """
        self._directory, self._manifest, self._check_in_place = directory, manifest, check_in_place
        self._shards, self._verify = shards, verify
        self._mapped: list[Shard | None] = [None] * len(shards)
        self._starts = array("q", [shard.first for shard in shards])
        self._table = Table.of(manifest, shards)

    def __len__(self) -> int:
        """How many are mapped."""
        return sum(shard is not None for shard in self._mapped)

    def place(self, number: int, check_open: Callable[[], None]) -> tuple[Shard, int]:
        """The shard of a passage, and its row there; `check_open` raises if the store was closed meanwhile.

        Raises StoreError as `map`.
        """
        index = bisect_right(self._starts, number) - 1
        shard = self._mapped[index]
        if shard is None:
            check_open()
            try:
                shard = self.map(index)
            except StoreError:
                check_open()  # closed meanwhile, and so not found in its place
                raise
        return shard, number - self._starts[index]

    def sound(self, number: int, check_open: Callable[[], None]) -> tuple[Shard, int]:
        """As `place`; raises StoreError too if the passage is not what was written, when it is first read."""
        shard, row = self.place(number, check_open)
        if self._verify and not shard.checked[row] and not shard.is_sound(row):
            path = self._shards[bisect_right(self._starts, number) - 1].file.path
            with saying_what_mends(self._directory, self._manifest, path):
                raise StoreError(
                    f"store {self._directory}, {path}, passage number {number}",
                    expected="the bytes that were written", found="a checksum that does not fit", fix="",
                )
        return shard, row

    def passage(self, number: int, check_open: Callable[[], None]) -> dict[str, Array]:
        """A passage's memory, as the shard's `passage`; raises StoreError as `sound`."""
        table = self._table
        places, offsets, by_token, by_passage, scalars = table
        place = places[number]
        if not place:
            shard, row = self.sound(number, check_open)
            place = bisect_right(self._starts, number)
            table.enter(shard, place, number, row)
        begin = number + place
        rows = slice(offsets[begin], offsets[begin + 1])
        tensors = {}
        for name, column in by_token:  # not a comprehension, which calls a function of its own
            tensors[name] = column[place][rows]
        for name, values in scalars:
            tensors[name] = values[number]
        for name, column in by_passage:
            tensors[name] = column[place][number - self._starts[place - 1]]
        return tensors

    def map(self, index: int) -> Shard:
        """Map a shard; two threads may both do so, harmlessly.

        Raises StoreError if it is damaged, or the store is no longer in its place.
        """
        entry, manifest = self._shards[index], self._manifest
        try:
            with saying_what_mends(self._directory, manifest, entry.file.path):
                if self._verify and not entry.checksums:
                    verify_file(
                        self._directory, entry.file, error=StoreError, subject=f"store {self._directory}", fix=""
                    )
                tensors = entry_tensors(entry, manifest.d_model, manifest.codec)
                shard = open_shard(self._directory / entry.file.path, tensors, num_empty=entry.num_empty)
        finally:
            self._check_in_place()  # only now: what was opened before was the store's
        self._mapped[index] = shard
        return shard

    def keep(self, other: MappedShards, is_same: Callable[[ShardEntry], bool]) -> None:
        """Take over what another generation of the store has mapped, and checked, of the shards that are the same."""
        if self._verify and not other._verify:
            return
        earlier = {other._shards[index]: shard for index, shard in enumerate(other._mapped) if shard is not None}
        for index, entry in enumerate(self._shards):
            if (shard := earlier.get(entry)) is not None and is_same(entry):
                self._mapped[index] = shard

    def clear(self) -> None:
        """Let go of all; views handed out before stay valid."""
        self._mapped = [None] * len(self._shards)
        self._table = Table.of(self._manifest, self._shards)
