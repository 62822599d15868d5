"""Checkpoint -> bundle: every graph exported and checked, then the manifest that vouches for all of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from exporter.bundle.forms import DEFAULT_FORMS, FormOptions, choose_forms
from exporter.checkpoint import model_from_checkpoint, read_checkpoint
from exporter.checkpoint.digest import checkpoint_digest, memory_digest
from exporter.graphs import ExportedGraph, TracedStages, export_graph
from exporter.publish import check_target, publish_directory
from runtime.contract import (
    BUNDLE_SCHEMA_VERSION,
    MANIFEST,
    BundleManifest,
    FileEntry,
    GraphEntry,
    GraphIO,
    file_digest,
    graph_io,
    record_to_json,
    tensor_entries,
)

__all__ = ["export_bundle"]


def export_bundle(
    checkpoint_dir: Path,
    output: Path,
    forms: FormOptions = DEFAULT_FORMS,
    *,
    overwrite: bool = False,
    on_graph: Callable[[str, int, int], None] = lambda *_: None,
) -> list[ExportedGraph]:
    """Export a checkpoint; `on_graph(name, index, count)` is called before each graph.

    The bundle is written beside `output` and renamed when all graphs have passed their checks. Raises CheckpointError,
    TokenizerError, ExportError or OutputError.
    """
    check_target(output, overwrite=overwrite, inputs=[checkpoint_dir])
    checkpoint = read_checkpoint(checkpoint_dir)
    model = model_from_checkpoint(checkpoint)
    shape = checkpoint.config.shape
    chosen = choose_forms(checkpoint.config, forms)
    graphs = graph_io(shape, chosen)
    exported: list[ExportedGraph] = []
    entries: dict[str, GraphEntry] = {}
    traced = TracedStages()
    with publish_directory(output, overwrite=overwrite) as work:
        (work / "graphs").mkdir()
        for index, (name, io) in enumerate(graphs.items()):
            on_graph(name, index, len(graphs))
            graph = export_graph(model, name, io, chosen, work / "graphs", traced)
            exported.append(graph)
            entries[name] = _graph_entry(work, graph, io)
        tokenizer = None
        if checkpoint.tokenizer is not None:
            shutil.copyfile(checkpoint.tokenizer, work / "tokenizer.json")
            tokenizer = _file_entry(work, work / "tokenizer.json")
        manifest = BundleManifest(
            schema_version=BUNDLE_SCHEMA_VERSION,
            model=shape,
            graphs=entries,
            codecs=chosen.codecs,
            stage_a=chosen.stage_a,
            cross_attention=chosen.cross_attention,
            tokenizer=tokenizer,
            calibration=(),
            quantization=None,
            checkpoint_digest=checkpoint_digest(checkpoint),
            memory_digest=memory_digest(checkpoint),
            tokenizer_digest=tokenizer.sha256 if tokenizer else None,
        )
        (work / MANIFEST).write_text(record_to_json(manifest), encoding="utf-8")
    return exported


def _graph_entry(bundle: Path, graph: ExportedGraph, io: GraphIO) -> GraphEntry:
    inputs, outputs = tensor_entries(io)
    files = tuple(_file_entry(bundle, path) for path in graph.files)
    return GraphEntry(files, inputs, outputs, precision="fp32", num_parameters=graph.num_parameters)


def _file_entry(bundle: Path, path: Path) -> FileEntry:
    return FileEntry(path.relative_to(bundle).as_posix(), path.stat().st_size, file_digest(path))
