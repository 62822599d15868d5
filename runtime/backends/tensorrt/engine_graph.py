"""An engine as a graph: inputs placed, outputs made, a run queued."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import cast

import numpy as np

from runtime.backends.contract import Array, DeviceTensor, Tensor
from runtime.backends.input_types import in_types
from runtime.backends.tensorrt.context import Context, Shapes
from runtime.backends.tensorrt.cuda_graphs import CudaGraphs
from runtime.backends.tensorrt.device import CudaDevice
from runtime.backends.tensorrt.library import LoadedEngine
from runtime.contract import BackendError, BundleError, GraphIO

__all__ = ["EngineGraph"]

CAPTURED_RUNS = 16
"""Runs that are remembered of a graph that is captured: a few buckets of shapes, with two sets of addresses each."""


class EngineGraph:
    """One loaded engine. Safe from several threads, whose runs follow each other on the device's stream."""

    def __init__(self, engine: LoadedEngine, io: GraphIO, device: CudaDevice, *, captures: bool) -> None:
        """`captures` for a graph that runs again and again at the same shapes; raises BundleError for another I/O.

        Every input's first dimension is the batch, so `max_batch` is the first input's greatest.
        """
        _check_io(engine, io)
        self.device = device
        self._engine, self._io, self._captures = engine, io, captures
        self.dtypes = {tensor.name: np.dtype(tensor.dtype) for tensor in io.inputs}
        self._profiles = engine.profiles(list(self.dtypes))
        first = io.inputs[0].name
        self.max_batch = max(profile[first][1][0] for profile in self._profiles)
        self._contexts: dict[int, Context] = {}
        self._cuda_graphs: dict[int, CudaGraphs] = {}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once and wait, from the host's arrays to the host's."""
        fetched = {name: tensor.fetch() for name, tensor in self.launch(inputs).items()}
        return {name: wait() for name, wait in fetched.items()}

    def launch(self, inputs: Mapping[str, Tensor]) -> dict[str, DeviceTensor]:
        """Queue one run; raises as DeviceGraph."""
        wanted = in_types(inputs, self.dtypes, self._engine.subject)
        device = self.device
        with device.lock:
            device.check()
            shapes = tuple(tensor.shape for tensor in wanted.values())
            profile = self._profile(shapes)
            context = self._context(profile)
            layout = context.bind(shapes)
            placed = device.place(wanted)
            outputs = device.empty(layout)
            addresses = tuple(tensor.address for tensor in (*placed.values(), *outputs.values()))
            with device.reading(placed.values()):
                if self._captures:
                    self._cuda_graphs[profile].run((shapes, addresses), lambda: context.queue(addresses))
                else:
                    context.queue(addresses)
        return cast("dict[str, DeviceTensor]", outputs)

    def close(self) -> None:
        """Give CUDA graphs, contexts and the engine back; nothing may be queued."""
        for graphs in self._cuda_graphs.values():
            graphs.close()
        self._cuda_graphs.clear()
        self._contexts.clear()
        self._engine.close()

    def _context(self, profile: int) -> Context:
        if profile not in self._contexts:
            self._contexts[profile] = self._new_context(profile)
            self._cuda_graphs[profile] = CudaGraphs(self.device, lambda: self._new_context(profile), CAPTURED_RUNS)
        return self._contexts[profile]

    def _new_context(self, profile: int) -> Context:
        return Context(self._engine, self._io, profile, self.device)

    def _profile(self, shapes: Shapes) -> int:
        """The optimization profile of the narrowest ranges that hold these shapes."""
        fitting = [
            (sum(prod(greatest) for _, greatest in profile.values()), index)
            for index, profile in enumerate(self._profiles)
            if all(_within(shape, *profile[name]) for name, shape in zip(self.dtypes, shapes, strict=True))
        ]
        if not fitting:
            found = ", ".join(f"{name} {list(shape)}" for name, shape in zip(self.dtypes, shapes, strict=True))
            raise BackendError(
                self._engine.subject, expected=f"shapes within its optimization profiles, {self._profiles}",
                found=found, fix="ask fewer questions at once or lower top_k and top_m, or build engines for these "
                "shapes: `glimmer-export build`",
            )
        return min(fitting)[1]


def _within(shape: tuple[int, ...], least: tuple[int, ...], greatest: tuple[int, ...]) -> bool:
    return len(shape) == len(least) and all(
        low <= size <= high for low, size, high in zip(least, shape, greatest, strict=True)
    )


def _check_io(engine: LoadedEngine, io: GraphIO) -> None:
    """Names, dtypes, ranks and fixed dimensions, in any order."""
    found = engine.tensors
    wanted = {
        tensor.name: (is_input, tensor.dtype, tuple(-1 if isinstance(dim, str) else dim for dim in tensor.dims))
        for is_input, tensors in ((True, io.inputs), (False, io.outputs))
        for tensor in tensors
    }
    if found.keys() != wanted.keys() or not all(_same(found[name], wanted[name]) for name in wanted):
        raise BundleError(
            engine.subject, expected=f"I/O {wanted}", found=f"{found}", fix="build it again: `glimmer-export build`"
        )


def _same(found: tuple[bool, str, tuple[int, ...]], wanted: tuple[bool, str, tuple[int, ...]]) -> bool:
    """An engine may know a dimension that the contract leaves open, or leave one open that it would have to infer."""
    (*kind, found_dims), (*wanted_kind, wanted_dims) = found, wanted
    return kind == wanted_kind and len(found_dims) == len(wanted_dims) and all(
        -1 in pair or pair[0] == pair[1] for pair in zip(found_dims, wanted_dims, strict=True)
    )
