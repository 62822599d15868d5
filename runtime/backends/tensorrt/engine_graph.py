"""An engine as a graph: inputs placed, outputs made, a run queued."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager
from math import prod
from typing import cast

import numpy as np

from glimmer_export.runtime.backends.contract import Array, DeviceLoop, DeviceTensor, LoopIO, Tensor
from glimmer_export.runtime.backends.tensor_checks import in_types
from glimmer_export.runtime.backends.tensorrt.buffers import Layout
from glimmer_export.runtime.backends.tensorrt.context import Captures, Context, RunSequence, Shapes
from glimmer_export.runtime.backends.tensorrt.device import CudaDevice, CudaTensor
from glimmer_export.runtime.backends.tensorrt.library import LoadedEngine
from glimmer_export.runtime.backends.tensorrt.loop import LoopPlaces
from glimmer_export.runtime.backends.tensorrt.loop_layout import LoopLayout
from glimmer_export.runtime.contract import BackendError, BundleError, DeviceLostError, GraphIO

__all__ = ["EngineGraph"]

IDS = "decoder_input_ids"
MOST_SHAPES = 4096
"""Of which what was chosen for them is remembered; many more than come in practice, as lengths are rounded up."""


class EngineGraph:
    """One loaded engine. Safe from several threads, whose runs follow each other on the device's stream."""

    def __init__(self, engine: LoadedEngine, io: GraphIO, device: CudaDevice, *, captures: bool) -> None:
        """`captures` for a graph whose loops are to be captured; raises BundleError for another I/O.

        Every input's first dimension is the batch, so `max_batch` is the first input's greatest. A decoder's
        `max_positions` are the tokens that a row may have in one run, None of other graphs.
        """
        _check_io(engine, io)
        self.device = device
        self._engine, self._io = engine, io
        self.dtypes = {tensor.name: np.dtype(tensor.dtype) for tensor in io.inputs}
        self._profiles = engine.profiles(list(self.dtypes))
        first = io.inputs[0].name
        self.max_batch = max(profile[first][1][0] for profile in self._profiles)
        self.max_positions = max(profile[IDS][1][1] for profile in self._profiles) if IDS in self.dtypes else None
        self._contexts: dict[int, Context] = {}
        self._chosen: dict[Shapes, int] = {}
        self._layouts: dict[Hashable, LoopLayout] = {}
        self._captures = Captures(engine.subject, wanted=captures)
        self._places = LoopPlaces(device, self._new_sequence)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report of this graph's runs should say."""
        return (self._captures.note,) if self._captures.note else ()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once and wait, from the host's arrays to the host's."""
        fetched = {name: tensor.fetch() for name, tensor in self.launch(inputs).items()}
        return {name: wait() for name, wait in fetched.items()}

    def launch(self, inputs: Mapping[str, Tensor]) -> Mapping[str, DeviceTensor]:
        """Queue one run; raises as DeviceGraph."""
        return self.launch_into(inputs, {})

    def launch_into(self, inputs: Mapping[str, Tensor], into: Mapping[str, DeviceTensor]) -> Mapping[str, DeviceTensor]:
        """Queue one run that writes these outputs to tensors of the device; raises as LoopingGraph."""
        wanted = in_types(inputs, self.dtypes, self._engine.subject)
        device = self.device
        with device.lock:
            device.check()
            shapes = tuple(tensor.shape for tensor in wanted.values())
            context = self._context(self._profile(shapes))
            layout = context.bind(shapes)
            placed = device.place(wanted)
            outputs = cast("dict[str, CudaTensor]", dict(into))
            for name, tensor in into.items():
                if (tensor.shape, tensor.dtype) != (spec := layout.specs[name]):
                    raise BundleError(
                        f"{self._engine.subject}, {name}", expected=f"a tensor of {tensor.dtype} {list(tensor.shape)}",
                        found=f"one of {spec[1]} {list(spec[0])}", fix="take both graphs from one bundle",
                    )
            if into:
                layout = Layout.of({name: spec for name, spec in layout.specs.items() if name not in into})
            outputs |= device.empty(layout)
            addresses = (
                *(tensor.address for tensor in placed.values()),
                *(outputs[tensor.name].address for tensor in self._io.outputs),
            )
            with device.reading(placed.values()):
                context.queue(addresses)
        return outputs

    def loop(
        self, io: LoopIO, shapes: Mapping[str, tuple[int, ...]], most: int
    ) -> AbstractContextManager[DeviceLoop]:
        """A loop; raises as LoopingGraph."""
        with self.device.lock:
            self.device.check()
            return self._places.loop(self._layout(io, tuple(shapes[name] for name in self.dtypes), most))

    def close(self) -> None:
        """Give CUDA graphs, contexts and the engine back; nothing may be queued."""
        self._places.close()
        self._contexts.clear()
        self._engine.close()

    def _layout(self, io: LoopIO, shapes: Shapes, most: int) -> LoopLayout:
        """The same one for the same shapes, by which what runs there is known."""
        key = (tuple(io.carried.items()), io.counter, io.collected, io.seen, shapes, most)
        if key not in self._layouts:
            if len(self._layouts) >= MOST_SHAPES:
                self._layouts.clear()
            profile = self._profile(shapes)
            specs = dict(zip(self.dtypes, zip(shapes, self.dtypes.values(), strict=True), strict=True))
            specs |= self._context(profile).bind(shapes).specs
            self._layouts[key] = LoopLayout(self._engine.subject, self._io, io, specs, most, profile)
        return self._layouts[key]

    def _new_sequence(self, layout: LoopLayout, addresses: list[tuple[int, ...]]) -> RunSequence:
        """Runs with a context each; if there is no memory for that they share the one of single runs."""
        shapes = layout.shapes
        try:
            contexts = [self._new_context(layout.profile) for _ in addresses]
            for context in contexts:
                context.bind(shapes)
        except DeviceLostError:
            raise
        except BackendError as reason:
            shared = self._context(layout.profile)
            if self._captures.on:
                self._captures.give_up(str(reason))
            return RunSequence(
                self.device, [shared] * len(addresses), addresses, self._captures, prepare=lambda: shared.bind(shapes)
            )
        return RunSequence(self.device, contexts, addresses, self._captures)

    def _context(self, profile: int) -> Context:
        if profile not in self._contexts:
            self._contexts[profile] = self._new_context(profile)
        return self._contexts[profile]

    def _new_context(self, profile: int) -> Context:
        return Context(self._engine, self._io, profile, self.device)

    def _profile(self, shapes: Shapes) -> int:
        """The optimization profile of the narrowest ranges that hold these shapes."""
        if shapes not in self._chosen:
            if len(self._chosen) >= MOST_SHAPES:
                self._chosen.clear()
            self._chosen[shapes] = self._choose(shapes)
        return self._chosen[shapes]

    def _choose(self, shapes: Shapes) -> int:
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
