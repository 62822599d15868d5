"""A machine and a bundle -> optimization profiles of each graph: sizes for every input, in batches that fit there."""

from __future__ import annotations

from collections.abc import Mapping

from glimmer_export.exporter.engines.batch_bounds import batch_bounds
from glimmer_export.exporter.engines.dim_sizes import Sizes, dim_sizes
from glimmer_export.exporter.targets import TensorRTTarget
from glimmer_export.runtime.contract import BundleManifest, ShapeRange

__all__ = ["graph_profiles"]


def graph_profiles(
    manifest: BundleManifest, graph: str, target: TensorRTTarget
) -> tuple[dict[str, ShapeRange], ...]:
    """For each profile of a machine, the shapes of a graph's inputs, by their names.

    Batches are no larger than `batch_bounds` allows; a profile whose least batch is larger is left out. Raises
    EngineError where none is left.
    """
    found = []
    for profile, bound in zip(target.profiles, batch_bounds(manifest, target, graph), strict=True):
        sizes = dim_sizes(manifest.model, profile, graph)
        if bound.most >= sizes["batch"].min:
            sizes["batch"] = Sizes(*(min(size, bound.most) for size in sizes["batch"]))
            found.append({tensor.name: _shapes(tensor.dims, sizes) for tensor in manifest.graphs[graph].inputs})
    return tuple(found)


def _shapes(dims: tuple[int | str, ...], sizes: Mapping[str, Sizes]) -> ShapeRange:
    resolved = [Sizes(dim, dim, dim) if isinstance(dim, int) else sizes[dim] for dim in dims]
    return ShapeRange(*(tuple(size[place] for size in resolved) for place in range(3)))
