"""A calibrated FP32 bundle -> a bundle of another precision: every graph rewritten, checked and written anew."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.calibration.fp16 import fp16_boundaries
from glimmer_export.calibration.load_graph import load_graph
from glimmer_export.calibration.policy import DEFAULT_POLICY, Policy
from glimmer_export.calibration.quantize import GraphOptions, QuantizedGraph, WeightOnly, quantize_graph
from glimmer_export.calibration.ranges_file import codec_of_graphs, read_ranges
from glimmer_export.calibration.scheme import ARM, TENSORRT, X86, X86_VNNI, Scheme
from glimmer_export.calibration.tracked import TrackedRanges
from glimmer_export.calibration.worth import Gpu
from glimmer_export.exporter.bundle.weight_only import (
    WeightOnlyOptions,
    check_weight_only_options,
    weights_of_graphs,
)
from glimmer_export.exporter.config.read import config_file, config_label, config_names, read_config
from glimmer_export.exporter.config.targets import read_target
from glimmer_export.exporter.engines.cross_attention import reckoned_form
from glimmer_export.exporter.files.publish import check_target, publish_directory
from glimmer_export.exporter.graphs.check import BLOCK_OPERATORS, check_operators, check_valid
from glimmer_export.exporter.graphs.write import WeightsFile, weights_file, write_graph
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    LIVE_SHORTLIST,
    LIVE_STAGE_A,
    MANIFEST,
    RECKONED,
    BundleError,
    BundleManifest,
    FileEntry,
    GraphEntry,
    GraphIO,
    OptionError,
    QuantizationEntry,
    WeightOnlyEntry,
    boundary_of,
    record_to_json,
    stage_of,
    tensor_entries,
    with_fp16,
)
from glimmer_export.runtime.cpu_kind import cpu_kind

if TYPE_CHECKING:
    from glimmer_export.calibration.ranges import RangeTable

__all__ = ["ANY_SPEED", "SCHEMES", "QuantizeOptions", "lazy_layer", "quantize_bundle"]

ANY_SPEED = "none"
"""Instead of a GPU's name: INT8 wherever the policy has it, for the smallest bundle."""
SCHEMES = {"x86-vnni": X86_VNNI, "x86": X86, "arm": ARM}


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantise a bundle.

    `precision` int8, fp16, int8-fp16 or, with `weight_only`, fp32; `target` cpu or tensorrt; `cpu` the kind of CPU,
    None for this machine's;
    `graphs` those to make INT8 (of fp16: FP16), None for all; `method` None for the table's; `keep` regular
    expressions, searched in `graph/node`, of what stays in float (of fp16: in FP32). `gpu` is the machine of
    configs/targets on which the decoder's INT8 has to be faster, None for any of them, ANY_SPEED for none.
    `weight_only` has weights of few bits in some graphs; None in none.
    """

    precision: str
    target: str
    policy: str = DEFAULT_POLICY
    graphs: tuple[str, ...] | None = None
    keep: tuple[str, ...] = ()
    method: str | None = None
    cpu: str | None = None
    gpu: str | None = None
    weight_only: WeightOnlyOptions | None = None


def quantize_bundle(
    bundle_dir: Path,
    output: Path,
    options: QuantizeOptions,
    *,
    overwrite: bool = False,
    inputs: Sequence[Path] = (),
    on_graph: Callable[[str, int, int], None] = lambda *_: None,
    on_question: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, QuantizedGraph]:
    """Quantise into a new bundle; `on_graph(name, index, count)` is called before each graph.

    If the algorithm of `weight_only` asks questions, `on_question(done, count)` is called after each. `inputs` are
    further paths that are read and must lie apart from the new bundle.

    The new bundle has the graphs that were calibrated, those for the codec of the store they were calibrated on, and
    if there are two forms of cross-attention both; of `fp32` all, as no range is asked. What is returned is by stage,
    or by graph of such a form. The
    table of ranges stays with the FP32 bundle: a device has no use for it. What FP16 graphs hand to each other is FP16
    where `fp16_boundaries` finds room for it; of the rest the notes say why. Raises CalibrationError (no table, or
    FP16 would overflow), OptionError, BundleError for a bundle that is no FP32 one, ExportError and OutputError.
    Nothing is written if one is raised.
    """
    check_target(output, overwrite=overwrite, inputs=[bundle_dir, config_file("policy", options.policy), *inputs])
    bundle = Bundle.open(bundle_dir)
    manifest = bundle.manifest
    if manifest.quantization is not None:
        raise BundleError(
            str(bundle), expected="an FP32 bundle", found="one that is quantised already", fix="quantise the FP32 one"
        )
    table = None if options.precision == "fp32" else read_ranges(bundle_dir, manifest)
    names = [name for name in manifest.graphs if table is None or name in table.graphs]
    _check_options(options, list(dict.fromkeys(map(stage_of, names))))
    codec = None if table is None else codec_of_graphs(table.graphs, manifest)
    ranges = {} if table is None else table.graphs
    few_bits: dict[str, WeightOnly] = {}
    if options.weight_only is not None:
        few_bits = weights_of_graphs(bundle, names, options.weight_only, on_question=on_question)
    io = {name: graph for name, graph in manifest.io().items() if name in names}
    crossing = fp16_boundaries(io, ranges, [name for name in names if _is_fp16(options, stage_of(name))])
    halves = tuple(name for name, reason in crossing.items() if reason is None)
    io = with_fp16(io, halves)
    kind = (options.cpu or cpu_kind()) if options.target == "cpu" else None
    done: dict[str, QuantizedGraph] = {}
    entries: dict[str, GraphEntry] = {}
    with publish_directory(output, overwrite=overwrite) as work:
        (work / "graphs").mkdir()
        with weights_file(work / "graphs") as weights:
            for index, name in enumerate(names):
                shown = name.removesuffix(f".{codec}")
                on_graph(shown, index, len(names))
                scheme = SCHEMES.get(str(kind), TENSORRT)
                graph_options = _graph_options(bundle, name, io[name], table, options, scheme)
                graph_options = replace(graph_options, weight_only=few_bits.get(name))
                entries[name], graph = _quantize(
                    bundle, name, io[name], TrackedRanges(ranges.get(name, {})), graph_options, work, weights
                )
                graph.notes += _crossing_notes(io[name], crossing) if _is_fp16(options, stage_of(name)) else []
                done[shown] = graph
        _check_matched("--keep", options.keep, done)
        _check_matched("--eight-bit", () if options.weight_only is None else options.weight_only.eight_bit, done)
        if manifest.tokenizer is not None:
            shutil.copyfile(bundle_dir / manifest.tokenizer.path, work / manifest.tokenizer.path)
        having = [name for name in few_bits if done[name.removesuffix(f".{codec}")].blocks]
        policy = read_config("policy", options.policy, Policy)
        entry = QuantizationEntry(
            target=options.target, cpu_kind=kind,
            method=None if table is None else options.method or table.method,
            residual_scales={
                name: graph.residual_scale
                for name, graph in zip(names, done.values(), strict=True) if graph.residual_scale != 1
            },
            policy=options.policy if "int8" in options.precision or having else None, keep=options.keep,
            weight_only=_weight_only(options, policy, having),
        )
        codecs = manifest.codecs if table is None else () if codec is None else (codec,)
        written = replace(
            manifest, graphs=entries, weights=weights.entry(work), codecs=codecs, calibration=(), quantization=entry,
            fp16_boundaries=halves,
        )
        if (choice := manifest.cross_attention_choice) is not None:  # what was measured was of other graphs
            form = choice.form
            if choice.target in config_names("target"):  # a user's own file is not in the bundle
                form = reckoned_form(manifest.model, choice.answer_tokens, read_target(choice.target))
            written = written.chosen(replace(choice, form=form, by=RECKONED, ratio=None))
        (work / MANIFEST).write_text(record_to_json(written), encoding="utf-8")
    return done


def _weight_only(options: QuantizeOptions, policy: Policy, having: Sequence[str]) -> WeightOnlyEntry | None:
    """What the manifest says of the graphs that came to have weights of few bits."""
    if options.weight_only is None or not having:
        return None
    narrow = options.weight_only.bits == "int4"
    return options.weight_only.entry(having, (*policy.eight_bit, *options.weight_only.eight_bit) if narrow else ())


def _graph_options(
    bundle: Bundle, name: str, io: GraphIO, table: RangeTable | None, options: QuantizeOptions, scheme: Scheme
) -> GraphOptions:
    stage = stage_of(name)
    named = options.graphs is None or stage in options.graphs
    return GraphOptions(
        stage, int8="int8" in options.precision and named, fp16=_is_fp16(options, stage), scheme=scheme,
        policy=read_config("policy", options.policy, Policy),
        method="" if table is None else options.method or table.method, keep=options.keep,
        lazy_layer=lazy_layer(bundle.manifest, stage), gpus=_gpus(options),
        fp16_io=frozenset(
            tensor.name for tensor in (*io.inputs, *io.outputs)
            if boundary_of(tensor.name) and tensor.dtype == "float16"
        ),
    )


def _quantize(
    bundle: Bundle, name: str, io: GraphIO, ranges: TrackedRanges, options: GraphOptions, work: Path,
    weights: WeightsFile,
) -> tuple[GraphEntry, QuantizedGraph]:
    from glimmer_export.calibration.passes.merge_products import DECODERS, MergeProducts

    model = load_graph(bundle.graph_path(name))
    done = QuantizedGraph()
    if options.int8 or options.fp16 or options.weight_only is not None:
        done = quantize_graph(model, ranges, options)
    if options.name in DECODERS:
        MergeProducts()(model)
    written = write_graph(model, name, weights)
    check_valid(written.path)
    check_operators(written.path, allowed=BLOCK_OPERATORS if done.blocks else {})
    # A table that is FP16 is rounded too: such a graph is no FP32 reference, and builds no store for every precision.
    rounded = bool(done.int8 or done.half_tables)
    few = None if options.weight_only is None or not done.blocks else f"w{options.weight_only.bits}"
    parts = ("int8" if rounded else None, "fp16" if options.fp16 else None, few)
    precision = "-".join(part for part in parts if part)
    path = written.path
    file = FileEntry.of(work, path)
    inputs, outputs = tensor_entries(io)
    entry = replace(
        bundle.manifest.graphs[name], precision=precision or "fp32", files=(file,), weight_bytes=written.weight_bytes,
        inputs=inputs, outputs=outputs,
    )
    return entry, done


def _gpus(options: QuantizeOptions) -> tuple[Gpu, ...]:
    """The machines on one of which INT8 has to be faster than without; raises OptionError for what is no GPU."""
    if options.target != "tensorrt" or options.gpu == ANY_SPEED:
        return ()
    names = config_names("target") if options.gpu is None else (options.gpu,)
    found = []
    for name in names:
        target = read_target(name)
        if target.tensorrt is not None:
            found.append(Gpu(config_label("target", name), target.memory_bandwidth_gb_per_s, target.tensorrt.kernel_us))
    if not found:
        raise OptionError("--gpu", expected="a machine with a GPU", found=str(options.gpu), fix="choose another")
    return tuple(found)


def _is_fp16(options: QuantizeOptions, stage: str) -> bool:
    """Whether a graph computes in FP16."""
    named = options.graphs is None or stage in options.graphs
    return options.precision == "int8-fp16" or (options.precision == "fp16" and named)


def _crossing_notes(io: GraphIO, crossing: Mapping[str, str | None]) -> list[str]:
    """Of what a graph writes for other graphs, what stays FP32 and why."""
    notes = []
    for tensor in io.outputs:
        reason = crossing.get(boundary_of(tensor.name) or "")
        if reason is not None:
            notes.append(f"{tensor.name}: goes to other graphs in FP32, as {reason}")
    return notes


def lazy_layer(manifest: BundleManifest, stage: str) -> str | None:
    """Prefix of the nodes of the layer that lazy stage A, or a shortlist, computes for one token."""
    stack = "reranker" if manifest.model.separate_reranker else "live_encoder"
    if stage == LIVE_SHORTLIST:
        return f"{stack}.block.0."
    if stage != LIVE_STAGE_A or manifest.stage_a != "lazy":
        return None
    return f"{stack}.block.{manifest.model.num_stage_a_layers - 1}."


def _check_matched(option: str, patterns: Collection[str], done: dict[str, QuantizedGraph]) -> None:
    """Raise OptionError for a pattern that names nothing."""
    for pattern in patterns:
        if not any(pattern in graph.matched for graph in done.values()):
            raise OptionError(
                option, expected="a pattern that names a product, as `graph/node`",
                found=f"{pattern!r}, which names none", fix="look names up in the report of `quantize --json`",
            )


def _check_options(options: QuantizeOptions, stages: Sequence[str]) -> None:
    if options.weight_only is not None:
        check_weight_only_options(options.weight_only, stages, precision=options.precision, target=options.target)
    elif options.precision == "fp32":
        raise OptionError(
            "--precision", expected="a precision other than that of the bundle", found="fp32",
            fix="choose another, or give --weight-only",
        )
    if options.graphs is not None and options.precision == "fp32":
        raise OptionError(
            "--graphs", expected="none for --precision fp32", found=", ".join(options.graphs),
            fix="say which graphs have weights of few bits: --weight-graphs",
        )
    unknown = sorted(set(options.graphs or ()) - set(stages))
    if unknown:
        raise OptionError(
            "--graphs", expected=f"some of {', '.join(stages)}", found=unknown[0], fix="choose from these"
        )
    if options.cpu is not None and options.target != "cpu":
        raise OptionError("--cpu", expected="none for --target tensorrt", found=options.cpu, fix="leave it out")
    if options.gpu is not None and options.target != "tensorrt":
        raise OptionError("--gpu", expected="no GPU for --target cpu", found=options.gpu, fix="leave it out")
    _gpus(options)
    for pattern in options.keep:
        try:
            re.compile(pattern)
        except re.error as error:
            raise OptionError(
                "--keep", expected="a regular expression", found=f"{pattern!r}: {error}", fix="correct it"
            ) from None
