"""Where the runs of a loop read and write: which tensors take turns, which stay, and each run's addresses.

Two pieces of memory: a `small` one of a few kilobytes, counters and what is collected, and a `large` one. A run reads
what the one before wrote, and the first of INTERVAL what the last wrote, so that the same runs can be queued over and
over: collected outputs have a row a run, carried ones take turns between two places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from glimmer_export.runtime.backends.contract import LoopIO, Spec
from glimmer_export.runtime.backends.tensorrt.buffers import ALIGNMENT, Layout
from glimmer_export.runtime.backends.tensorrt.context import Shapes
from glimmer_export.runtime.backends.tensorrt.device import CudaDevice
from glimmer_export.runtime.contract import GraphIO

__all__ = ["INTERVAL", "LoopLayout"]

INTERVAL = CudaDevice.eos_interval
"""Runs that are queued together: even, so that the first reads where the last wrote."""
COUNTERS, TABLE = "counters", "table"
FIRST, LAST = "first", "last"


@dataclass(frozen=True, eq=False)
class LoopLayout:
    """Of one graph's loop at one set of shapes, for at most `most` runs; `specs` are of every input and output.

    `subject` is the engine, for messages, and `profile` its optimization profile for these shapes. A layout is known by
    its identity.
    """

    subject: str
    io: GraphIO
    loop: LoopIO
    specs: Mapping[str, Spec]
    most: int
    profile: int

    @property
    def shapes(self) -> Shapes:
        """The inputs', in the order of the graph's I/O."""
        return tuple(self.specs[tensor.name][0] for tensor in self.io.inputs)

    @cached_property
    def collected(self) -> tuple[str, ...]:
        """Outputs of every run."""
        return tuple(name for name in self.loop.collected if name in self._outputs)

    @cached_property
    def seen(self) -> tuple[str, ...]:
        """Outputs of the first and last runs."""
        return tuple(name for name in self.loop.seen if name in self._outputs)

    @cached_property
    def small(self) -> Layout:
        """A run's counter a row, the same for all `most` runs, and a row a run of each collected output."""
        rows = {COUNTERS: (INTERVAL, self.loop.counter), TABLE: (self.most, self.loop.counter)}
        rows |= {name: (INTERVAL, name) for name in self.collected}
        return Layout.of({
            name: ((count, self.row_bytes(of)), np.dtype(np.uint8)) for name, (count, of) in rows.items()
        })

    @cached_property
    def large(self) -> Layout:
        """What is seen of the last run and of the first, both places of what is carried, and all that stays."""
        specs = {(LAST, name): self.specs[name] for name in self.seen}
        specs |= {(FIRST, name): self.specs[name] for name in self.seen}
        for turn in range(2):
            specs |= {(str(turn), name): self.specs[name] for name in self.turning}
        specs |= {("", name): self.specs[name] for name in self._rest}
        return Layout.of({"|".join(key): spec for key, spec in specs.items()})

    @cached_property
    def turning(self) -> tuple[str, ...]:
        """Inputs that are carried from one of two places to the other."""
        return tuple(name for name, output in self.loop.carried.items() if output not in self.collected)

    def row_bytes(self, name: str) -> int:
        """Bytes from a run's row to the next."""
        shape, dtype = self.specs[name]
        return -(-prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT

    def place(self, name: str, run: int) -> tuple[bool, int]:
        """Where a run reads or writes a tensor: whether in the small piece, and from which of its bytes on."""
        is_small, offsets = self._places[name]
        return is_small, offsets[run]

    def addresses(self, small: int, large: int) -> list[tuple[int, ...]]:
        """By run the addresses of inputs and outputs, in the order of the graph's I/O."""
        names = [tensor.name for tensor in (*self.io.inputs, *self.io.outputs)]

        def address(name: str, run: int) -> int:
            is_small, offset = self.place(name, run)
            return (small if is_small else large) + offset

        return [tuple(address(name, run) for name in names) for run in range(INTERVAL)]

    def cleared(self, names: set[str]) -> list[tuple[int, int]]:
        """Offsets and bytes of these carried inputs, as the first run reads them, in few pieces of the large one."""
        pieces: list[tuple[int, int]] = []
        for name in self.turning:
            if name not in names:
                continue
            begin, size = self.place(name, 0)[1], self.row_bytes(name)
            if pieces and sum(pieces[-1]) == begin:
                begin, size = pieces[-1][0], pieces.pop()[1] + size
            pieces.append((begin, size))
        return pieces

    @cached_property
    def _outputs(self) -> frozenset[str]:
        return frozenset(tensor.name for tensor in self.io.outputs)

    @cached_property
    def _rest(self) -> list[str]:
        """Inputs that stay, and outputs that nobody asks for."""
        loop = self.loop
        known = {loop.counter, *loop.carried, *loop.carried.values(), *self.collected, *self.seen}
        return [tensor.name for tensor in (*self.io.inputs, *self.io.outputs) if tensor.name not in known]

    @cached_property
    def _places(self) -> dict[str, tuple[bool, list[int]]]:
        """By tensor whether it is in the small piece, and where in each run."""
        small, large, runs = self.small.offsets, self.large.offsets, range(INTERVAL)
        rows = {self.loop.counter: COUNTERS} | {name: name for name in self.collected}
        found = {
            name: (True, [small[place] + run * self.row_bytes(name) for run in runs]) for name, place in rows.items()
        }
        for name in self.seen:
            found[name] = (False, [large[f"{LAST if run else FIRST}|{name}"] for run in runs])
        for name in self.turning:
            found[name] = (False, [large[f"{run % 2}|{name}"] for run in runs])
            found[self.loop.carried[name]] = (False, [large[f"{(run + 1) % 2}|{name}"] for run in runs])
        for name, output in self.loop.carried.items():
            if name not in found:
                written = found[output][1]
                found[name] = (True, [written[run - 1] for run in runs])
        found |= {name: (False, [large[f"|{name}"]] * INTERVAL) for name in self._rest}
        return found
