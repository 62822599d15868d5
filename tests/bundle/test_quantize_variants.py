"""Every architecture and form, quantised for both targets, beside its FP32 graphs on the same inputs."""

from __future__ import annotations

import onnx
import pytest

from glimmer_export.calibration.questions import Question
from glimmer_export.calibration.rounding import RoundingBackend
from glimmer_export.exporter.bundle.quantize import ANY_SPEED, QuantizeOptions, quantize_bundle
from glimmer_export.exporter.parity import ParityOptions
from glimmer_export.exporter.parity.compare import compare_with_bundle
from glimmer_export.exporter.tolerances import MIN_SNR_DB
from glimmer_export.runtime.contract import read_manifest
from tests.calibrated import calibrated
from tests.exported import FAST, QUESTIONS
from tests.repeated_constants import repeated_constants

ROWS = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS)]
FORMS = {"int8": ("cpu", None), "fp16": ("tensorrt", RoundingBackend), "int8-fp16": ("tensorrt", RoundingBackend)}


QUICK = ("glimmer, exact algebra, two layers", "memory_fid", "fid")
VARIANTS = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in FAST]


@pytest.mark.parametrize("precision", FORMS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_graphs_agree_with_fp32(exported, variant, precision, tmp_path):
    source = exported(variant)
    bundle, store = calibrated(source), source.store
    target, backend = FORMS[precision]
    gpu = None if target == "cpu" else ANY_SPEED  # or no product of so small a decoder would be INT8
    done = quantize_bundle(bundle, tmp_path / "quantized", QuantizeOptions(precision, target, gpu=gpu))
    manifest = read_manifest(tmp_path / "quantized")
    without = {"int8": "fp32", "int8-fp16": "fp16"}
    for name, graph in manifest.graphs.items():
        empty = name == "live_stage_b" and not manifest.model.traits.encodes_question  # a norm, and no product
        assert bool(done[name].int8 or done[name].half_tables) == ("int8" in precision and not empty)
        assert repeated_constants(onnx.load(tmp_path / "quantized" / graph.files[0].path)) == []
        assert graph.precision == (without.get(precision, precision) if empty else precision)
    report = compare_with_bundle(
        tmp_path / "quantized", bundle, store, ROWS, ParityOptions(batch_size=4, threads=1),
        backend=None if backend is None else backend(1),
    )
    assert set(report.graphs) == set(manifest.graphs)
    assert {name: error.snr_db for name, error in report.graphs.items() if error.snr_db < MIN_SNR_DB[precision]} == {}
