"""An FP16 export is what `quantize --precision fp16 --target tensorrt` makes, less what calibration tells it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from glimmer_export.calibration.calibrate import CalibrationOptions, calibrate
from glimmer_export.calibration.passes.convert_fp16 import ConvertFp16
from glimmer_export.calibration.passes.fold_weights import FoldWeights
from glimmer_export.calibration.passes.merge_products import DECODERS, MergeProducts
from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.bundle import export_bundle
from glimmer_export.exporter.config.targets import read_target
from glimmer_export.exporter.graphs import blank_weights
from glimmer_export.exporter.lint import limits_of, lint_bundle
from glimmer_export.runtime import Session
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import CalibrationError, stage_of
from tests.exported import FORMS, QUESTIONS, Exported, load_graph, write_alone

VARIANT = "glimmer, exact algebra"


@pytest.fixture(scope="module")
def source(exported) -> Exported:
    return exported(VARIANT)


@pytest.fixture(scope="module")
def bundle(source, tmp_path_factory) -> Path:
    """The large weights are traced blank, and made FP16 when they are written."""
    directory = tmp_path_factory.mktemp("fp16") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blank_weights, "READ_ELEMENTS", 1024)
        graphs = export_bundle(source.checkpoint, directory, FORMS[VARIANT], precision="fp16")
    assert all(graph.max_abs_err is not None and graph.max_abs_err > 0 for graph in graphs)
    return directory


def test_its_graphs_are_those_of_the_passes_on_fp32(source, bundle, tmp_path):
    for name in source.io:
        model = load_graph(source.graph(name))
        FoldWeights()(model)
        ConvertFp16()(model)
        if stage_of(name) in DECODERS:
            MergeProducts()(model)
        expected, found = (
            onnx.load(path) for path in (write_alone(model, tmp_path, name), bundle / "graphs" / f"{name}.onnx")
        )
        assert found.graph.node == expected.graph.node, name
        weights, others = ({item.name: item for item in side.graph.initializer} for side in (found, expected))
        assert weights.keys() == others.keys(), name
        for weight, tensor in weights.items():
            arrays = [onnx.numpy_helper.to_array(item) for item in (tensor, others[weight])]
            assert arrays[0].dtype == arrays[1].dtype, weight
            assert np.array_equal(*arrays), weight


def test_the_manifest_says_so(source, bundle):
    opened = Bundle.open(bundle)
    entry = opened.manifest.quantization
    assert {graph.precision for graph in opened.manifest.graphs.values()} == {"fp16"}
    assert entry is not None
    assert (entry.target, entry.method, entry.policy, entry.residual_scales) == ("tensorrt", None, None, {})
    weights = opened.manifest.weights
    assert weights is not None
    assert weights.bytes < 0.6 * (source.bundle / "graphs" / "weights.data").stat().st_size + 4096 * 100


def test_it_keeps_the_rules_of_tensorrt(bundle):
    gpu = read_target("t4").tensorrt
    assert gpu is not None
    assert lint_bundle(Bundle.open(bundle), limits_of(gpu, "tensorrt")) == []


def test_it_answers(source, bundle):
    with Session.open(bundle, source.store, threads=1, backend="onnxruntime-cpu") as session:
        for question in QUESTIONS[:3]:
            expected = source.session.answer(question)
            assert session.answer(question).scores == pytest.approx(expected.scores, abs=0.05)


def test_it_cannot_be_calibrated(source, bundle):
    rows = [Question("0", QUESTIONS[0], (), None, ())]
    with pytest.raises(CalibrationError, match="in fp32"):
        calibrate(bundle, source.store, rows, CalibrationOptions(threads=1))
