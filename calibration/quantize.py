"""One FP32 graph and its ranges -> the graph that a device runs: the passes in their order."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from glimmer_export.calibration.calibrators import bounds, calibrator
from glimmer_export.calibration.fp16 import check_fp16
from glimmer_export.calibration.linear import find_linears, shared_weights
from glimmer_export.calibration.policy import Equalize, Policy
from glimmer_export.calibration.scheme import Scheme
from glimmer_export.calibration.tracked import TrackedRanges
from glimmer_export.calibration.worth import COPIES, Gpu, asks_given_keys, not_worth

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["GraphOptions", "QuantizedGraph", "WeightOnly", "has_eight_bits", "quantize_graph", "stays_float"]

FEED_FORWARD_STRENGTH = 0.5
"""Of FP16's equalisation, which only has to keep the feed-forward product within range."""


@dataclass(frozen=True)
class WeightOnly:
    """Weights of few bits beside float activations: `bits` 4 or 8, `algorithm` one of WEIGHT_ALGORITHMS.

    `accuracy_level` is MatMulNBits'; `eight_bit` are regular expressions, beside the policy's, of what has 8 bits among
    4. `moments` are, by the tensor that products read, the mean products of its channels (channels, channels): GPTQ's.
    """

    bits: int
    algorithm: str
    accuracy_level: int
    eight_bit: tuple[str, ...] = ()
    moments: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True)
class GraphOptions:
    """How to quantise one graph.

    `int8` and `fp16` may both be set; `keep` are regular expressions of what is not to be INT8 beside the policy's, or,
    if there is no INT8, not FP16; `lazy_layer` is the prefix of the nodes that lazy stage A computes for one token,
    None elsewhere; `method` a calibrator. `gpus` are the machines on one of which INT8 has to be faster, where the
    policy asks for that; none ask for nothing. `only` names the nodes that become INT8 whatever the policy keeps, all
    others staying in float; None leaves it to the policy. `fp16_io` are the inputs and outputs that are FP16 (of
    `fp16`). `weight_only` comes first: what it replaces is not asked about INT8; None replaces nothing.
    """

    name: str
    int8: bool
    fp16: bool
    scheme: Scheme
    policy: Policy
    method: str
    keep: tuple[str, ...] = ()
    lazy_layer: str | None = None
    gpus: tuple[Gpu, ...] = ()
    only: Collection[str] | None = None
    fp16_io: frozenset[str] = frozenset()
    weight_only: WeightOnly | None = None


@dataclass
class QuantizedGraph:
    """What was done.

    `blocks` are the products with weights of few bits, by their bits; `int8` and `kept` are the products and lookups
    that are INT8, and those in float; `half_tables` the lookups of
    neither, whose table is FP16 at a scale a row; `scaled` those INT8 products whose channels are balanced by a
    multiplication in front of them, as no weight before them could take it; `kept_fp32` FP16's exceptions and their
    reasons; `fp16_io` the inputs and outputs that are FP16; `not_worth` those of `kept` that INT8 would not speed up;
    `matched` the patterns of `keep` that named anything; `notes` what could not be done, or may cost accuracy.
    """

    blocks: dict[str, int] = field(default_factory=dict)
    int8: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    half_tables: list[str] = field(default_factory=list)
    scaled: list[str] = field(default_factory=list)
    matched: set[str] = field(default_factory=set)
    kept_fp32: list[str] = field(default_factory=list)
    not_worth: list[str] = field(default_factory=list)
    fp16_io: list[str] = field(default_factory=list)
    residual_scale: float = 1.0
    notes: list[str] = field(default_factory=list)


def quantize_graph(model: ir.Model, tracked: TrackedRanges, options: GraphOptions) -> QuantizedGraph:
    """Rewrite an exported FP32 graph in place; `tracked` are its ranges.

    Products with weights of few bits come first. Then, on FP32 weights, exact rewrites: position bias centred, channels
    balanced, the residual stream scaled. Then Q/DQ, then FP16.
    Raises CalibrationError if FP16 would overflow on the calibration data, or a range is missing.
    """
    from glimmer_export.calibration.passes.centre_position_bias import CentrePositionBias
    from glimmer_export.calibration.passes.convert_fp16 import ConvertFp16
    from glimmer_export.calibration.passes.equalize_feed_forward import EqualizeFeedForward
    from glimmer_export.calibration.passes.fold_weights import FoldWeights
    from glimmer_export.calibration.passes.rescale_codes import RescaleCodes
    from glimmer_export.calibration.passes.rescale_residual import RescaleResidual, residual_scale

    done = QuantizedGraph()
    FoldWeights()(model)
    if options.weight_only is not None:
        _replace_products(model, options, options.weight_only, done)
    if not (options.int8 or options.fp16):
        done.kept = [linear.name for linear in find_linears(model.graph)]
        return done
    if options.int8:
        shared = shared_weights(model.graph)
        done.notes += [f"{name}: left in float, as its weight is not its own" for name in shared]
    centre = CentrePositionBias(tracked)
    centre(model)
    done.notes += [f"{name}: position bias left as it is: it moves a part of the keys" for name in centre.left]
    strength = options.policy.equalize.feed_forward if options.int8 else FEED_FORWARD_STRENGTH
    balanced: set[ir.Value] = set()
    if strength is not None:
        feed_forward = EqualizeFeedForward(tracked, strength)
        feed_forward(model)
        balanced |= feed_forward.balanced
    if options.fp16:
        RescaleCodes(tracked)(model)
        done.residual_scale = residual_scale(model.graph, tracked)
        RescaleResidual(done.residual_scale, tracked)(model)
    if options.int8:
        _insert_int8(model, tracked, options, done, balanced)
    else:
        done.kept = [linear.name for linear in find_linears(model.graph) if _keeps(options, linear.name, done)]
    if options.fp16:
        convert = ConvertFp16(tracked, keep=() if options.int8 else done.kept, fp16_io=options.fp16_io)
        convert(model)
        done.kept_fp32, done.fp16_io = convert.kept_fp32, sorted(options.fp16_io)
        done.notes += check_fp16(model.graph, tracked)
    return done


def _replace_products(model: ir.Model, options: GraphOptions, weights: WeightOnly, done: QuantizedGraph) -> None:
    from glimmer_export.calibration.block_weights import quantizer
    from glimmer_export.calibration.passes.block_products import BlockProducts, block_candidates

    for linear in block_candidates(model.graph):
        asked = _keeps(options, linear.name, done)
        if not asked and (options.only is None or linear.name in options.only):
            done.blocks[linear.name] = 8 if has_eight_bits(linear.name, options, weights) else weights.bits
            done.matched |= {item for item in weights.eight_bit if _matches((item,), options.name, linear.name)}
    BlockProducts(done.blocks, quantizer(weights.algorithm), weights.accuracy_level, weights.moments)(model)


def _insert_int8(
    model: ir.Model, tracked: TrackedRanges, options: GraphOptions, done: QuantizedGraph, balanced: set[ir.Value]
) -> None:
    """`balanced` are the values whose channels the feed-forward's equalisation has seen to."""
    from glimmer_export.calibration.passes.equalize_values import EqualizeValues
    from glimmer_export.calibration.passes.insert_qdq import InsertQDQ
    from glimmer_export.calibration.passes.migrate_into_norm import MigrateIntoNorm
    from glimmer_export.calibration.passes.quantize_embedding import QuantizeEmbedding, find_lookups
    from glimmer_export.calibration.passes.scale_heads import ScaleHeads
    from glimmer_export.calibration.passes.scale_inputs import ScaleInputs
    from glimmer_export.calibration.passes.scale_tokens import ScaleTokens

    policy, scheme = options.policy, replace(options.scheme, half_scales=options.fp16)
    lookups = [str(node.name) for node in find_lookups(model.graph)]
    for name in (*(linear.name for linear in find_linears(model.graph)), *lookups):
        asked = _keeps(options, name, done)
        kept = asked or stays_float(name, options) or (name in lookups and not policy.embeddings)
        # `only` asks what a group costs in INT8, whatever the policy makes of it.
        half = name in lookups and options.only is None and _matches(policy.half_tables, options.name, name)
        (done.kept if kept else done.half_tables if half else done.int8).append(name)
    _leave_unworthy(model.graph, options, done)
    if policy.equalize.values is not None:
        values = EqualizeValues(tracked, policy.equalize.values)
        values(model)
        balanced |= values.balanced
    if policy.equalize.norms is not None:
        norms = MigrateIntoNorm(tracked, policy.equalize.norms)
        norms(model)
        balanced |= norms.balanced
    names = frozenset(done.int8)
    inputs = ScaleInputs(tracked, lambda name: _input_strength(policy.equalize, name), names, balanced)
    inputs(model)
    done.scaled = inputs.scaled
    done.notes += [f"{name}: its channels are not balanced, as their ranges are not known" for name in inputs.unknown]
    if policy.equalize.heads is not None:
        ScaleHeads(tracked, policy.equalize.heads, names)(model)
    scaled = frozenset(name for name in names if _matches(policy.token_scales, options.name, name))
    ScaleTokens(tracked, scaled)(model)
    InsertQDQ(lambda name: value_bounds(tracked, name, options.method), scheme, names)(model)
    tables = QuantizeEmbedding(scheme, keep=done.kept.__contains__, half=done.half_tables.__contains__)
    tables(model)
    done.int8 = [name for name in done.int8 if name not in tables.left]
    done.kept += tables.left
    done.notes += [f"{name}: left in float, as its rows do not divide by four" for name in tables.left]


def _leave_unworthy(graph: ir.Graph, options: GraphOptions, done: QuantizedGraph) -> None:
    """Leave in float what INT8 speeds up on none of the machines, and say so."""
    asked = {name for name in done.int8 if _matches(options.policy.where_it_pays, options.name, name)}
    if not options.gpus:
        return
    copying = asks_given_keys(graph, asked)
    found = not_worth(graph, asked - set(copying), options.gpus, saved_bytes=1 if options.fp16 else 3)
    done.not_worth = [*copying, *(() if found is None else found.names)]
    done.int8 = [name for name in done.int8 if name not in done.not_worth]
    done.kept += done.not_worth
    done.notes += [f"{len(copying)} products: {COPIES}"] if copying else []
    done.notes += [found.note(options.gpus)] if found is not None else []


def _input_strength(equalize: Equalize, name: str) -> float | None:
    """How far to balance what a product reads, by the module that its node is named for."""
    module = name.rpartition("/")[0].rpartition(".")[2]
    return {"o": equalize.values, "wo": equalize.feed_forward}.get(module, equalize.norms)


def value_bounds(tracked: TrackedRanges, name: str, method: str) -> tuple[float, float]:
    """Lower and upper end of a value's codes now, by a calibrator.

    Where channels were scaled apart, the histogram of the whole tensor no longer holds: the calibrator's share of the
    old amax is taken of the new one.
    """
    source, factor = tracked.source(name), tracked.factor(name)
    if source.count == 0:
        return source.minimum, source.maximum
    chosen = calibrator(method)
    if np.ndim(factor) == 0:
        low, high = bounds(source, chosen)
        return low * float(factor), high * float(factor)
    share = chosen.amax(source) / source.amax if source.amax else 1.0
    amax = tracked.amax(name) * share
    return (0.0 if source.minimum >= 0 else -amax), amax


def stays_float(node: str, options: GraphOptions) -> bool:
    """Whether a product or lookup of the graph is left as it is."""
    if options.only is not None:
        return node not in options.only
    lazy = options.lazy_layer is not None and not options.policy.lazy_layer and node.startswith(options.lazy_layer)
    return lazy or _matches((*options.policy.keep, *options.keep), options.name, node)


def has_eight_bits(node: str, options: GraphOptions, weights: WeightOnly) -> bool:
    """Whether a product's weight has 8 bits where others have 4."""
    return weights.bits == 8 or _matches((*options.policy.eight_bit, *weights.eight_bit), options.name, node)


def _keeps(options: GraphOptions, node: str, done: QuantizedGraph) -> bool:
    """Whether `keep` names a node; which of its patterns did is noted."""
    found = {pattern for pattern in options.keep if _matches((pattern,), options.name, node)}
    done.matched |= found
    return bool(found)


def _matches(patterns: tuple[str, ...], graph: str, node: str) -> bool:
    return any(re.search(pattern, f"{graph}/{node}") for pattern in patterns)
