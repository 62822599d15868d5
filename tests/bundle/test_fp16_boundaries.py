"""FP16 bundles hand encoder states, keys and values over in FP16: in files, manifest and answers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest

from glimmer_export.calibration.questions import Question
from glimmer_export.calibration.rounding import RoundingBackend
from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.exporter.config.targets import read_target
from glimmer_export.exporter.cost import CostRequest, cost_report
from glimmer_export.exporter.engines.profiles import batch_bounds
from glimmer_export.exporter.parity import ParityOptions, compare_with_bundle
from glimmer_export.exporter.tolerances import MIN_SNR_DB
from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.backends.onnxruntime_gpu import OnnxRuntimeDeviceBackend
from glimmer_export.runtime.contract import MANIFEST, BundleError, boundaries_of, boundary_of, read_manifest
from glimmer_export.runtime.placement import placement_of
from tests.bundle_factory import rewrite
from tests.calibrated import calibrated, quantized
from tests.exported import QUESTIONS, update_manifest

ELEM_TYPES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.INT32: "int32"}
VARIANTS = (
    "glimmer", "fid",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("glimmer, exact algebra, two layers", "memory_fid")),
)
ROWS = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS)]


def tokens(answers) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in answers]


@pytest.mark.parametrize("variant", VARIANTS)
def test_files_and_manifest_say_what_crosses_in_fp16(exported, variant):
    bundle = quantized(exported(variant), "fp16")
    manifest = read_manifest(bundle)
    assert manifest.fp16_boundaries == tuple(boundaries_of(manifest.io()))
    for name, entry in manifest.graphs.items():
        graph = onnx.load(bundle / entry.files[0].path, load_external_data=False).graph
        for values, tensors in ((graph.input, entry.inputs), (graph.output, entry.outputs)):
            found = [(value.name, ELEM_TYPES[value.type.tensor_type.elem_type]) for value in values]
            assert found == [(tensor.name, tensor.dtype) for tensor in tensors], name
            for tensor in tensors:
                half = boundary_of(tensor.name) is not None or tensor.name == "memory"
                assert (tensor.dtype == "float16") == half, f"{name}: {tensor.name}"


@pytest.mark.parametrize("backend", ["cpu", "rounding", "bound"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_are_those_of_fp32(exported, variant, backend):
    """On arrays of the host, rounded at every operator, and on a device's tensors."""
    source = exported(variant)
    made = {
        "cpu": OnnxRuntimeBackend, "rounding": RoundingBackend,
        "bound": lambda threads: OnnxRuntimeDeviceBackend("CPUExecutionProvider", "cpu", threads=threads),
    }[backend](1)
    report = compare_with_bundle(
        quantized(source, "fp16"), source.bundle, source.store, ROWS, ParityOptions(threads=1), backend=made
    )
    errors = report.graphs
    assert {name: error.snr_db for name, error in errors.items() if error.snr_db < MIN_SNR_DB["fp16"]} == {}
    # Random weights choose without a margin: a token may tip where two logits are nearer than they move.
    assert all(item.margin < 2 * errors["decoder_step"].max_abs_err for item in report.differences)
    assert report.answers_equal > 0.8
    with Session.open(quantized(source, "fp16"), source.store, backend=made, verify=False) as session:
        answers = session.answer_many(QUESTIONS)
        dims = {tensor.name: (2, 3) for tensor in session.bundle.manifest.io()["decoder_step"].inputs}
        zeros = placement_of(session.graphs).zeros("decoder_step", dims)
    assert all(np.isfinite(answer.log_probability) for answer in answers)
    caches = {tensor.dtype for name, tensor in zeros.items() if "past_key_values" in name}
    assert caches == {np.dtype(np.float16)}


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_graphs_in_fp32_go_on_handing_over_fp32(exported, precision):
    source = exported("glimmer")
    manifest = read_manifest(source.bundle if precision == "fp32" else quantized(source, precision))
    assert manifest.fp16_boundaries == ()
    assert {tensor.dtype for graph in manifest.graphs.values() for tensor in graph.outputs} == {"float32", "int32"}


def test_between_a_graph_in_fp16_and_one_in_fp32_all_is_fp32(exported, tmp_path):
    source = exported("glimmer")
    options = QuantizeOptions("fp16", "tensorrt", graphs=("live_stage_b", "decoder_step"))
    done = quantize_bundle(calibrated(source), tmp_path / "bundle", options)
    manifest = read_manifest(tmp_path / "bundle")
    assert {name for name in manifest.fp16_boundaries if ".decoder." not in name} == set()
    assert len(manifest.fp16_boundaries) == 2 * manifest.model.num_decoder_layers
    assert done["live_stage_b"].notes == [
        "encoder_hidden_states: goes to other graphs in FP32, as cross_kv computes in FP32"
    ]
    assert done["decoder_step"].fp16_io == sorted(
        f"{root}.{layer}.decoder.{part}" for root in ("past_key_values", "present")
        for layer in range(manifest.model.num_decoder_layers) for part in ("key", "value")
    )  # fmt: skip
    with Session.open(tmp_path / "bundle", source.store, threads=1) as session:
        assert tokens(session.answer_many(QUESTIONS)) == tokens(source.session.answer_many(QUESTIONS))


@pytest.mark.parametrize("fp16_is", ["candidate", "reference"])
def test_parity_mixes_graphs_of_both_types(glimmer, fp16_is):
    sides = [quantized(glimmer, "fp16"), glimmer.bundle]
    options = ParityOptions(attribution=True, batch_size=4, threads=1)
    report = compare_with_bundle(*(sides if fp16_is == "candidate" else sides[::-1]), glimmer.store, ROWS, options)
    assert set(report.attribution) >= {"live_stage_b", "decoder"}
    assert {effect.answers_equal for effect in report.attribution.values()} == {1.0}
    assert all(np.isfinite(error.max_abs_err) for error in report.graphs.values())


@pytest.mark.parametrize("changed", ["manifest", "graph"])
def test_a_graph_of_another_type_than_the_manifest_says_is_refused_by_name(glimmer, tmp_path, changed):
    """Whichever of the two is the older one: with fresh digests, so that nothing else tells."""
    bundles = {"fp32": calibrated(glimmer), "fp16": quantized(glimmer, "fp16")}
    own, other = ("fp16", "fp32") if changed == "graph" else ("fp32", "fp16")
    bundle = shutil.copytree(bundles[own], tmp_path / "bundle")
    path = "graphs/cross_kv.onnx"
    model = onnx.load(bundles[other] / path)
    onnx.save(model, bundle / path)
    data = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    entry = json.loads((bundles[other] / MANIFEST).read_text(encoding="utf-8"))["graphs"]["cross_kv"]
    update_manifest(bundle, "cross_kv")
    with pytest.raises(BundleError, match=r"cross_kv.onnx, encoder_hidden_states: expected tensor\(float"):
        Session.open(bundle, glimmer.store, threads=1)
    data["graphs"]["cross_kv"] = entry
    rewrite(bundle / MANIFEST, **data)
    with pytest.raises(BundleError, match="cross_kv, encoder_hidden_states: expected float"):
        read_manifest(bundle)


def test_half_the_bytes_are_counted(glimmer):
    """A question's I/O in a device's memory, and what a decoder step moves, follow the manifest's types."""
    target = read_target("t4").tensorrt
    rows = {
        name: batch_bounds(read_manifest(bundle), target, "decoder_step")[0].row_bytes
        for name, bundle in {"fp32": glimmer.bundle, "fp16": quantized(glimmer, "fp16")}.items()
    }
    assert rows["fp16"] < rows["fp32"]
    for bundle, same in ((glimmer.bundle, "fp32"), (quantized(glimmer, "fp16"), "fp16")):
        states = cost_report(CostRequest(bundle=bundle)).step_bytes.states
        assert states["bundle"] == states[same]
        assert states["fp16"] < states["fp32"]
