"""Loops of an engine: runs that follow each other in memory which is kept for them, so that they can be captured.

Shapes that fit share a place, as only one of them runs there at a time; each place keeps a sequence of runs for every
shape that it has seen. Places are as many as threads that loop at the same time, times the sizes of memory they need,
which are powers of two.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import prod
from typing import cast

import numpy as np

from glimmer_export.runtime.backends.contract import Array, DeviceTensor, Tensor
from glimmer_export.runtime.backends.tensor_checks import in_types
from glimmer_export.runtime.backends.tensorrt.buffers import Lease
from glimmer_export.runtime.backends.tensorrt.context import RunSequence
from glimmer_export.runtime.backends.tensorrt.device import CudaDevice, CudaTensor
from glimmer_export.runtime.backends.tensorrt.loop_layout import COUNTERS, FIRST, INTERVAL, LAST, TABLE, LoopLayout
from glimmer_export.runtime.contract import DeviceLostError, DeviceMemoryError

__all__ = ["Loop", "LoopPlaces"]

MOST_SEQUENCES = 256
"""Of an engine at a time; lengths come in buckets, so that a bundle's shapes are tens for each size of batch."""

NewSequence = Callable[[LoopLayout, list[tuple[int, ...]]], RunSequence]


class _Place:
    """Memory for loops, and what was made to run there. `settled` says that nothing queued uses it."""

    def __init__(self, large: Lease, small: Lease) -> None:
        self.large, self.small = large, small
        self.sequences: OrderedDict[LoopLayout, RunSequence] = OrderedDict()
        self.settled = True

    def holds(self, layout: LoopLayout) -> bool:
        return self.large.size >= layout.large.num_bytes and self.small.size >= layout.small.num_bytes


class LoopPlaces:
    """The places of one engine's loops. Not safe from several threads: its device holds a lock."""

    def __init__(self, device: CudaDevice, new_sequence: NewSequence) -> None:
        self._device, self._new_sequence = device, new_sequence
        self._idle: list[_Place] = []
        self._places: set[_Place] = set()
        device.when_reclaimed(self.let_go)

    @contextmanager
    def loop(self, layout: LoopLayout) -> Iterator[Loop]:
        """A loop, whose place is its own to the end of the block; raises DeviceMemoryError, BackendError."""
        with self._device.lock:
            self._device.check()
            place = self._take(layout)
        try:
            with self._device.lock:
                sequence = self._sequence(place, layout)
            yield Loop(self._device, layout, place, sequence)
        finally:
            with self._device.lock:
                if not place.settled:
                    with suppress(DeviceLostError):
                        self._device.synchronize()
                    place.settled = True
                self._idle.append(place)

    def let_go(self) -> None:
        """Give back places that nobody uses."""
        while self._idle:
            place = self._idle.pop()
            self._places.discard(place)
            self._close(place)

    def close(self) -> None:
        """Give back every place; nothing may be queued."""
        self._idle.clear()
        while self._places:
            self._close(self._places.pop())

    def _take(self, layout: LoopLayout) -> _Place:
        """A place that ran these shapes before, else the smallest that holds them, else a new one."""
        place = self._best_idle(layout)
        if place is not None:
            self._idle.remove(place)
            return place
        place = self._new_place(layout)
        self._places.add(place)
        return place

    def _best_idle(self, layout: LoopLayout) -> _Place | None:
        """Not one that is far too large: that stays for what needs it."""
        enough = 2 * _power_of_two(layout.large.num_bytes)
        fitting = [place for place in self._idle if place.holds(layout)]
        known = [place for place in fitting if layout in place.sequences]
        roomy = [place for place in fitting if place.large.size <= enough]
        return min(known or roomy, key=lambda place: place.large.size, default=None)

    def _new_place(self, layout: LoopLayout) -> _Place:
        take, large, small = self._device.take, layout.large.num_bytes, layout.small.num_bytes
        try:
            return _Place(take(_power_of_two(large)), take(_power_of_two(small), by_host=True))
        except DeviceMemoryError:
            return _Place(take(large), take(small, by_host=True))

    def _sequence(self, place: _Place, layout: LoopLayout) -> RunSequence:
        if layout not in place.sequences:
            self._make_room(place)
            addresses = layout.addresses(place.small.address, place.large.address)
            place.sequences[layout] = self._new_sequence(layout, addresses)
        place.sequences.move_to_end(layout)
        return place.sequences[layout]

    def _make_room(self, taken: _Place) -> None:
        """Forget what the fullest place has not run for longest, if there is very much; not of others in use."""
        while sum(len(place.sequences) for place in self._places) >= MOST_SEQUENCES:
            fullest = max((taken, *self._idle), key=lambda place: len(place.sequences))
            if not fullest.sequences:
                return
            fullest.sequences.popitem(last=False)[1].close()

    def _close(self, place: _Place) -> None:
        while place.sequences:
            place.sequences.popitem()[1].close()


class Loop:
    """As DeviceLoop; of its place's runs only those that were queued last are ever not waited for."""

    interval = INTERVAL

    def __init__(self, device: CudaDevice, layout: LoopLayout, place: _Place, sequence: RunSequence) -> None:
        self._device, self._layout, self._place, self._sequence = device, layout, place, sequence
        self._done = 0
        self._held: Lease | None = None  # what was given out is read where it came to
        names = [tensor.name for tensor in layout.io.inputs if tensor.name != layout.loop.counter]
        self.inputs: dict[str, DeviceTensor] = {name: self._tensor(name) for name in names}

    def start(self, counter: Array, given: Mapping[str, Tensor], zeros: Iterable[str]) -> None:
        """As DeviceLoop."""
        device, layout = self._device, self._layout
        typed = in_types(given, {name: layout.specs[name][1] for name in given}, layout.subject)
        row = layout.row_bytes(layout.loop.counter)
        table = np.zeros((layout.most, row // 4), np.int32)
        table[:, : len(counter)] = counter + np.arange(layout.most, dtype=np.int32)[:, np.newaxis]
        with device.lock:
            device.check()
            self._place.settled = False
            device.write(self._place.small, layout.small.offsets[TABLE], table)
            for name, tensor in typed.items():
                self._copy(name, tensor)
            for offset, num_bytes in layout.cleared(set(zeros)):
                device.cuda.clear(self._place.large.address + offset, num_bytes, device.stream)
        self._done = 0

    def run(self, count: int, *, seen: bool) -> Callable[[], list[dict[str, Array]]]:
        """As DeviceLoop."""
        device, layout, small = self._device, self._layout, self._place.small.address
        row = layout.row_bytes(layout.loop.counter)
        counters, table = (small + layout.small.offsets[name] for name in (COUNTERS, TABLE))
        stretches = [(small + layout.small.offsets[name], count * layout.row_bytes(name)) for name in layout.collected]
        looks = self._looks(count) if seen else []
        stretches += [
            (self._place.large.address + layout.large.offsets[f"{which}|{name}"], _num_bytes(layout, name))
            for _, which, name in looks
        ]
        with device.lock:
            device.check()
            self._place.settled = False
            device.cuda.copy(counters, table + self._done * row, count * row, device.stream)
            self._sequence.queue(count)
            wait = device.fetch_bytes(stretches)
        self._done += count

        def outputs() -> list[dict[str, Array]]:
            self._held = wait()
            self._place.settled = True
            return self._outputs(self._held.host, count, looks)

        return outputs

    def _looks(self, count: int) -> list[tuple[int, str, str]]:
        """Which runs of the next `count` are seen, where they wrote it, and what."""
        runs = {count - 1: LAST} if self._done else {0: FIRST, count - 1: LAST}
        if count == 1:
            runs = {0: FIRST}
        return [(run, which, name) for run, which in runs.items() for name in self._layout.seen]

    def _outputs(self, content: Array, count: int, looks: list[tuple[int, str, str]]) -> list[dict[str, Array]]:
        """By run, views of what was brought to the host."""
        found: list[dict[str, Array]] = [{} for _ in range(count)]
        begin = 0
        for name in self._layout.collected:
            row = self._layout.row_bytes(name)
            for run in range(count):
                found[run][name] = self._view(content, begin + run * row, name)
            begin += count * row
        for run, _, name in looks:
            found[run][name] = self._view(content, begin, name)
            begin += _num_bytes(self._layout, name)
        return found

    def _view(self, content: Array, begin: int, name: str) -> Array:
        shape, dtype = self._layout.specs[name]
        view: Array = content[begin : begin + _num_bytes(self._layout, name)].view(dtype)
        return view.reshape(shape)

    def _copy(self, name: str, tensor: Tensor) -> None:
        """Copy what is given to where the first run reads it."""
        shape = self._layout.specs[name][0]
        if tensor.shape != shape:
            raise TypeError(f"{self._layout.subject}, {name}: expected {list(shape)}, found {list(tensor.shape)}")
        is_small, offset = self._layout.place(name, 0)
        lease = self._place.small if is_small else self._place.large
        if isinstance(tensor, np.ndarray):
            self._device.write(lease, offset, tensor)
            return
        with self._device.reading([cast("CudaTensor", tensor)]):
            self._device.cuda.copy(
                lease.address + offset, tensor.address, _num_bytes(self._layout, name), self._device.stream
            )

    def _tensor(self, name: str) -> CudaTensor:
        is_small, offset = self._layout.place(name, 0)
        lease = self._place.small if is_small else self._place.large
        return CudaTensor(self._device, lease, offset, self._layout.specs[name])


def _num_bytes(layout: LoopLayout, name: str) -> int:
    shape, dtype = layout.specs[name]
    return prod(shape) * dtype.itemsize


def _power_of_two(num_bytes: int) -> int:
    return 1 << max(0, num_bytes - 1).bit_length()
