"""ONNX Runtime makes one operator of each RMSNorm of a graph, in every precision that it runs."""

from __future__ import annotations

import onnx_ir as ir
import onnxruntime
import pytest

from glimmer_export.calibration.passes.residual_stream import find_norms
from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from tests.calibrated import calibrated

FUSED = {"SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"}


@pytest.fixture
def bundle(exported, once, precision):
    source = exported("glimmer, exact algebra")
    if precision == "fp32":
        return source.bundle

    def make(directory):
        quantize_bundle(calibrated(source), directory / "bundle", QuantizeOptions(precision, "cpu", cpu="x86-vnni"))

    return once(f"glimmer, exact algebra, {precision}, cpu", make) / "bundle"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(
    ("graph", "norms"),
    [("memory_encoder", 2), ("live_stage_a", 2), ("live_stage_b", 2 * 2 + 1), ("decoder_step", 2 * 3 + 1)],
)
def test_each_norm_is_fused(bundle, tmp_path, graph, norms):
    path = bundle / "graphs" / f"{graph}.onnx"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    assert len(find_norms(ir.load(path).graph)) == norms
    optimised = ir.load(tmp_path / "optimised.onnx")
    assert sum(node.op_type in FUSED for node in optimised.graph) == norms
