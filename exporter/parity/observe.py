"""Some questions through the reference's graphs, with the candidate's beside them; and the store's memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from glimmer_export.calibration.spread import spread
from glimmer_export.exporter.parity.graph_errors import GraphError, ObservedGraph
from glimmer_export.exporter.parity.memory_source import MemorySource, StoredMemory, codec_name
from glimmer_export.exporter.parity.options import ParityOptions
from glimmer_export.exporter.parity.rows import Row, Rows
from glimmer_export.exporter.parity.sides import GraphSide
from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import Graph
from glimmer_export.runtime.contract import Forms, graph_io
from glimmer_export.runtime.memory import encode_passages

__all__ = ["observe"]

STAGE_A = ("live_stage_a", "live_stage_b")
DECODER = ("cross_kv", "decoder_prefill", "decoder_step")


def observe(
    session: Session,
    candidate: Mapping[str, Graph],
    reference: Mapping[str, Graph],
    forms: Forms,
    rows: Rows,
    source: MemorySource,
    store: StoredMemory | None,
    *,
    options: ParityOptions,
    advance: Callable[[int], None],
) -> tuple[dict[str, GraphError], float | None]:
    """Error by graph, and the largest between the store's memory and what the reference's encoder gives.

    `session` is the candidate's, and so are the graphs `candidate`; `source` is the memory that the reference's graphs
    read, in whose codec both are, and `forms` are theirs. A graph of another form is no counterpart and is left out.
    The memory error is None without a store that has the passages.
    """
    manifest = session.bundle.manifest
    io = graph_io(manifest.model, manifest.forms)  # what is FP16 between the graphs of a side is compared in FP32
    stages = manifest.stages(codec_name(source.codec))
    observed = {
        stage: ObservedGraph(stage, reference[stage], candidate[stage], io[name], options.observed_runs)
        for stage, name in stages.items()
        if stage in reference and _comparable(stage, manifest.forms, forms)
    }
    graphs = {**reference, **observed}
    taken = [row for row in rows.rows if row.candidates]
    size = max(1, min(options.batch_size, len(taken) // max(options.observed_runs, 1)))
    num_selected = options.top_m or manifest.model.num_selected
    side = GraphSide(graphs, manifest.model, session.text, source, num_selected)
    memory_error: float | None = None
    sample = spread(taken, size * options.observed_runs)
    num_runs = min(len(sample), options.observed_runs)
    for turn in range(num_runs):
        # Each batch reaches from the first question to the last: of the decoder, which runs often, only some are seen.
        batch = sample[turn::num_runs]
        if manifest.model.traits.has_memory:
            row = batch[turn % len(batch)]
            memory_error = _worse(memory_error, _memory_error(graphs["memory_encoder"], rows, row, store))
        side.answer(batch)
        advance(len(batch))
    return {name: graph.error for name, graph in observed.items() if graph.error is not None}, memory_error


def _comparable(name: str, candidate: Forms, reference: Forms) -> bool:
    """Whether a graph computes the same in both forms: stage A's form decides where the layers are cut."""
    if name in STAGE_A:
        return candidate.stage_a == reference.stage_a
    return name not in DECODER or candidate.cross_attention == reference.cross_attention


def _memory_error(encoder: Graph, rows: Rows, row: Row, store: StoredMemory | None) -> float | None:
    """The encoder runs in any case: for `memory_fid`, nothing else runs it."""
    exact = encode_passages(encoder, [rows.table.input_ids(number) for number in row.numbers])
    errors = []
    if store is not None:
        for number, states in zip(row.numbers, exact, strict=True):
            if (found := store.stored(number)) is not None and store.codec is not None:
                errors.append(float(np.abs(store.codec.decode(found.tensors) - states).max()))
    return max(errors, default=None)


def _worse(first: float | None, second: float | None) -> float | None:
    return second if first is None else first if second is None else max(first, second)
