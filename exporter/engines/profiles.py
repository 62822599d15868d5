"""A machine and a bundle -> optimization profiles of each graph: sizes for every input, in batches that fit there.

A run takes its inputs and outputs, which the runtime allocates, and scratch memory, which TensorRT allocates: it builds
no engine that asks for more of it than the workspace. What TensorRT-RTX asks for was measured
(docs/measurements/tensorrt-rtx-base.md): encoder layers take about the hidden tensors of one of them, projections up to
nearly as much as they write. So I/O and those hidden tensors together, of the graph that takes most, are kept within
the whole workspace; and within what the weights leave of the GPU's memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from glimmer_export.exporter.config.targets import Profile, Range, TensorRTTarget
from glimmer_export.runtime.contract import (
    CROSS_KV,
    LIVE_SHORTLIST,
    LIVE_STAGE_A,
    LIVE_STAGE_B,
    STAGES,
    TEXT_ENCODERS,
    TOKEN_STAGES,
    BundleManifest,
    EngineError,
    GraphEntry,
    ModelShape,
    ShapeRange,
    stage_of,
)

__all__ = ["BatchBound", "batch_bounds", "dim_sizes", "graph_profiles"]

MEMORY_SHARE = 0.9
"""Of the GPU's memory, for weights and one run. The rest is CUDA's, and on a Jetson the system's: what does not fit in
this share cannot run."""


class Sizes(NamedTuple):
    """The least of a dimension, the one to tune for, and the greatest."""

    min: int
    opt: int
    max: int


def dim_sizes(shape: ModelShape, profile: Profile, graph: str) -> dict[str, Sizes]:
    """Sizes of the dimensions that vary, by the names that graph I/O has for them.

    The encoders of texts run on batches of their own, of questions or passages; every other graph on questions. What
    the decoder attends to and its caches follow from the rest.
    """
    passages = _sizes(profile.passages, shape.num_retrieved)
    question = _sizes(profile.question_tokens, shape.question_length)
    passage = _sizes(profile.passage_tokens, shape.passage_length)
    batch, tokens = _sizes(profile.batch, 1), _sum(question, passage)
    selected = passages
    if shape.num_selected is not None:
        selected = _sizes(profile.selected, shape.num_selected)
    shortlisted = passages
    if shape.num_shortlisted is not None:
        most = max(shape.num_shortlisted, selected.max)
        shortlisted = Sizes(*(min(size, most) for size in passages))
    read = tokens if shape.traits.encodes_question or not shape.traits.has_memory else passage
    encoder_tokens = Sizes(*(count * length for count, length in zip(selected, read, strict=True)))
    if graph in TEXT_ENCODERS:
        batch = _sizes(profile.texts, 1)
        tuned = question if profile.text == "question" else passage
        tokens = Sizes(min(question.min, passage.min), tuned.opt, max(question.max, passage.max))
    return {
        "batch": batch, "passages": passages, "shortlisted": shortlisted, "selected": selected, "question": question,
        "passage": passage, "tokens": tokens, "encoder_tokens": encoder_tokens,
        "positions": Sizes(*profile.positions),
        "prefix": Sizes(1, shape.decoder_prefix_length, shape.decoder_prefix_length),
        # One length for all steps, so that each has the same shapes (docs/design.md, section 2).
        "cache_length": Sizes(*[shape.cache_length] * 3),
    }  # fmt: skip


def _sizes(wanted: Range, model: int) -> Sizes:
    """A range in numbers; if it names the model's own size beside numbers, the greatest bounds the others."""
    low, middle, high = (model if size == "model" else size for size in wanted)
    return Sizes(min(low, middle, high), min(middle, high), high)


def _sum(first: Sizes, second: Sizes) -> Sizes:
    return Sizes(*(one + other for one, other in zip(first, second, strict=True)))


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

    Raises EngineError if no profile is left.
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
    shape, lazy, stage = manifest.model, manifest.stage_a == "lazy", STAGES[stage_of(name)]
    layers = {
        LIVE_STAGE_A: shape.num_stage_a_layers - lazy, LIVE_STAGE_B: shape.num_read_layers(manifest.stage_a),
        CROSS_KV: 0, LIVE_SHORTLIST: 0, **dict.fromkeys(TOKEN_STAGES, 0),
    }  # fmt: skip
    if not layers.get(stage.name, 1):
        return 0
    row = stage.row_dim(shape)
    return (1 if row is None else sizes[row]) * sum(sizes[dim] for dim in stage.tokens)


def _layer_bytes(manifest: BundleManifest, graph: GraphEntry) -> int:
    """Bytes a token: the residual stream in FP32 before and after a layer, a gated feed-forward's hidden tensors."""
    element = 2 if "fp16" in graph.precision else 4
    return 2 * 4 * manifest.model.d_model + 3 * element * manifest.model.d_ff


def _refused(bound: BatchBound) -> EngineError:
    return EngineError(
        f"graph {bound.graph}", expected=f"tensors of at most {bound.limit_bytes:,} bytes, which {bound.limit} allows",
        found=f"{bound.least * bound.row_bytes:,} bytes for the smallest batch, of {bound.least} {bound.rows}",
        fix="retrieve fewer passages, export with --cross-attention absorbed, or quantise; or take a larger machine, "
        "or a larger workspace_mib in configs/targets if that is the limit",
    )


def graph_profiles(
    manifest: BundleManifest, graph: str, target: TensorRTTarget
) -> tuple[dict[str, ShapeRange], ...]:
    """For each profile of a machine, the shapes of a graph's inputs, by their names.

    Batches are no larger than `batch_bounds` allows; a profile whose least batch is larger is left out. Raises
    EngineError if none is left.
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
