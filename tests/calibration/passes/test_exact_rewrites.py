"""The rewrites that precede INT8 change no output of a graph, and the ranges that they report are those it then has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir
import pytest

from glimmer_export.calibration.linear import constant, find_linears
from glimmer_export.calibration.passes.centre_position_bias import CentrePositionBias
from glimmer_export.calibration.passes.equalize_feed_forward import EqualizeFeedForward
from glimmer_export.calibration.passes.equalize_values import EqualizeValues
from glimmer_export.calibration.passes.fold_weights import FoldWeights
from glimmer_export.calibration.passes.migrate_into_norm import MigrateIntoNorm
from glimmer_export.calibration.passes.scale_heads import ScaleHeads
from glimmer_export.calibration.passes.scale_inputs import ScaleInputs
from glimmer_export.calibration.passes.scale_tokens import SMALLEST, ScaleTokens
from glimmer_export.calibration.ranges import TensorRange
from glimmer_export.calibration.tracked import TrackedRanges
from glimmer_export.exporter.tolerances import TOLERANCES, max_abs_error
from tests.calibration.fp16_graphs import Arrays, every_value, graphs_of, run
from tests.exported import REWRITTEN_VARIANTS, Exported, load_graph

STRENGTH = 0.5
Rewrite = Callable[[ir.Model, TrackedRanges], bool]


def products(model: ir.Model) -> frozenset[str]:
    return frozenset(linear.name for linear in find_linears(model.graph))


REWRITES: dict[str, Rewrite] = {
    "CentrePositionBias": lambda model, ranges: CentrePositionBias(ranges)(model).modified,
    "EqualizeFeedForward": lambda model, ranges: EqualizeFeedForward(ranges, STRENGTH)(model).modified,
    "EqualizeValues": lambda model, ranges: EqualizeValues(ranges, STRENGTH)(model).modified,
    "MigrateIntoNorm": lambda model, ranges: MigrateIntoNorm(ranges, STRENGTH)(model).modified,
    "ScaleInputs": lambda model, ranges: ScaleInputs(ranges, lambda _: STRENGTH, products(model))(model).modified,
    "ScaleHeads": lambda model, ranges: ScaleHeads(ranges, STRENGTH, products(model))(model).modified,
    "ScaleTokens": lambda model, ranges: ScaleTokens(ranges, products(model))(model).modified,
}
WHERE = {
    "CentrePositionBias": {"memory_encoder", "live_stage_a", "live_stage_b", "decoder_step"},
    "EqualizeFeedForward": {"memory_encoder", "live_stage_a", "live_stage_b", "decoder_step"},
    "EqualizeValues": {"memory_encoder", "live_stage_b"},
    "MigrateIntoNorm": {"memory_encoder", "live_stage_a", "live_stage_b", "decoder_step"},
    "ScaleInputs": {"memory_encoder", "live_stage_a", "live_stage_b", "decoder_step", "cross_kv"},
    "ScaleHeads": set(),
    "ScaleTokens": {"memory_encoder", "live_stage_a", "live_stage_b", "decoder_step", "cross_kv"},
}
"""Graphs of the papers' form that a rewrite finds something in, at the least."""


def by_channel(model: ir.Model, inputs: Arrays) -> TrackedRanges:
    """Ranges of every float value, by channel where the last axis has one size."""
    sizes = {value.name: value.shape for value in (*model.graph.inputs, *(v for n in model.graph for v in n.outputs))}
    ranges = {}
    for name, values in every_value(model, inputs).items():
        finite = np.where(np.isfinite(values), values, 0).astype(np.float64)
        shape = sizes.get(name)
        last = shape[-1] if shape is not None and len(shape) else None
        amax = np.abs(finite).max(axis=tuple(range(finite.ndim - 1))) if isinstance(last, int) else None
        low, high = float(finite.min(initial=0)), float(finite.max(initial=0))
        channels = None if amax is None else amax.astype(np.float32)
        ranges[name] = TensorRange(low, high, finite.size, 1.0, np.zeros(2, np.int64), channels)
    return TrackedRanges(ranges)


def folded_graphs(source: Exported) -> Iterator[tuple[str, ir.Model, Arrays]]:
    for path, inputs in graphs_of(source):
        model = load_graph(path)
        FoldWeights()(model)
        yield path.stem, model, inputs


def assert_same_outputs(found: Arrays, expected: Arrays, where: str) -> None:
    assert list(found) == list(expected)
    for name, values in expected.items():
        if values.dtype.kind == "f":
            assert max_abs_error(found[name], values) <= TOLERANCES["fp32"].limit(values), f"{where}: {name}"
        else:
            assert np.array_equal(found[name], values), f"{where}: {name}"


@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_folding_gives_every_product_its_weight(exported, variant):
    for path, inputs in graphs_of(exported(variant)):
        model = load_graph(path)
        expected = run(model, inputs)
        names = [(value.name, value.dtype) for value in model.graph.outputs]
        FoldWeights()(model)
        assert_same_outputs(run(model, inputs), expected, path.stem)
        assert [(value.name, value.dtype) for value in model.graph.outputs] == names
        assert not any(node.op_type == "Gemm" for node in model.graph)
        for node in model.graph:
            if node.op_type in ("Transpose", "Reshape"):
                assert node.inputs[0].name not in model.graph.initializers, node.name
        linears = find_linears(model.graph)
        assert len({linear.name for linear in linears}) == len(linears)
        # Weights as small as these the tracer has folded itself now and then, and with that their names are gone.
        assert all("/MatMul" in linear.name for linear in linears if ".weight" in str(linear.weight.name))


@pytest.mark.parametrize("rewrite", REWRITES)
@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_no_output_changes_and_ranges_follow(exported, variant, rewrite):
    for graph, model, inputs in folded_graphs(exported(variant)):
        expected, ranges = run(model, inputs), by_channel(model, inputs)
        where = f"{graph}, {rewrite}"
        REWRITES[rewrite](model, ranges)
        assert_same_outputs(run(model, inputs), expected, where)
        assert_ranges_hold(model, inputs, ranges, where)


@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_all_together(exported, variant):
    for graph, model, inputs in folded_graphs(exported(variant)):
        expected, ranges = run(model, inputs), by_channel(model, inputs)
        for rewrite in REWRITES.values():
            rewrite(model, ranges)
        assert_same_outputs(run(model, inputs), expected, graph)
        assert_ranges_hold(model, inputs, ranges, graph)


def assert_ranges_hold(model: ir.Model, inputs: Arrays, ranges: TrackedRanges, where: str) -> None:
    """What products read is known to the channel; where a pass gives a bound, it holds."""
    again = by_channel(model, inputs)
    for linear in find_linears(model.graph):
        name = str(linear.x.name)
        assert name in ranges, f"{where}: {name}"
        found = again.channel_amax(name)
        if found is not None and ranges.channel_amax(name) is not None:
            known = ranges.channel_amax(name)
            np.testing.assert_allclose(known, found, rtol=1e-3, atol=1e-5, err_msg=f"{where}: {name}")
    names = [str(value.name) for node in model.graph for value in node.outputs]
    for name in names:
        if name in ranges and name in again and again.amax(name) < 1e30:
            assert again.amax(name) <= ranges.amax(name) * 1.001 + 1e-5, f"{where}: {name}"


@pytest.mark.parametrize("rewrite", REWRITES)
def test_each_finds_its_place(glimmer, rewrite):
    """In the paper's form, of which no graph but these has something for the rewrite."""
    modified = {
        graph for graph, model, inputs in folded_graphs(glimmer)
        if REWRITES[rewrite](model, by_channel(model, inputs))
    }
    assert modified >= WHERE[rewrite]


@pytest.mark.parametrize("variant", ["glimmer, exact algebra", "glimmer, exact algebra, two layers"])
def test_weights_of_heads_are_where_attention_is_absorbed(exported, variant):
    found = {
        graph: (before, model) for graph, model, inputs in folded_graphs(exported(variant))
        if (before := {linear.name for linear in find_linears(model.graph) if linear.by_head})
        and ScaleHeads(by_channel(model, inputs), STRENGTH, products(model))(model).modified
    }
    assert {"live_stage_a", "decoder_step"} <= set(found)
    for _, model in found.values():
        for linear in find_linears(model.graph):
            if linear.by_head:
                np.testing.assert_allclose(np.abs(constant(linear.weight)).max(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("rewrite", [name for name in REWRITES if name != "ScaleTokens"])
def test_what_was_balanced_is_balanced(glimmer, rewrite):
    """A second pass finds nothing left to move, whatever the strength's centre."""
    for graph, model, inputs in folded_graphs(glimmer):
        ranges = by_channel(model, inputs)
        REWRITES[rewrite](model, ranges)
        before = {linear.name: constant(linear.weight) for linear in find_linears(model.graph)}
        REWRITES[rewrite](model, ranges)
        for linear in find_linears(model.graph):
            after = constant(linear.weight)
            np.testing.assert_allclose(after, before[linear.name], rtol=1e-4, atol=1e-7, err_msg=graph)


@pytest.mark.parametrize("rewrite", ["EqualizeFeedForward", "EqualizeValues", "MigrateIntoNorm", "ScaleHeads"])
def test_a_dead_channel_stays_finite(exported, rewrite):
    for graph, model, inputs in folded_graphs(exported("glimmer, exact algebra")):
        for linear in find_linears(model.graph):
            weight = np.array(constant(linear.weight))
            weight[..., :2] = 0  # columns that write nothing
            weight[..., 3:5, :] = 0  # rows that read nothing
            linear.weight.const_value = ir.tensor(weight, name=linear.weight.name)
        expected, ranges = run(model, inputs), by_channel(model, inputs)
        with np.errstate(all="raise"):
            REWRITES[rewrite](model, ranges)
        assert all(np.isfinite(constant(linear.weight)).all() for linear in find_linears(model.graph))
        assert_same_outputs(run(model, inputs), expected, graph)


def test_a_token_of_zeros_stays_one(glimmer):
    """Nothing is divided by 0: what is smaller than SMALLEST is divided by that."""
    path, inputs = next(iter(graphs_of(glimmer)))
    model = load_graph(path)
    FoldWeights()(model)
    table = next(value for name, value in model.graph.initializers.items() if name.startswith("shared"))
    table.const_value = ir.tensor(np.zeros_like(constant(table)), name=table.name)
    ranges = by_channel(model, inputs)
    ScaleTokens(ranges, products(model))(model)
    values = every_value(model, inputs)
    assert all(np.isfinite(found).all() for name, found in values.items() if "bias" not in name and "mask" not in name)
    scales = [found for name, found in values.items() if name.endswith("/token_scale")]
    assert scales
    assert all((found == SMALLEST).all() for found in scales)


def test_products_of_one_value_share_its_division(glimmer):
    _, model, inputs = next(folded_graphs(glimmer))
    readers = len({linear.x for linear in find_linears(model.graph)})
    ScaleTokens(by_channel(model, inputs), products(model))(model)
    divisions = [node for node in model.graph if node.op_type == "Div" and node.outputs[0].name.endswith("/unit")]
    assert len(divisions) == readers < len(products(model))


def test_only_what_is_named_is_rewritten(glimmer):
    for _, model, inputs in folded_graphs(glimmer):
        names = frozenset(sorted(products(model))[:1])
        ScaleTokens(by_channel(model, inputs), names)(model)
        rewritten = {linear.name for linear in find_linears(model.graph) if str(linear.x.name).endswith("/unit")}
        assert rewritten == names
