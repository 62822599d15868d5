"""A T5X checkpoint -> tensors by our names: complete, each of the right shape, and nothing of theirs lost unseen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.exporter.checkpoint.config import CheckpointConfig
from glimmer_export.exporter.checkpoint.lazy_tensors import LazyTensors, TensorSpec
from glimmer_export.exporter.checkpoint.read import check_values
from glimmer_export.exporter.checkpoint.t5x.arrays import T5xArrays
from glimmer_export.exporter.checkpoint.t5x.name_map import name_map
from glimmer_export.exporter.checkpoint.t5x.sources import Source, tensor_sources
from glimmer_export.exporter.checkpoint.weights import weight_shapes
from glimmer_export.runtime.contract import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Conversion", "convert_t5x"]

LAYER_NUMBER = re.compile(r"(?<=block\.)\d+|(?<=layers_)\d+")


@dataclass(frozen=True)
class Conversion:
    """A checkpoint's tensors, and the names of what the T5X tree holds beside them."""

    tensors: LazyTensors
    unused: tuple[str, ...]


def convert_t5x(
    source: Path, config: CheckpointConfig, names: Mapping[str, str | None], *, allow_unused: Sequence[str] = ()
) -> Conversion:
    """Read the T5X checkpoint of one step (T5X's or Orbax's layout) as a model of this config.

    `names` is what a name map says over its defaults. Kernels (in, out) become (out, in), with the heads of an
    attention folded; stacked layers are taken apart, and copies of the relative bias, one a layer, become one where
    they agree. Every tensor keeps the dtype it was stored in. `allow_unused` are patterns
    (`adapter/*`) for what the tree may hold beside the model.

    Raises CheckpointError for a directory or file that cannot be read; for tensors that are missing, misshapen, not
    finite or not covered; for copies of the relative bias that differ, and for FiDO's sparse cross-attention.
    """
    subject = f"T5X checkpoint {source}"
    arrays = T5xArrays(source)
    shapes = arrays.shapes()
    sources = tensor_sources(config, name_map(config.architecture, names), shapes)
    _check_cross_attention(sources, shapes, subject)
    used = {path for origin in sources.values() for path in origin.paths}
    unused = sorted(set(shapes) - used)
    _check_names(sources, shapes, _uncovered(unused, allow_unused), subject)
    for name, origin in sources.items():
        for path in origin.paths:
            _check_shape(name, path, shapes[path], origin, subject)
    arrays.check_sizes()
    return Conversion(_StreamedTensors(config, arrays, sources, subject), tuple(unused))


class _StreamedTensors(LazyTensors):
    """The tensors of an opened checkpoint, all of which were looked at once.

    In a stream an array is read once for all that it holds, then let go: a stack of layers is as large as its layers
    together.
    """

    def __init__(
        self, config: CheckpointConfig, arrays: T5xArrays, sources: Mapping[str, Source], subject: str
    ) -> None:
        self._arrays, self._sources, self._subject = arrays, sources, subject
        self._shapes = weight_shapes(config)
        self._readers: dict[tuple[str, ...], list[str]] = {}
        for name, origin in sources.items():
            self._readers.setdefault(origin.paths, []).append(name)
        dtypes = {paths: self._read(paths)[0].dtype for paths in self._readers}
        self._readers = dict(sorted(self._readers.items(), key=lambda item: -dtypes[item[0]].itemsize))
        specs: dict[str, TensorSpec] = {}
        for paths, names in self._readers.items():
            specs |= {name: TensorSpec(self._shapes[name], dtypes[paths]) for name in names}
            if "score.weight" in names and "score.bias" not in sources:
                specs["score.bias"] = TensorSpec((1,), dtypes[paths])
        super().__init__(specs, self._looked_up)

    def stream(self) -> Iterator[tuple[str, Tensor]]:
        """All, one after the other."""
        for paths, names in self._readers.items():
            copies = self._read(paths)
            for name in names:
                yield name, self._part(name, copies)
            if "score.weight" in names and "score.bias" not in self._sources:
                yield "score.bias", self._looked_up("score.bias")

    def _looked_up(self, name: str) -> Tensor:
        import torch

        if name not in self._sources:  # score.bias
            return torch.zeros(self.specs[name].shape, dtype=self.specs[name].dtype)
        return self._part(name, self._read(self._sources[name].paths))

    def _read(self, paths: tuple[str, ...]) -> list[Tensor]:
        copies = [self._arrays.tensor(path) for path in paths]
        for path, copy in zip(paths, copies, strict=True):
            check_values(path, copy, subject=self._subject)
        for name in self._readers[paths]:
            if self._sources[name].layer is None:
                _one(copies, self._sources[name], self._subject)
        return copies

    def _part(self, name: str, copies: Sequence[Tensor]) -> Tensor:
        import torch

        origin, size = self._sources[name], self._shapes[name]
        array = _one(copies, origin, self._subject) if origin.layer is None else copies[0].select(1, origin.layer)
        array = array.reshape(size[::-1]).T if origin.transposed else array
        return array.clone(memory_format=torch.contiguous_format)


def _one(copies: Sequence[Tensor], origin: Source, subject: str) -> Tensor:
    """The array, or the one relative bias that was stored once for each layer, apart or on axis 1."""
    if origin.copies and copies[0].ndim == 3:
        copies = copies[0].unbind(1)
    if any(not bool((copy == copies[0]).all()) for copy in copies[1:]):
        raise CheckpointError(
            f"{subject}, {_pattern(origin.paths[0])}", expected="the same relative bias in every layer",
            found="layers that differ", fix="T5 has one table for all layers; a model with several is not supported",
        )
    return copies[0]


def _check_cross_attention(
    sources: Mapping[str, Source], shapes: Mapping[str, tuple[int, ...]], subject: str
) -> None:
    """Name FiDO (de Jong et al. 2022), whose decoder attends to the encoder in some of its layers only."""
    own, cross = (_depth(sources, shapes, layer) for layer in ("0.SelfAttention", "1.EncDecAttention"))
    if 0 < cross < own:
        raise CheckpointError(
            subject, expected=f"cross-attention in all {own} decoder layers", found=f"in {cross}",
            fix="FiDO's sparse cross-attention is not supported",
        )


def _depth(sources: Mapping[str, Source], shapes: Mapping[str, tuple[int, ...]], layer: str) -> int:
    """Decoder layers for which the tree holds this attention."""
    name = re.compile(rf"decoder\.block\.\d+\.layer\.{re.escape(layer)}\.q\.weight")
    found = [origin for key, origin in sources.items() if name.fullmatch(key) and origin.paths[0] in shapes]
    if not found or found[0].layer is None:
        return len(found)
    shape = shapes[found[0].paths[0]]
    return shape[1] if len(shape) > 1 else 0


def _uncovered(unused: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in unused if not any(fnmatchcase(name, pattern) for pattern in patterns)]


def _check_names(
    sources: Mapping[str, Source], shapes: Mapping[str, tuple[int, ...]], uncovered: Sequence[str], subject: str
) -> None:
    """List what of ours was not found, and what of theirs has no place."""
    missing = [f"{name} (as {path})" for name, origin in sources.items() for path in origin.paths if path not in shapes]
    if not missing and not uncovered:
        return
    parts = []
    if missing:
        parts.append(f"no {'; no '.join(_grouped(missing))}")
    if uncovered:
        parts.append(f"unused {', '.join(_grouped(uncovered))}")
    raise CheckpointError(
        subject, expected="an array for each tensor of the config, and no other", found="; ".join(parts),
        fix="name their paths with --map" + (", or pass --allow-unused PATTERN" if uncovered else ""),
    )


def _grouped(names: Sequence[str]) -> list[str]:
    """The names with `*` for the numbers of layers, each once, with how many it stands for."""
    groups: dict[str, int] = {}
    for name in names:
        groups[_pattern(name)] = groups.get(_pattern(name), 0) + 1
    return [f"{pattern} (x{count})" if count > 1 else pattern for pattern, count in groups.items()]


def _pattern(name: str) -> str:
    return LAYER_NUMBER.sub("*", name)


def _check_shape(name: str, path: str, found: tuple[int, ...], origin: Source, subject: str) -> None:
    if found not in origin.shapes:
        raise CheckpointError(
            f"{subject}, {path}",
            expected=f"shape {' or '.join(str(list(shape)) for shape in origin.shapes)}, for {name}",
            found=str(list(found)), fix="make the config agree with the weights, or correct --map",
        )
