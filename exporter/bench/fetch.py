"""Reading passages from a store, by codec: beside a bare copy of the same bytes, from one thread and from several."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from threading import local

import numpy as np

from glimmer_export.exporter.memory import convert_store
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import CODECS, MissingExtraError, OptionError
from glimmer_export.runtime.passage_memory import BufferPool, padded_memory
from glimmer_export.runtime.store import MemoryStore

__all__ = ["FetchTimes", "fetch_times"]

THREADS = 8
BATCHES = 24
"""Sets of passages that are fetched; each is read once more for every repeat."""
REPEATS = 9
COLD = 5
ENCODED = 3


@dataclass(frozen=True)
class FetchTimes:
    """Fetching k random passages of a store in one codec into padded buffers, medians.

    `copy_ms`: the same slices, one by one, from the mapped file to buffers of the same layout, in turn with `fetch_ms`;
    `to_copy` is the ratio. `threads_ms` and `threads_copy_ms` are of a fetch where eight threads fetch at once.
    `cold_ms` is the first fetch after the files left the page cache. `bytes`
    are what is stored of k passages, `bytes_per_token` that by the token. `encode_tokens_per_second`: by the codec
    alone, on one thread; in a build each token goes through the memory encoder first.
    """

    bytes_per_token: float
    bytes: int
    fetch_ms: float
    copy_ms: float
    to_copy: float
    threads_ms: float
    threads_copy_ms: float
    threads_to_copy: float
    cold_ms: float
    encode_tokens_per_second: float


def fetch_times(bundle: Path, store: Path, work: Path, k: int, notify: Callable[[str], None]) -> dict[str, FetchTimes]:
    """Times by codec, of what a store is converted to in `work`; a codec that cannot be had is left out.

    That is one whose package is not installed, or that does not fit the model's width.
    """
    opened = Bundle.open(bundle)
    times = {}
    for codec in CODECS:
        notify(f"Fetching passages in {codec}")
        directory = work / f"{store.name}-{codec}"
        try:
            if not directory.exists():
                convert_store(store, directory, codec)
        except (MissingExtraError, OptionError):
            continue
        # No graph is run: any bundle of the checkpoint opens the store that says it decodes the codec.
        decodes = replace(opened, manifest=replace(opened.manifest, codecs=(codec,)))
        times[codec] = _measure(directory, decodes, k)
    return times


def _measure(directory: Path, bundle: Bundle, k: int) -> FetchTimes:
    length = bundle.manifest.model.passage_length
    with MemoryStore.open(directory, bundle, verify=False) as store:
        random = np.random.default_rng(0)
        batches = [random.permutation(store.num_passages)[:k].tolist() for _ in range(BATCHES)]
        fetch, copy = _Fetch(store, length), _Copy(store, length)
        fetch_ms, copy_ms = _in_turn(fetch.run, copy.run, batches)
        with ThreadPoolExecutor(THREADS) as pool:
            threads_ms, threads_copy_ms = _in_turn(_together(pool, fetch), _together(pool, copy), batches)
        stored = [tensor for number in batches[0] for tensor in store.memory(number).tensors.values()]
        num_tokens = sum(store.memory(number).num_tokens for number in batches[0])
        encode_ms = _encode_ms(store, batches[0])
    cold = [_cold(directory, bundle, batches[place], length) for place in range(2 * COLD)]
    num_bytes = sum(tensor.nbytes for tensor in stored)
    return FetchTimes(
        bytes_per_token=num_bytes / num_tokens, bytes=num_bytes, fetch_ms=fetch_ms, copy_ms=copy_ms,
        to_copy=fetch_ms / copy_ms, threads_ms=threads_ms, threads_copy_ms=threads_copy_ms,
        threads_to_copy=threads_ms / threads_copy_ms, cold_ms=median(cold),
        encode_tokens_per_second=1e3 * num_tokens / encode_ms,
    )


class _Fetch:
    """As a session fetches: read ahead, then laid out in memory that is used again."""

    def __init__(self, store: MemoryStore, length: int) -> None:
        self._store, self._length, self._buffers = store, length, BufferPool()

    def run(self, numbers: Sequence[int]) -> None:
        self._store.prefetch(numbers)
        padded_memory([[self._store.memory(number) for number in numbers]], self._length, self._buffers.take)


class _Copy:
    """The bare copy: of each passage every tensor's slice of the mapped file, to its place in buffers made before."""

    def __init__(self, store: MemoryStore, length: int) -> None:
        self._slices = [list(store.memory(number).tensors.values()) for number in range(store.num_passages)]
        self._length, self._local = length, local()

    def run(self, numbers: Sequence[int]) -> None:
        buffers = self._buffers(len(numbers))
        for place, number in enumerate(numbers):
            for buffer, values in zip(buffers, self._slices[number], strict=True):
                if values.ndim:
                    buffer[place, : len(values)] = values
                else:
                    buffer[place] = values

    def _buffers(self, count: int) -> list[Array]:
        """Each thread's own."""
        if not hasattr(self._local, "buffers"):
            self._local.buffers = [
                np.zeros((count, self._length, *values.shape[1:]) if values.ndim else (count,), values.dtype)
                for values in self._slices[0]
            ]
        found: list[Array] = self._local.buffers
        return found


Run = Callable[[Sequence[int]], None]


def _together(pool: ThreadPoolExecutor, reader: _Fetch | _Copy) -> Run:
    """Eight threads that each read the same passages in another order."""

    def run(numbers: Sequence[int]) -> None:
        orders = [[*numbers[turn:], *numbers[:turn]] for turn in range(THREADS)]
        list(pool.map(reader.run, orders))

    return run


def _in_turn(first: Run, second: Run, batches: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Median milliseconds of both on the same passages, in turn, after a warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(1 + REPEATS):
        for batch in batches:
            for place, run in enumerate((first, second)) if turn % 2 else reversed(list(enumerate((first, second)))):
                started = time.perf_counter()
                run(batch)
                if turn:
                    times[place].append(1e3 * (time.perf_counter() - started))
    return median(times[0]), median(times[1])


def _encode_ms(store: MemoryStore, numbers: Sequence[int]) -> float:
    """Median milliseconds of encoding the memory of these passages, as they come back from the store."""
    codec = store.codec
    assert codec is not None
    memories = [codec.decode(store.memory(number).tensors) for number in numbers]
    times = []
    for _ in range(ENCODED):
        started = time.perf_counter()
        for memory in memories:
            codec.encode(memory)
        times.append(1e3 * (time.perf_counter() - started))
    return median(times)


def _cold(directory: Path, bundle: Bundle, numbers: Sequence[int], length: int) -> float:
    """Milliseconds of the first fetch after the system was told to forget the shards."""
    for path in (directory / "shards").iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with MemoryStore.open(directory, bundle, verify=False) as store:
        fetch = _Fetch(store, length)
        started = time.perf_counter()
        fetch.run(numbers)
        return 1e3 * (time.perf_counter() - started)
