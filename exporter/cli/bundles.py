"""Commands on bundles: export, inspect."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glimmer_export.exporter.cli.choices import one_of
from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import BundleArgument, Json, Output, Overwrite
from glimmer_export.exporter.cli.output import bold, console, print_json
from glimmer_export.exporter.cli.ranges import MAX_TOKENS
from glimmer_export.exporter.config.read import NAME_OR_FILE, known
from glimmer_export.exporter.report.terminal import text
from glimmer_export.exporter.report.visible import visible
from glimmer_export.runtime.contract import CROSS_ATTENTION_FORMS, STAGE_A_FORMS
from glimmer_export.runtime.contract.manifest import EXPORT_PRECISIONS

if TYPE_CHECKING:
    from glimmer_export.exporter.graphs import ExportedGraph
    from glimmer_export.runtime.contract import BundleError, BundleManifest, EngineRecord, FormChoice

__all__ = ["export", "form_reason", "inspect"]


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint directory.")],
    output: Output,
    stage_a: Annotated[
        str | None,
        one_of(
            "--stage-a", STAGE_A_FORMS, "lazy computes one token of stage A's last layer; default unless mean-pooled."
        ),
    ] = None,
    cross_attention: Annotated[
        str,
        one_of(
            "--cross-attention", (*CROSS_ATTENTION_FORMS, "auto", "both"),
            "Attend to the encoder's states themselves, or to keys projected once; both: `build` measures the faster.",
        ),
    ] = "auto",
    codecs: Annotated[
        str | None,
        typer.Option("--codecs", help="Store codecs that the graphs are to decode, by commas. Default: fp16,int8."),
    ] = None,
    answer_tokens: Annotated[
        int,
        typer.Option(
            "--answer-tokens", min=1, max=MAX_TOKENS,
            help="Expected length of an answer, for --cross-attention auto and both.",
        ),
    ] = 16,
    target: Annotated[
        str,
        typer.Option(
            "--target", metavar=NAME_OR_FILE,
            help=f"Machine that will answer, for --cross-attention auto, both: {known('target')}.",
        ),
    ] = "cpu",
    precision: Annotated[
        str,
        one_of(
            "--precision", EXPORT_PRECISIONS,
            "fp16: for TensorRT, not calibrated, so that overflow is not ruled out (`quantize` rules it out).",
        ),
    ] = "fp32",
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Compare each graph with torch; that takes the most memory.")
    ] = True,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a checkpoint's graphs to ONNX and check each against torch; the result is a bundle."""
    require("torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime")
    from rich.filesize import decimal

    from glimmer_export.exporter.bundle import FormOptions, export_bundle
    from glimmer_export.runtime.contract import read_manifest

    forms = FormOptions(
        stage_a, cross_attention, answer_tokens, target,
        None if codecs is None else tuple(name.strip() for name in codecs.split(",") if name.strip()),
    )

    with console(stderr=True).status("Reading the checkpoint") as status:
        graphs = export_bundle(
            checkpoint, output, forms, precision=precision, check=check, overwrite=overwrite,
            on_graph=lambda what, index, count: status.update(text(f"{what} ({index + 1} of {count})")),
        )
    size = sum(file.bytes for file in read_manifest(output).graph_files())
    if as_json:
        report = {graph.name: _exported(graph) for graph in graphs}
        print_json({"bundle": str(output), "bytes": size, "graphs": report})
    else:
        _print_exported(graphs)
        console().print("Wrote", bold(f"{output},"), decimal(size))


def inspect(bundle: BundleArgument, as_json: Json = False) -> None:
    """Verify a bundle and show what it holds."""
    from glimmer_export.exporter.engines.folder import bundle_engines, stale
    from glimmer_export.runtime.bundle import Bundle
    from glimmer_export.runtime.contract import EngineRecord

    manifest = Bundle.open(bundle).manifest
    engines = bundle_engines(bundle)
    if as_json:
        records = {
            name: {**asdict(found), "stale": stale(found, manifest)} if isinstance(found, EngineRecord)
            else {"error": str(found)}
            for name, found in engines.items()
        }
        print_json({**asdict(manifest), "engines": records})
        return
    _print_manifest(bundle, manifest)
    if engines:
        _print_engines(engines, manifest)


def _exported(graph: ExportedGraph) -> dict[str, Any]:
    return {
        "parameters": graph.num_parameters,
        "bytes": graph.written.num_bytes,
        "max_abs_err": graph.max_abs_err,
        "seconds": graph.seconds,
    }


def _print_exported(graphs: list[ExportedGraph]) -> None:
    from rich.filesize import decimal
    from rich.table import Table

    table = Table()
    for column in ("graph", "parameters", "size", "max abs error", "seconds"):
        table.add_column(column, justify="left" if column == "graph" else "right")
    for graph in graphs:
        table.add_row(
            graph.name, f"{graph.num_parameters:,}", decimal(graph.written.num_bytes),
            "-" if graph.max_abs_err is None else f"{graph.max_abs_err:.1e}", f"{graph.seconds:.1f}",
        )
    console().print(table)


def _print_manifest(bundle: Path, manifest: BundleManifest) -> None:
    from rich.filesize import decimal
    from rich.table import Table

    model = manifest.model
    parts = f"memory {model.num_memory_layers}, stage A {model.num_stage_a_layers}, stage B {model.num_stage_b_layers}"
    parts += " (a separate reranker)" if model.separate_reranker else ""
    lengths = f"question {model.question_length}, passage {model.passage_length}"
    if model.question_layout == "joined":
        lengths = f"question and passage {model.passage_length}"
    passages = {"k": model.num_retrieved, "shortlist": model.num_shortlisted, "m": model.num_selected}
    facts = {
        "architecture": model.architecture,
        "layers": f"{parts}, decoder {model.num_decoder_layers}",
        "width": f"d_model {model.d_model}, d_ff {model.d_ff}, {model.num_heads} heads of {model.d_kv}",
        "lengths": f"{lengths}, answer {model.max_new_tokens}",
        "passages": ", ".join(f"{name} {count}" for name, count in passages.items() if count),
        "codecs": ", ".join(manifest.codecs) or "-",
        "stage A, cross-attention": f"{manifest.stage_a or '-'}, {_cross_attention(manifest)}",
        "log-probability": "of answers" if manifest.log_probability else "none, of an earlier version",
        "drafts": "verified" if manifest.takes_drafts else "none, of an earlier version",
        "calibrated": "yes" if manifest.calibration else "no",
        "quantised": _quantised(manifest),
        "tokenizer": manifest.tokenizer_digest[:12] if manifest.tokenizer_digest else "none",
        "checkpoint": manifest.checkpoint_digest[:12],
        "memory": manifest.memory_digest[:12],
    }
    summary = Table(title=visible(f"{bundle} (schema {manifest.schema_version}, verified)"), show_header=False)
    for name, value in facts.items():
        summary.add_row(name, visible(value))
    console().print(summary)
    table = Table()
    for column in ("graph", "precision", "parameters", "size", "inputs", "outputs"):
        numeric = column in ("parameters", "size")
        table.add_column(column, justify="right" if numeric else "left", no_wrap=column == "graph")
    for name, graph in manifest.graphs.items():
        table.add_row(
            visible(name), graph.precision, f"{graph.num_parameters:,}", decimal(graph.num_bytes),
            _names([tensor.name for tensor in graph.inputs]), _names([tensor.name for tensor in graph.outputs]),
        )
    if manifest.weights is not None:
        table.caption = f"{decimal(manifest.weights.bytes)} of weights, which graphs share"
    console().print(table)


def _print_engines(engines: dict[str, EngineRecord | BundleError], manifest: BundleManifest) -> None:
    """One row a directory below engines/; what cannot be used says why."""
    from rich.filesize import decimal
    from rich.table import Table

    from glimmer_export.exporter.engines.folder import stale
    from glimmer_export.runtime.contract import BundleError

    table = Table(title="engines")
    for column in ("directory", "target", "device", "graphs", "size", "state"):
        table.add_column(column, justify="right" if column in ("graphs", "size") else "left", overflow="fold")
    for name, found in engines.items():
        if isinstance(found, BundleError):
            table.add_row(visible(name), "-", "-", "-", "-", visible(str(found)))
            continue
        old = stale(found, manifest)
        capability = found.key.compute_capability
        table.add_row(
            visible(name), visible(found.target) + (" (a stand-in)" if found.stand_in else ""),
            visible(found.key.device or f"any of capability {capability}"), str(len(found.engines)),
            decimal(sum(engine.file.bytes for engine in found.engines.values())),
            visible(f"to be built again: {', '.join(old)}") if old else "of these graphs",
        )
    console().print(table)


def _cross_attention(manifest: BundleManifest) -> str:
    """The form that answers, and how it was chosen if there are two."""
    choice = manifest.cross_attention_choice
    return manifest.cross_attention if choice is None else f"{choice.form} of both, {form_reason(choice)}"


def form_reason(choice: FormChoice) -> str:
    """How a form of cross-attention was chosen."""
    if choice.ratio is None:
        return f"reckoned for {choice.target} and {choice.answer_tokens} tokens"
    return f"measured for {choice.target}: the other takes {choice.ratio:.2f} times as long"


def _quantised(manifest: BundleManifest) -> str:
    """For which machine, by what calibrator, with which residual scales, and which graphs have weights of few bits."""
    entry = manifest.quantization
    if entry is None:
        return "no"
    where = entry.target if entry.cpu_kind is None else f"{entry.target} ({entry.cpu_kind})"
    scales = ", ".join(f"{name} {scale:g}" for name, scale in entry.residual_scales.items())
    calibrator = f"calibrator {entry.method}" if entry.method else "not calibrated"
    found = [f"for {where}, {calibrator}, residual scale {scales or '1'}"]
    if (few := entry.weight_only) is not None:
        mixed = f", 8 for {', '.join(few.eight_bit)}" if few.eight_bit else ""
        found.append(
            f"weights of {few.bits} bits{mixed} in blocks of {few.block_size} by {few.algorithm}, accuracy level "
            f"{few.accuracy_level}: {', '.join(few.graphs)}"
        )
    return "; ".join(found)


def _names(names: list[str]) -> str:
    """Names on one line each; the caches of the layers as one."""
    plain = [visible(name) for name in names if "." not in name]
    caches = len(names) - len(plain)
    return "\n".join([*plain, f"{caches} cache tensors"] if caches else plain)
