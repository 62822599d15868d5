"""Checkpoint -> bundle: every graph exported and checked, then the manifest that vouches for all of it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from glimmer_export.exporter.bundle.forms import DEFAULT_FORMS, FormOptions, choose_forms
from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.checkpoint.digest import checkpoint_digest, memory_digest
from glimmer_export.exporter.config.read import config_label
from glimmer_export.exporter.files.publish import check_target, publish_directory
from glimmer_export.exporter.graphs import ExportedGraph, GraphExporter, weights_file
from glimmer_export.runtime.contract import (
    BUNDLE_SCHEMA_VERSION,
    MANIFEST,
    RECKONED,
    BundleManifest,
    FileEntry,
    FormChoice,
    GraphEntry,
    GraphIO,
    QuantizationEntry,
    graph_io,
    record_to_json,
    tensor_entries,
)

__all__ = ["export_bundle"]

logger = logging.getLogger(__name__)

NOT_CALIBRATED = QuantizationEntry("tensorrt", cpu_kind=None, method=None, policy=None, residual_scales={}, keep=())
"""How an FP16 export is as if `quantize` had made it."""


def export_bundle(
    checkpoint_dir: Path,
    output: Path,
    forms: FormOptions = DEFAULT_FORMS,
    *,
    precision: str = "fp32",
    check: bool = True,
    overwrite: bool = False,
    on_graph: Callable[[str, int, int], None] = lambda *_: None,
) -> list[ExportedGraph]:
    """Export a checkpoint; `on_graph(what, index, count)` is called before each graph is exported, and checked.

    The bundle is written beside `output` and renamed when all graphs have passed their checks against torch, which
    `check` may leave out. `precision` fp16 gives the graphs that `quantize` makes for TensorRT, but of no calibration:
    whether their values stay within FP16 is not known. Raises CheckpointError, TokenizerError, ExportError,
    OutputError, and CalibrationError for a weight that FP16 cannot hold.
    """
    check_target(output, overwrite=overwrite, inputs=[checkpoint_dir])
    checkpoint = read_checkpoint(checkpoint_dir)
    shape = checkpoint.config.shape
    chosen = choose_forms(checkpoint.config, forms)
    graphs = graph_io(shape, chosen)
    exported: list[ExportedGraph] = []
    entries: dict[str, GraphEntry] = {}
    with publish_directory(output, overwrite=overwrite) as work:
        (work / "graphs").mkdir()
        with weights_file(work / "graphs") as weights:
            exporter = GraphExporter(checkpoint, chosen, weights, precision=precision, check=check)
            for index, (name, io) in enumerate(graphs.items()):
                logger.info("exporting %s, graph %d of %d", name, index + 1, len(graphs))
                on_graph(f"Exporting {name}", index, len(graphs))
                graph = exporter.export(name, io, partial(on_graph, f"Checking {name}", index, len(graphs)))
                exported.append(graph)
                entries[name] = _graph_entry(work, graph, io, precision)
        tokenizer = None
        if checkpoint.tokenizer is not None:
            shutil.copyfile(checkpoint.tokenizer, work / "tokenizer.json")
            tokenizer = FileEntry.of(work, work / "tokenizer.json")
        manifest = BundleManifest(
            schema_version=BUNDLE_SCHEMA_VERSION,
            model=shape,
            graphs=entries,
            weights=weights.entry(work),
            codecs=chosen.codecs,
            stage_a=chosen.stage_a,
            cross_attention=chosen.cross_attention,
            tokenizer=tokenizer,
            calibration=(),
            quantization=NOT_CALIBRATED if precision == "fp16" else None,
            checkpoint_digest=checkpoint_digest(checkpoint),
            memory_digest=memory_digest(checkpoint),
            tokenizer_digest=tokenizer.sha256 if tokenizer else None,
            log_probability=chosen.log_probability,
            takes_drafts=chosen.takes_drafts,
            cross_attention_choice=FormChoice(
                chosen.cross_attention, RECKONED, config_label("target", forms.target),
                min(forms.answer_tokens, shape.max_new_tokens),
            ) if chosen.both_forms else None,
        )
        (work / MANIFEST).write_text(record_to_json(manifest), encoding="utf-8")
    return exported


def _graph_entry(bundle: Path, graph: ExportedGraph, io: GraphIO, precision: str) -> GraphEntry:
    inputs, outputs = tensor_entries(io)
    return GraphEntry(
        (FileEntry.of(bundle, graph.written.path),), inputs, outputs, precision=precision,
        num_parameters=graph.num_parameters, weight_bytes=graph.written.weight_bytes,
    )
