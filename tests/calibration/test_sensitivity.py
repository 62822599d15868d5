"""Groups, their losses, and what to keep in float."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace
from math import inf

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.groups import find_groups
from glimmer_export.calibration.linear import find_linears
from glimmer_export.calibration.load_graph import load_graph
from glimmer_export.calibration.losses import Observation, losses
from glimmer_export.calibration.passes.fold_weights import FoldWeights
from glimmer_export.calibration.passes.quantize_embedding import find_lookups
from glimmer_export.calibration.questions import Question
from glimmer_export.calibration.sensitivity import Choice, SensitivityOptions, keep_greedily
from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.exporter.bundle.sensitivity import bundle_sensitivity
from glimmer_export.exporter.bundle.weight_only import WeightOnlyOptions
from glimmer_export.runtime.contract import BundleError, CalibrationError, OptionError
from tests.calibrated import calibrated
from tests.exported import QUESTIONS, VARIANTS, copy_bundle, update_manifest

ROWS = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS)]
ONE_THREAD = SensitivityOptions(threads=1)


@contextmanager
def silent(total):
    yield lambda _: None


def measure(bundle, store, options=ONE_THREAD, *, target="cpu", policy="naive", progress=silent):
    return bundle_sensitivity(bundle, store, ROWS, options, target=target, policy=policy, progress=progress)


@pytest.fixture(scope="module")
def bundle(glimmer):
    return calibrated(glimmer)


@pytest.fixture(scope="module")
def report(bundle, glimmer):
    return measure(bundle, glimmer.store)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_product_is_in_one_group_and_found_by_its_pattern(exported, variant):
    source = exported(variant)
    groups, nodes = [], []
    for name in source.io:
        model = load_graph(source.graph(name))
        FoldWeights()(model)
        groups += find_groups(model.graph, name, embeddings=True)
        nodes += [(name, linear.name) for linear in find_linears(model.graph)]
        nodes += [(name, node.name) for node in find_lookups(model.graph)]
    assert sorted((group.graph, node) for group in groups for node in group.nodes) == sorted(nodes)
    assert len({group.pattern for group in groups}) == len(groups)
    for group in groups:
        found = [node for graph, node in nodes if re.search(group.pattern, f"{graph}/{node}")]
        assert found == [node for graph, node in nodes if graph == group.graph and node in group.nodes], group.pattern
    # At these sizes the tracer folds the reshaped weights of absorbed attention, and their names with them.
    unnamed = {"unnamed"} if source.forms.cross_attention == "absorbed" else set()
    kinds = {"qkv", "o", "wi", "wo", "embedding", "lm_head", "score"}
    assert {group.kind for group in groups} - kinds <= unnamed


def test_self_and_cross_attention_are_apart(report):
    patterns = [row.group.pattern for row in report.sensitivity.groups]
    assert r"^decoder_step/decoder\.block\.0\.layer\.0\.SelfAttention\.[qkv]/" in patterns
    assert r"^cross_kv/decoder\.block\.0\.layer\.1\.EncDecAttention\.[qkv]/" in patterns
    assert r"^decoder_step/decoder\.block\.0\.layer\.1\.EncDecAttention\.o/" in patterns


def test_what_is_reported(report):
    found = report.sensitivity
    assert (found.questions, found.not_answered) == (8, 0)
    assert [row.losses.loss for row in found.groups] == sorted((row.losses.loss for row in found.groups), reverse=True)
    assert sum(row.work for row in found.groups) == pytest.approx(1)
    assert sum(row.weights for row in found.groups) == pytest.approx(1)
    of = {row.group.pattern: row for row in found.groups}
    # The decoder comes after the scores.
    assert of["^decoder_step/lm_head/"].losses.score_noise == 0
    assert of["^decoder_step/lm_head/"].losses.top_m_overlap == 1
    assert of["^decoder_step/lm_head/"].losses.logit_noise > 0
    assert of["^live_stage_a/score/"].losses.score_noise > 0
    # Five passages of a question pass stage A, two of them stage B.
    ratio = of[r"^live_stage_a/live_encoder\.block\.0\.layer\.1\.DenseReluDense\.wo/"].work
    ratio /= of[r"^live_stage_b/live_encoder\.block\.1\.layer\.1\.DenseReluDense\.wo/"].work
    assert 1.5 < ratio < 4
    # Nothing is kept by the policy: measured the same way twice.
    assert found.policy == found.everything
    summary = report.to_json()
    assert summary["together"]["everything"]["sum"]["score_noise"] == pytest.approx(
        sum(row.losses.score_noise for row in found.groups)
    )
    assert "question's states alone" in summary["notes"][0]


def test_what_the_policy_keeps_is_measured_and_named(bundle, glimmer):
    options = SensitivityOptions(samples=3, threads=1, graphs=("live_stage_a",))
    for target in ("cpu", "tensorrt"):
        found = measure(bundle, glimmer.store, options, target=target, policy="int8").sensitivity
        kept = {row.group.kind for row in found.groups if row.kept_by_policy}
        assert kept == {"score", "qkv", "o", "wo"}
        assert all(row.losses.score_noise > 0 for row in found.groups)
        assert found.policy.score_noise < found.everything.score_noise


def test_weights_of_four_bits_and_what_to_keep_in_eight(bundle, glimmer):
    """The decoder's products alone; what the list keeps has 8 bits when all is measured together."""
    few = WeightOnlyOptions("int4", accuracy_level=1)
    report = bundle_sensitivity(
        bundle, glimmer.store, ROWS, replace(ONE_THREAD, budget=0.4), target="cpu", policy="int8", weight_only=few,
        progress=silent,
    )
    found = report.sensitivity
    assert {row.group.graph for row in found.groups} == {"decoder_step"}
    assert all(row.losses.score_noise == 0 < row.losses.logit_noise < 0.1 for row in found.groups)
    assert "lm_head" in {row.group.kind for row in found.groups}
    assert found.without_kept.logit_noise < 0.9 * found.everything.logit_noise
    kept = yaml.safe_load(report.yaml())["eight_bit"]
    assert kept == [item.pattern for item in found.keep] != []
    assert report.to_json()["weight_only"] == "int4"


@pytest.mark.parametrize(("few", "target"), [
    (WeightOnlyOptions("int8"), "cpu"), (WeightOnlyOptions("int4", "gptq"), "cpu"),
    (WeightOnlyOptions("int4"), "tensorrt"),
])
def test_other_weights_are_refused(bundle, glimmer, few, target):
    with pytest.raises(OptionError, match="--weight-only"):
        bundle_sensitivity(
            bundle, glimmer.store, ROWS, ONE_THREAD, target=target, weight_only=few, progress=silent
        )


@pytest.mark.parametrize("variant", [
    "lumen", "fid",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("memory_fid", "glimmer, exact algebra, two layers")),
])
def test_other_architectures(exported, variant):
    source = exported(variant)
    done = []

    @contextmanager
    def counted(total):
        yield done.append
        assert sum(done) == total

    found = measure(
        calibrated(source), source.store, SensitivityOptions(samples=2, threads=1), policy="int8", progress=counted
    ).sensitivity
    ranks = variant.startswith("glimmer")
    assert all((row.losses.score_noise is not None) == ranks for row in found.groups)
    assert all(np.isfinite(row.losses.logit_noise) for row in found.groups)
    assert found.predicted["everything"][1] > 0
    # One token a passage is the least of the work of stage A.
    lazy = [row.work for row in found.groups if "live_stage_a/live_encoder\\.block\\.1" in row.group.pattern]
    assert bool(lazy) == ranks
    assert sum(lazy) < 0.1


def test_a_group_made_worse_is_ranked_first(glimmer, tmp_path):
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    path = bundle / "graphs" / "live_stage_a.onnx"
    model = onnx.load(path)
    weights = {weight.name: weight for weight in model.graph.initializer}
    # One channel of the feed-forward product carries far more than the others and meets a small row: the same function.
    for name, channel, factor in (("wi_1", np.s_[:, 3], 2.0**9), ("wo", np.s_[3], 2.0**-9)):
        weight = weights[f"live_encoder.block.0.layer.1.DenseReluDense.{name}.weight"]
        values = numpy_helper.to_array(weight).copy()
        values[channel] *= factor
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)
    update_manifest(bundle, "live_stage_a")
    calibrate_bundle(bundle, glimmer.store, ROWS, CalibrationOptions(threads=1))
    wo = r"^live_stage_a/live_encoder\.block\.0\.layer\.1\.DenseReluDense\.wo/"
    naive = measure(bundle, glimmer.store).sensitivity.groups
    assert naive[0].group.pattern == wo
    # The policy's exact rewrites undo it.
    ours = {row.group.pattern: row for row in measure(bundle, glimmer.store, policy="int8").sensitivity.groups}
    assert ours[wo].losses.loss < naive[0].losses.loss / 10


def test_the_list_keeps_its_budget_and_the_loss_falls():
    random = np.random.default_rng(3)
    for budget in (0.0, 0.02, 0.2, 1.0):
        choices = [Choice(str(place), *random.uniform(0, 0.1, 2)) for place in range(40)]
        kept = keep_greedily(choices, budget)
        costs, left = [item.total_cost for item in kept], [item.remaining_loss for item in kept]
        assert all(cost <= budget for cost in costs)
        assert costs == sorted(costs)
        assert left == sorted(left, reverse=True)
        assert not kept or left[-1] == pytest.approx(
            sum(item.loss for item in choices) - sum(item.loss for item in kept)
        )
        ratios = [item.loss / item.cost for item in kept]
        assert ratios == sorted(ratios, reverse=True)


def test_the_list_passes_over_what_does_not_fit_and_what_loses_nothing():
    losses_and_costs = {"large": (1.0, 0.9), "small": (0.05, 0.06), "free": (0.0, 0.0), "bad": (inf, 0.01)}
    choices = [Choice(name, *numbers) for name, numbers in losses_and_costs.items()]
    assert [item.pattern for item in keep_greedily(choices, 0.1)] == ["bad", "small"]


def test_the_printed_expressions_keep_these_products_alone(bundle, glimmer, tmp_path):
    report = measure(bundle, glimmer.store, SensitivityOptions(samples=4, budget=0.3, threads=1))
    patterns = tuple(item.pattern for item in report.sensitivity.keep)
    assert 0 < len(patterns) < len(report.sensitivity.groups)
    done = quantize_bundle(
        bundle, tmp_path / "quantized", QuantizeOptions("int8", "cpu", policy="naive", keep=patterns)
    )
    kept = {(graph, node) for graph, made in done.items() for node in made.kept}
    assert kept == {
        (row.group.graph, node) for row in report.sensitivity.groups
        if row.group.pattern in patterns for node in row.group.nodes
    }
    for row in report.sensitivity.groups:
        if row.group.kind == "embedding":
            written = onnx.load(tmp_path / "quantized" / "graphs" / f"{row.group.graph}.onnx").graph
            codes = [weight.name for weight in written.initializer if weight.name == "shared.table.codes"]
            assert bool(codes) == (row.group.pattern not in patterns)
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "description: with the list\nequalize: {feed_forward: null, values: null, norms: null, heads: null}\n"
        f"token_scales: []\nembeddings: true\n{report.yaml()}\n", encoding="utf-8",
    )
    again = quantize_bundle(bundle, tmp_path / "again", QuantizeOptions("int8", "cpu", policy=str(policy)))
    assert {(graph, node) for graph, made in again.items() for node in made.kept} == kept


def test_losses_of_known_errors():
    random = np.random.default_rng(0)
    scores, logits = random.normal(size=(2, 50)), random.normal(size=(2, 90))
    selected = [frozenset({0, 1})] * 2
    reference = Observation([0, 1], list(scores), selected, list(logits), [(5,), (6, 7)])
    shifted = Observation([0, 1], list(scores + 3), selected, list(logits - 2), [(5,), (6, 7)])
    same = losses(reference, shifted)
    assert (same.top_m_overlap, same.answers_equal) == (1, 1)
    assert same.loss == pytest.approx(0, abs=1e-20)
    scaled = Observation([1], [1.1 * scores[1]], [frozenset({1, 4})], [logits[1] * 0.8], [(6,)])
    other = losses(reference, scaled)
    assert other.score_noise == pytest.approx(0.01)
    assert other.logit_noise == pytest.approx(0.04)
    assert (other.top_m_overlap, other.answers_equal) == (0.5, 0)
    broken = Observation([0, 1], list(scores * np.inf), selected, list(logits), [(), ()])
    assert losses(reference, broken).loss == inf


def test_what_is_refused(bundle, glimmer, tmp_path):
    with pytest.raises(CalibrationError, match="glimmer-export calibrate"):
        measure(glimmer.bundle, glimmer.store)
    quantize_bundle(bundle, tmp_path / "quantized", QuantizeOptions("int8", "cpu"))
    with pytest.raises(BundleError, match="quantised already"):
        measure(tmp_path / "quantized", glimmer.store)
    with pytest.raises(OptionError, match="--graphs"):
        measure(bundle, glimmer.store, SensitivityOptions(graphs=("stage_z",)))
    with pytest.raises(OptionError, match="--cost"):
        measure(bundle, glimmer.store, SensitivityOptions(cost="none"))
    with pytest.raises(CalibrationError, match="at least one that retrieves"):
        bundle_sensitivity(
            bundle, glimmer.store, [Question("0", "zzz", (), None, ())], ONE_THREAD, target="cpu", progress=silent
        )
