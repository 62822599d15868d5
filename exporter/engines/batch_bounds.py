"""The largest batch of each optimization profile: what its tensors take, and what the machine has room for.

A run takes its inputs and outputs, which the runtime allocates, and scratch memory, which TensorRT allocates: it builds
no engine that asks for more of it than the workspace. What TensorRT-RTX asks for was measured
(docs/measurements/tensorrt-rtx-base.md): encoder layers take about the hidden tensors of one of them, projections up to
nearly as much as they write. So I/O and those hidden tensors together, of the graph that takes most, are kept within
the whole workspace; and within what the weights leave of the GPU's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from glimmer_export.exporter.engines.dim_sizes import TEXT_ENCODERS, dim_sizes
from glimmer_export.exporter.targets import Profile, TensorRTTarget
from glimmer_export.runtime.contract import BundleManifest, EngineError, GraphEntry, stage_of

__all__ = ["BatchBound", "batch_bounds"]

MEMORY_SHARE = 0.9
"""Of the GPU's memory, for weights and one run. The rest is CUDA's, and on a Jetson the system's: what does not fit in
this share cannot run."""


@dataclass(frozen=True)
class BatchBound:
    """The most rows of a run in one profile, at most the `asked` of the target.

    `rows` are `questions` or, of the encoders, `texts`. A row of `graph` takes `row_bytes`, the most of all graphs;
    `limit` is the setting of configs/targets that leaves room for `limit_bytes`. `least` is the profile's least batch:
    where `most` is smaller, the profile is left out.
    """

    rows: str
    least: int
    asked: int
    most: int
    graph: str
    row_bytes: int
    limit: str
    limit_bytes: int


def batch_bounds(manifest: BundleManifest, target: TensorRTTarget, graph: str) -> tuple[BatchBound, ...]:
    """The bound of each of a machine's profiles: one for all graphs that run on questions, one for encoders of texts.

    Raises EngineError where no profile is left.
    """
    texts = graph in TEXT_ENCODERS
    graphs = [name for name in manifest.graphs if (name in TEXT_ENCODERS) == texts]
    limit, room = _room(manifest, target)
    found = []
    for profile in target.profiles:
        row_bytes, largest = max((_row_bytes(manifest, profile, name), name) for name in graphs)
        batch = dim_sizes(manifest.model, profile, graph)["batch"]
        most = min(batch.max, room // row_bytes)
        rows = "texts" if texts else "questions"
        found.append(BatchBound(rows, batch.min, batch.max, most, largest, row_bytes, limit, room))
    if all(bound.most < bound.least for bound in found):
        raise _refused(min(found, key=lambda bound: bound.least))
    return tuple(found)


def _room(manifest: BundleManifest, target: TensorRTTarget) -> tuple[str, int]:
    """The tighter of the two limits, and its bytes: beside a GPU's memory, what the weights leave of it."""
    weights: dict[str, int] = {}
    for name, graph in manifest.graphs.items():  # a session loads one graph a stage, whatever the codecs
        weights[stage_of(name)] = max(weights.get(stage_of(name), 0), graph.num_bytes)
    memory = int(MEMORY_SHARE * target.memory_gb * 1e9) - sum(weights.values())
    workspace = target.workspace_mib << 20
    return ("memory_gb", max(memory, 0)) if memory < workspace else ("workspace_mib", workspace)


def _row_bytes(manifest: BundleManifest, profile: Profile, name: str) -> int:
    """Bytes that one row of a graph takes at the profile's greatest sizes."""
    graph = manifest.graphs[name]
    sizes = {dim: size.max for dim, size in dim_sizes(manifest.model, profile, name).items()} | {"batch": 1}
    tensors = sum(
        np.dtype(tensor.dtype).itemsize * prod(dim if isinstance(dim, int) else sizes[dim] for dim in tensor.dims)
        for tensor in (*graph.inputs, *graph.outputs)
    )
    return tensors + _encoder_tokens(manifest, name, sizes) * _layer_bytes(manifest, graph)


def _encoder_tokens(manifest: BundleManifest, name: str, sizes: dict[str, int]) -> int:
    """Tokens of one row that go through a whole encoder layer of a graph."""
    shape, lazy = manifest.model, manifest.stage_a == "lazy"
    if name in TEXT_ENCODERS:
        return sizes["tokens"]
    if name == "encoder" or (stage_of(name) == "live_stage_a" and shape.num_stage_a_layers > lazy):
        return sizes["passages"] * sizes["tokens"]
    if stage_of(name) == "live_stage_b" and shape.num_stage_b_layers + lazy:
        return sizes["selected"] * sizes["tokens"]
    return 0


def _layer_bytes(manifest: BundleManifest, graph: GraphEntry) -> int:
    """Bytes a token: the residual stream in FP32 before and after a layer, a gated feed-forward's hidden tensors."""
    element = 2 if "fp16" in graph.precision else 4
    return 2 * 4 * manifest.model.d_model + 3 * element * manifest.model.d_ff


def _refused(bound: BatchBound) -> EngineError:
    return EngineError(
        f"graph {bound.graph}", expected=f"tensors of at most {bound.limit_bytes:,} bytes, which {bound.limit} allows",
        found=f"{bound.least * bound.row_bytes:,} bytes for the smallest batch, of {bound.least} {bound.rows}",
        fix="retrieve fewer passages, export with --cross-attention absorbed, or quantise; or take a larger machine, "
        "or a larger workspace_mib in configs/targets where that is the limit",
    )
