"""The bundle's manifest: what a bundle holds, with digests. Written by the exporter, verified by the runtime."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from glimmer_export.runtime.codecs import CODECS, codec_layout
from glimmer_export.runtime.contract.architecture import ARCHITECTURES, ModelShape
from glimmer_export.runtime.contract.boundary import check_boundaries, with_fp16
from glimmer_export.runtime.contract.digest import file_digest
from glimmer_export.runtime.contract.errors import BundleError
from glimmer_export.runtime.contract.form_choice import FormChoice, check_form_choice
from glimmer_export.runtime.contract.graph_io import (
    CROSS_ATTENTION_FORMS,
    STAGE_A_FORMS,
    Forms,
    GraphIO,
    codec_of,
    form_of,
    graph_io,
    stage_of,
)
from glimmer_export.runtime.contract.kinds import BUNDLE, error_of_kind
from glimmer_export.runtime.contract.records import FileKind, read_record
from glimmer_export.runtime.contract.templates import is_early_fid
from glimmer_export.runtime.contract.weight_only import WeightOnlyEntry, check_weight_only

__all__ = [
    "BUNDLE_SCHEMA_VERSION",
    "CPU_KINDS",
    "MANIFEST",
    "PLAIN_PRECISIONS",
    "PRECISIONS",
    "QUANTIZATION_TARGETS",
    "BundleManifest",
    "FileEntry",
    "GraphEntry",
    "QuantizationEntry",
    "TensorEntry",
    "read_manifest",
    "tensor_entries",
]

BUNDLE_SCHEMA_VERSION = 10
BUNDLE_FILE = FileKind("glimmer-bundle", BUNDLE_SCHEMA_VERSION, oldest=4)
MANIFEST = "manifest.json"
FIX = "export the bundle again with `glimmer-export export`"


PLAIN_PRECISIONS = ("fp32", "fp16", "int8", "int8-fp16")
PRECISIONS = (*PLAIN_PRECISIONS, "w4", "w8", "int8-w4", "int8-w8")
"""Of graphs. `w4` and `w8`: products whose weights have so many bits, in blocks, and whose activations are float."""
EXPORT_PRECISIONS = PRECISIONS[:2]
"""Of graphs that are made of a checkpoint; the others need ranges."""
QUANTIZATION_TARGETS = ("cpu", "tensorrt")
CPU_KINDS = ("x86-vnni", "x86", "arm")
FEED_FORWARDS = ("gated-gelu", "relu")
QUESTION_LAYOUTS = ("block", "joined")
TOKENS = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
STACK_DEPTHS = ("num_memory_layers", "num_stage_a_layers", "num_stage_b_layers")
MAX_PASSAGES = 3840
"""Of a question: the most that TensorRT's TopK ranks."""
MAX_WIDTH, MAX_DEPTH, MAX_ANSWER, MAX_LENGTH = 1 << 24, 4096, 4096, 1 << 16
MAX_SIZES = dict.fromkeys(("vocab_size", "d_model", "d_kv", "d_ff", "num_heads"), MAX_WIDTH)
MAX_SIZES |= dict.fromkeys((*STACK_DEPTHS, "num_decoder_layers"), MAX_DEPTH) | {"max_new_tokens": MAX_ANSWER}
MAX_SIZES |= dict.fromkeys(("question_length", "passage_length"), MAX_LENGTH) | {"num_retrieved": MAX_PASSAGES}
"""A model's bounds, a checkpoint's as well."""


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle: path below the bundle with forward slashes, size in bytes, SHA-256."""

    path: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, root: Path, path: Path) -> FileEntry:
        """The entry of a file below `root`; raises OSError."""
        return cls.named(path.relative_to(root).as_posix(), path)

    @classmethod
    def named(cls, name: str, path: Path) -> FileEntry:
        """The entry of a file that is still to get this name, or has it below another folder; raises OSError."""
        return cls(name, path.stat().st_size, file_digest(path))


@dataclass(frozen=True)
class TensorEntry:
    """One graph input or output: dims are numbers, or names of dimensions that vary."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphEntry:
    """One graph: its files (the model first), I/O, arithmetic precision, parameters and size of its weights.

    `weight_bytes` is what it reads of the bundle's weights file, which graphs share; its own file tells their digests.
    """

    files: tuple[FileEntry, ...]
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    precision: str
    num_parameters: int
    weight_bytes: int

    @property
    def num_bytes(self) -> int:
        """Size with all that it reads, whether it shares that or not."""
        return sum(file.bytes for file in self.files) + self.weight_bytes


@dataclass(frozen=True)
class QuantizationEntry:
    """How a bundle's graphs were quantised.

    `target` is `cpu` (Q/DQ as ONNX Runtime runs it fastest on `cpu_kind`) or `tensorrt` (signed, symmetric); `method`
    is the calibrator of `calibration/`, None if no range was asked; `policy` what of configs/precision decided, None if
    nothing did; `residual_scales` holds, by graph, the power of two that its residual stream is multiplied by inside;
    `keep` are the nodes that stayed in float by request, as regular expressions; `weight_only` is None if no product
    has weights of few bits beside float activations, as in all bundles of before version 10.
    """

    target: str
    cpu_kind: str | None
    method: str | None
    policy: str | None
    residual_scales: dict[str, float]
    keep: tuple[str, ...]
    weight_only: WeightOnlyEntry | None = None


@dataclass(frozen=True)
class BundleManifest:
    """`manifest.json` of a bundle.

    `memory_digest` stands for the checkpoint's memory encoder and how passages are put to it; it is the same in every
    bundle made from one checkpoint, and a store carries it too. `weights` is the file of the weights of all graphs,
    None if each holds its own. `codecs` are the store codecs that graphs decode. `calibration` are the
    files of its table of ranges, none before `glimmer-export calibrate`; `quantization` is None if every graph is as
    it was exported. `log_probability` says whether the decoder gives the log-probability of each token that it chooses;
    bundles of before version 6 do not. `fp16_boundaries` are the tensors between graphs that are FP16, by the names
    that `boundary_of` gives them; all others are FP32, as they all are in bundles of before version 7.
    `cross_attention_choice` tells how `cross_attention` was chosen of the two forms that the decoder's graphs are there
    in; it is None if they are in one. `takes_drafts` says whether a decoder step takes a draft behind its token; in
    bundles of before version 10 it takes one token.
    """

    format: str = field(default=BUNDLE_FILE.format, kw_only=True)
    schema_version: int
    model: ModelShape
    graphs: dict[str, GraphEntry]
    weights: FileEntry | None
    codecs: tuple[str, ...]
    stage_a: str | None
    cross_attention: str
    tokenizer: FileEntry | None
    calibration: tuple[FileEntry, ...]
    quantization: QuantizationEntry | None
    checkpoint_digest: str
    memory_digest: str
    tokenizer_digest: str | None
    log_probability: bool = False
    fp16_boundaries: tuple[str, ...] = ()
    cross_attention_choice: FormChoice | None = None
    takes_drafts: bool = False

    def io(self) -> dict[str, GraphIO]:
        """The graph I/O that this manifest's model must have, in this manifest's types."""
        return with_fp16(graph_io(self.model, self.forms), self.fp16_boundaries)

    @property
    def forms(self) -> Forms:
        """The algebraic forms that the graphs were exported in."""
        both = self.cross_attention_choice is not None
        return Forms(self.codecs, self.stage_a, self.cross_attention, self.log_probability, both, self.takes_drafts)

    def stages(self, codec: str | None) -> dict[str, str]:
        """The graphs that answer from a store of this codec, by the stages that they compute, in the chosen form."""
        return {
            stage_of(name): name for name in self.graphs_for(codec) if form_of(name) in (None, self.cross_attention)
        }

    def graphs_for(self, codec: str | None) -> tuple[str, ...]:
        """The graphs that answer from a store of this codec, in either form."""

        def reads_memory(name: str) -> bool:
            return any(tensor.name == "memory" for tensor in self.graphs[name].inputs)

        return tuple(name for name in self.graphs if codec_of(name) == codec or not reads_memory(name))

    def chosen(self, choice: FormChoice) -> BundleManifest:
        """The same bundle, of both forms, that answers as `choice` has it."""
        return replace(self, cross_attention=choice.form, cross_attention_choice=choice)

    def graph_files(self) -> list[FileEntry]:
        """The files of all graphs, the weights that they share among them once."""
        files = [file for graph in self.graphs.values() for file in graph.files]
        return [*files, *([self.weights] if self.weights else [])]

    def files(self) -> list[FileEntry]:
        """Every file that the manifest vouches for."""
        return [*self.graph_files(), *([self.tokenizer] if self.tokenizer else []), *self.calibration]


def tensor_entries(io: GraphIO) -> tuple[tuple[TensorEntry, ...], tuple[TensorEntry, ...]]:
    """A graph's I/O as the manifest writes it."""
    inputs, outputs = (
        tuple(TensorEntry(tensor.name, tensor.dtype, tensor.dims) for tensor in side)
        for side in (io.inputs, io.outputs)
    )
    return inputs, outputs


def read_manifest(directory: Path) -> BundleManifest:
    """Parse and check `directory/manifest.json`; files are not looked at.

    Raises BundleError: absent, or something else than a bundle, not JSON, newer schema, an early FiD, unknown field,
    unknown architecture or codec, or graphs and I/O other than the model must have.
    """
    try:
        return _read(directory)
    except BundleError as damage:
        raise error_of_kind(damage, directory, BUNDLE) from None


def _read(directory: Path) -> BundleManifest:
    subject = f"bundle {directory}, {MANIFEST}"

    def without_early_fid(data: dict[str, Any]) -> dict[str, Any]:
        model = data.get("model")
        if isinstance(model, dict) and is_early_fid(model):
            raise BundleError(
                f"{subject}, passage_eos", expected="a FiD that is read as it was trained",
                found="one that an earlier version converted, with EOS behind its passages",
                fix="convert the FiD again with `glimmer-export convert --from fid`, and export it",
            )
        return data

    manifest = read_record(
        directory / MANIFEST, BUNDLE_FILE, BundleManifest, error=BundleError, subject=subject, fix=FIX,
        upgrade=without_early_fid,
    )
    if manifest.model.architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise BundleError(subject, expected=f"an architecture of {known}", found=manifest.model.architecture, fix=FIX)
    traits = manifest.model.traits
    if manifest.stage_a not in (STAGE_A_FORMS if traits.selects else (None,)):
        raise BundleError(subject, expected="a form of stage A", found=repr(manifest.stage_a), fix=FIX)
    if manifest.cross_attention not in CROSS_ATTENTION_FORMS:
        raise BundleError(subject, expected="a form of cross-attention", found=manifest.cross_attention, fix=FIX)
    choice = manifest.cross_attention_choice
    if choice is not None:
        check_form_choice(choice, subject=f"{subject}, cross_attention_choice", fix=FIX)
        if choice.form != manifest.cross_attention:
            raise BundleError(
                f"{subject}, cross_attention", expected=f"{choice.form}, as it was chosen",
                found=manifest.cross_attention, fix=FIX,
            )
    _check_shape(manifest.model, subject)
    _check_codecs(manifest, subject)
    _check_graphs(manifest, subject)
    _check_quantization(manifest, subject)
    return manifest


def _check_shape(model: ModelShape, subject: str) -> None:
    """Refuse sizes that no model has, before anything is allocated by them."""
    if model.feed_forward_proj not in FEED_FORWARDS:
        known = " or ".join(FEED_FORWARDS)
        raise BundleError(
            f"{subject}, feed_forward_proj", expected=known, found=model.feed_forward_proj, fix=FIX
        )
    limits = MAX_SIZES | dict.fromkeys(TOKENS, model.vocab_size - 1)
    for name, limit in limits.items():
        value = getattr(model, name)
        least = 0 if name in (*TOKENS, *STACK_DEPTHS) else 1
        if not least <= value <= limit:
            raise BundleError(f"{subject}, {name}", expected=f"{least} to {limit}", found=str(value), fix=FIX)
    if model.separate_reranker and not model.traits.selects:
        raise BundleError(
            f"{subject}, separate_reranker", expected="false if the architecture ranks nothing", found="true", fix=FIX
        )
    joined = model.question_layout == "joined"
    if model.cross_attention_bias and not joined:
        raise BundleError(
            f"{subject}, cross_attention_bias", expected="false if the question is not joined", found="true", fix=FIX
        )
    if model.question_layout not in QUESTION_LAYOUTS or (joined and model.architecture != "fid"):
        raise BundleError(
            f"{subject}, question_layout", expected="block, or joined if there is no memory",
            found=model.question_layout, fix=FIX,
        )
    if joined != (model.input_template is not None):
        raise BundleError(
            f"{subject}, input_template", expected="a template if the question is joined, else null",
            found=repr(model.input_template), fix=FIX,
        )
    selected = model.num_selected
    in_range = selected is None or 1 <= selected <= model.num_retrieved
    if (selected is not None) != model.traits.selects or not in_range:
        raise BundleError(
            f"{subject}, num_selected", expected="1 to num_retrieved if the architecture selects, else null",
            found=repr(selected), fix=FIX,
        )
    shortlisted = model.num_shortlisted
    fits = model.num_stage_a_layers > 1 and (selected or 1) <= (shortlisted or 0) <= model.num_retrieved
    if shortlisted is not None and not fits:
        raise BundleError(
            f"{subject}, num_shortlisted", found=str(shortlisted), fix=FIX,
            expected="num_selected to num_retrieved if stage A has two layers or more, else null",
        )


def _check_codecs(manifest: BundleManifest, subject: str) -> None:
    """Refuse a codec that is unknown, listed twice, or that does not fit the width."""
    codecs, memory = manifest.codecs, manifest.model.traits.has_memory
    if unknown := [codec for codec in codecs if codec not in CODECS]:
        raise BundleError(
            subject, expected=f"codecs of {', '.join(CODECS)}", found=unknown[0],
            fix="install a newer glimmer-export, or register the codec before it is opened (register_codec)",
        )
    if len(set(codecs)) != len(codecs) or bool(codecs) != memory:
        expected = "each codec once" if memory else "no codec if there is no memory"
        raise BundleError(subject, expected=expected, found=", ".join(codecs) or "none", fix=FIX)
    try:
        for codec in codecs:
            codec_layout(codec, manifest.model.d_model)
    except ValueError as reason:
        raise BundleError(subject, expected="codecs that fit d_model", found=str(reason), fix=FIX) from None


def _check_quantization(manifest: BundleManifest, subject: str) -> None:
    """Refuse precisions, targets and scales that no writer gives."""
    for name, graph in manifest.graphs.items():
        if graph.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise BundleError(f"{subject}, precision of graph {name}", expected=known, found=graph.precision, fix=FIX)
    entry = manifest.quantization
    check_weight_only(
        None if entry is None else entry.weight_only,
        {name: graph.precision for name, graph in manifest.graphs.items()},
        None if entry is None else entry.target, subject=f"{subject}, quantization, weight_only", fix=FIX,
    )
    if entry is None:
        return
    if entry.target not in QUANTIZATION_TARGETS or (entry.cpu_kind in CPU_KINDS) != (entry.target == "cpu"):
        raise BundleError(
            f"{subject}, quantization", expected="the target cpu with a kind of CPU, or tensorrt without",
            found=f"{entry.target}, {entry.cpu_kind}", fix=FIX,
        )
    for name, scale in entry.residual_scales.items():
        if name not in manifest.graphs or not 0 < scale <= 1 or math.frexp(scale)[0] != 0.5:
            raise BundleError(
                f"{subject}, residual scale of {name}", expected="a power of two up to 1, for a graph it has",
                found=str(scale), fix=FIX,
            )


def _check_graphs(manifest: BundleManifest, subject: str) -> None:
    expected = manifest.io()
    check_boundaries(manifest.fp16_boundaries, expected, subject=subject, fix=FIX)
    if list(manifest.graphs) != list(expected):
        raise BundleError(
            subject, expected=f"the graphs {', '.join(expected)}", found=", ".join(manifest.graphs) or "none", fix=FIX
        )
    for name, graph in manifest.graphs.items():
        if graph.weight_bytes < 0:
            raise BundleError(
                f"{subject}, graph {name}, weight_bytes", expected="a size", found=str(graph.weight_bytes), fix=FIX
            )
        if not graph.files:
            raise BundleError(f"{subject}, graph {name}", expected="at least one file", found="none", fix=FIX)
        _check_io(graph, expected[name], f"{subject}, graph {name}")


def _check_io(graph: GraphEntry, io: GraphIO, subject: str) -> None:
    """Refuse another I/O than the contract's; by name a tensor whose type alone is another."""
    for found, wanted in zip((graph.inputs, graph.outputs), tensor_entries(io), strict=True):
        if found == wanted:
            continue
        for one, other in zip(found, wanted, strict=False):
            if one.dtype != other.dtype and (one.name, one.dims) == (other.name, other.dims):
                raise BundleError(f"{subject}, {one.name}", expected=other.dtype, found=one.dtype[:80], fix=FIX)
        odd = [_shown(tensor) for tensor in found if tensor not in wanted]
        missing = [_shown(tensor) for tensor in wanted if tensor not in found]
        raise BundleError(
            subject, expected=f"the inputs and outputs of its architecture, such as {(missing or ['these'])[0]}",
            found=odd[0] if odd else "it is missing" if missing else "them in another order", fix=FIX,
        )


def _shown(tensor: TensorEntry) -> str:
    return f"{tensor.name} {tensor.dtype} {list(tensor.dims)}"[:120]
