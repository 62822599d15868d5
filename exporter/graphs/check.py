"""A written graph against the stage it was traced from: valid ONNX, allowed operators, and torch's own outputs."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from glimmer_export.exporter.graphs.blank_weights import BlankWeights
from glimmer_export.exporter.graphs.samples import Sizes, sample_inputs
from glimmer_export.exporter.graphs.trace import OPSET
from glimmer_export.exporter.tolerances import TOLERANCES, Tolerance, max_abs_error
from glimmer_export.runtime.backends.onnxruntime_library import OrtSession, import_onnxruntime
from glimmer_export.runtime.codec_file import open_codec
from glimmer_export.runtime.codecs import CODECS
from glimmer_export.runtime.contract import (
    BLOCK_DOMAIN,
    BLOCK_OPERATOR,
    LOG_PROBABILITY,
    ExportError,
    Forms,
    GraphIO,
    ModelShape,
    boundary_of,
    codec_layout,
    codec_of,
    graph_io,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from glimmer_export.exporter.stages import GlimmerModel

__all__ = [
    "APART_BYTES", "BLOCK_OPERATORS", "StageCheck", "check_operators", "check_runs", "check_valid", "check_written",
    "reference_runs", "run_stage",
]  # fmt: skip

Run = tuple[dict[str, "NDArray[Any]"], dict[str, "NDArray[Any]"]]
"""A graph's inputs, and the outputs that it should give."""

FITTED_ROWS = 200
"""Of random states: fewer than a codebook's centroids, which are then these, and no package is needed."""

FORBIDDEN_OPERATORS = frozenset(
    {"Attention", "RMSNormalization", "MatMulInteger", "DynamicQuantizeLinear", "GatherND", "BitShift"}
)
"""Standard operators that TensorRT 10.3 has not, or takes in a form that ONNX Runtime refuses."""
BLOCK_OPERATORS = {BLOCK_DOMAIN: frozenset({BLOCK_OPERATOR})}
"""Of a graph whose weights have few bits."""


def reference_runs(stage: nn.Module, io: GraphIO, shape: ModelShape, codec: str) -> list[Run]:
    """Random inputs of three sizes, none of them the traced, and what torch makes of them.

    Memory among them is random states as the codec has them, so that no code comes that it would not write.
    """
    samples = [sample_inputs(io, shape, sizes, seed=seed) for seed, sizes in enumerate(_check_sizes(shape), start=1)]
    samples = [inputs | _stored(inputs, codec, shape.d_model) for inputs in samples]
    return [(inputs, run_stage(stage, io, inputs, codec)) for inputs in samples]


def _stored(inputs: Mapping[str, NDArray[Any]], codec: str, d_model: int) -> dict[str, NDArray[Any]]:
    """Arrays and tensors of a codec that was fitted to random states, for as many passages as the inputs have."""
    from glimmer_export.exporter.memory.codec_fit import fit_codec

    if "memory" not in inputs:
        return {}
    batch, passages, tokens = inputs["memory"].shape[:3]
    random = np.random.default_rng(tokens)
    arrays = fit_codec(codec, d_model, [random.normal(0, 1, (FITTED_ROWS, d_model)).astype(np.float32)])
    opened = open_codec(codec, d_model, arrays, subject="sample")
    memories = random.normal(0, 1, (batch * passages, tokens, d_model)).astype(np.float32)
    encoded = [opened.encode(memory) for memory in memories]
    stacked = {name: np.stack([tensors[name] for tensors in encoded]) for name in encoded[0]}
    return arrays | {name: values.reshape(batch, passages, *values.shape[1:]) for name, values in stacked.items()}


def check_written(path: Path) -> None:
    """Raise ExportError if ONNX's checker refuses a graph file, or an operator is not allowed."""
    check_valid(path)
    check_operators(path)


def check_runs(path: Path, runs: Sequence[Run], *, precision: str = "fp32") -> float:
    """Run a graph file as torch was run; returns the largest absolute error.

    Weights are read where they lie in their file, not packed anew. Raises ExportError if a tolerance is missed.
    """
    def refused(reason: str) -> ExportError:
        return ExportError(
            f"graph {path.stem}", expected="a graph that ONNX Runtime can load", found=reason,
            fix="report this as a bug",
        )

    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = OrtSession(path, options, subject=f"graph {path.stem}", refused=refused)
    takes, names = ([name for name, _, _ in side] for side in (session.inputs, session.outputs))
    worst = 0.0
    for inputs, expected in runs:
        wanted = {name: inputs[name] for name in takes}
        found = dict(zip(names, session.run(names, wanted), strict=True))
        sides = (found, expected)
        if precision == "fp16":
            # The mask is another number there, which shows where nothing may be attended: in what is never read.
            sides = (_read_outputs(inputs, found), _read_outputs(inputs, expected))
        worst = max(worst, compare_outputs(path.stem, *sides, TOLERANCES[precision]))
    return worst


def _read_outputs(inputs: dict[str, NDArray[Any]], outputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    from glimmer_export.exporter.graphs.comparable import comparable_outputs

    return {**outputs, **comparable_outputs(inputs, outputs)}


def check_valid(path: Path) -> None:
    """Raise ExportError if ONNX's checker, types and shapes included, refuses a graph file."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"graph {path.stem}", expected="valid ONNX", found=str(error).splitlines()[0], fix="report this as a bug"
        ) from None


def check_operators(path: Path, *, allowed: Mapping[str, frozenset[str]] = MappingProxyType({})) -> None:
    """Raise ExportError for another opset, an operator that a target cannot run, or one of a custom domain.

    `allowed` are operators of custom domains, by domain, that the graph's target runs; it must have some of each.
    """
    import onnx
    import onnx_ir

    model = onnx.load(str(path), load_external_data=False)
    domains = {entry.domain: entry.version for entry in model.opset_import}
    nodes = list(onnx_ir.traversal.RecursiveGraphIterator(onnx_ir.from_proto(model).graph))
    own = {domain: {node.op_type for node in nodes if node.domain == domain} for domain in allowed}
    strange = {domain for domain, operators in own.items() if not operators or operators - allowed[domain]}
    custom = sorted(({node.domain for node in nodes} - {"", "ai.onnx", *allowed}) | strange)
    forbidden = sorted({node.op_type for node in nodes} & FORBIDDEN_OPERATORS)
    if domains != {"": OPSET} | dict.fromkeys(allowed, 1) or custom or forbidden or model.functions:
        raise ExportError(
            f"graph {path.stem}", expected=f"standard operators of opset {OPSET} that every target runs",
            found=f"opsets {domains}, domains {custom}, operators {forbidden}, {len(model.functions)} functions",
            fix="report this as a bug",
        )


def run_stage(
    stage: nn.Module, io: GraphIO, inputs: Mapping[str, NDArray[Any]], codec: str
) -> dict[str, NDArray[Any]]:
    """A stage's outputs in torch; memory in `codec` is selected and decoded here, by numpy, as stages take it so.

    Of `inputs` those count that are the graph's. Torch computes in FP32 what the graph takes or gives in FP16.
    """
    import torch

    values = {
        tensor.name: inputs[tensor.name].astype(np.float32, copy=False) if boundary_of(tensor.name)
        else inputs[tensor.name]
        for tensor in io.inputs
    }
    if "memory" in values:
        values = _decoded(stage, values, codec)
    with torch.inference_mode():
        arguments = [torch.from_numpy(values[tensor.name]) for tensor in io.inputs if tensor.name in values]
        outputs = stage(*arguments)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return {
        tensor.name: output.contiguous().numpy().astype(tensor.dtype, copy=False)
        for tensor, output in zip(io.outputs, outputs, strict=True)
    }


def _decoded(stage: nn.Module, values: dict[str, NDArray[Any]], codec: str) -> dict[str, NDArray[Any]]:
    """A graph's inputs with memory as its stage takes it."""
    from glimmer_export.exporter.stages import applies_scale

    width = cast("GlimmerModel", stage.model).config.d_model
    layout = codec_layout(codec, width)
    arrays = {tensor.name: values.pop(tensor.name) for tensor in layout.arrays}
    tensors = {tensor.name: values.pop(tensor.name) for tensor in (*layout.per_token, *layout.per_passage)}
    if applies_scale(stage):
        holder = arrays if "memory_scale" in arrays else tensors
        values["memory_scale"] = holder["memory_scale"]
        holder["memory_scale"] = np.ones_like(holder["memory_scale"])
    values["memory"] = open_codec(codec, width, arrays, subject="sample").decode(tensors)
    if "selected" in values:
        selected = values.pop("selected")
        for name in ("memory", "memory_mask"):
            rows = [passages[places] for passages, places in zip(values[name], selected, strict=True)]
            values[name] = np.stack(rows)
    return values


def compare_outputs(
    name: str, found: dict[str, NDArray[Any]], reference: dict[str, NDArray[Any]], tolerance: Tolerance
) -> float:
    """Largest absolute error over the outputs; raises ExportError if one misses the tolerance.

    A greedy token may differ only where its logit ties with the reference's best within the tolerance; its
    log-probability is a difference of two numbers that each move as far as a logit.
    """
    worst = 0.0
    for output, expected in reference.items():
        if output == "next_token":
            logits = reference["logits"]
            tokens = found[output].reshape(*logits.shape[:-1], 1).astype(np.int64)
            chosen = np.take_along_axis(logits, tokens, axis=-1)
            error, limit = float((logits.max(-1, keepdims=True) - chosen).max()), tolerance.limit(logits)
        elif output == LOG_PROBABILITY:
            error, limit = max_abs_error(found[output], expected), 2 * tolerance.limit(reference["logits"])
        elif np.issubdtype(expected.dtype, np.floating):
            error, limit = max_abs_error(found[output], expected), tolerance.limit(expected)
        else:
            error, limit = max_abs_error(found[output].astype(np.float64), expected.astype(np.float64)), 0.0
        if error > limit:
            raise ExportError(
                f"graph {name}, output {output}", expected=f"at most {limit:.3g} from torch ({tolerance.reason})",
                found=f"{error:.3g}", fix="report this as a bug",
            )
        worst = max(worst, error)
    return worst


def _check_sizes(shape: ModelShape) -> tuple[Sizes, ...]:
    """All ones; the model's own question length and a longer passage; several rows with everything selected.

    A decoder step takes no draft, one of four tokens, and one of one token; both may go beyond the cache.
    """
    prefix = shape.decoder_prefix_length if shape.traits.prefixes_decoder else 1
    passage = min(shape.passage_length, 32)
    return (
        Sizes(1, passages=1, selected=1, question=1, passage=1, encoder_tokens=1, prefix=1, cache_length=1),
        Sizes(
            1, passages=5, selected=2, question=shape.question_length, passage=passage, encoder_tokens=80,
            prefix=prefix, cache_length=shape.cache_length, positions=5, shortlisted=3,
        ),
        Sizes(
            3, passages=3, selected=3, question=3, passage=9, encoder_tokens=36, prefix=min(2, prefix), cache_length=4,
            positions=2,
        ),
    )


APART_BYTES = 512_000_000
"""Weights, in FP32, above which a check is worth the seconds that a process takes to start."""


@dataclass(frozen=True)
class StageCheck:
    """What to check: a graph file whose stage needs the large weights of these names."""

    checkpoint: Path
    path: Path
    forms: Forms
    weights: frozenset[str]
    precision: str

    def run(self) -> float:
        """Largest absolute error against torch; torch's weights are let go before ONNX Runtime reads the graph's.

        Raises ExportError as `check_runs` does.
        """
        from glimmer_export.exporter.checkpoint import open_tensors, read_config
        from glimmer_export.exporter.stages import stage_from_model

        check_written(self.path)
        config, name = read_config(self.checkpoint), self.path.stem
        model = BlankWeights(open_tensors(self.checkpoint)).filled_model(config, self.weights)
        io = graph_io(config.shape, self.forms)[name]
        stage = stage_from_model(model, name, self.forms)
        runs = reference_runs(stage, io, config.shape, codec_of(name))
        del model, stage
        return check_runs(self.path, runs, precision=self.precision)

    def run_apart(self) -> float:
        """The same in a process of its own; raises ExportError too if the system ends that for want of memory.

        A codec that is registered in this process alone is checked in it.
        """
        if not CODECS[codec_of(self.path.stem)].is_own:
            return self.run()
        spawn = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                return pool.submit(self.run).result()
        except BrokenProcessPool:
            raise ExportError(
                f"graph {self.path.stem}", expected="memory to check it in: its weights twice, in FP32",
                found="a check that the system stopped", fix="check it on a larger machine, or pass --no-check",
            ) from None
