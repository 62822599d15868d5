"""Graphs whose weights lie in a file of their own, quantised into graphs that hold them."""

from __future__ import annotations

import onnx_ir
import pytest

from calibration.calibrate import CalibrationOptions
from calibration.questions import Question
from exporter.bundle.calibrate import calibrate_bundle
from exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from exporter.graphs import write
from runtime import Session
from runtime.contract import read_manifest
from tests.exported import QUESTIONS, copy_bundle, update_manifest


def test_every_precision_of_graphs_with_external_data(glimmer, tmp_path, monkeypatch):
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    with monkeypatch.context() as patch:
        patch.setattr(write, "EXTERNAL_DATA_BYTES", 1000)
        for name in glimmer.io:
            write.write_graph(onnx_ir.load(glimmer.graph(name)), bundle / "graphs", name)
            update_manifest(bundle, name)
    assert all(len(graph.files) == 2 for graph in read_manifest(bundle).graphs.values())
    rows = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS)]
    calibrate_bundle(bundle, glimmer.store, rows, CalibrationOptions(samples=2, threads=1))
    for options in (
        QuantizeOptions("int8", "cpu"), QuantizeOptions("fp16", "tensorrt"),
        QuantizeOptions("int8", "tensorrt", graphs=("decoder_step",)),
    ):
        output = tmp_path / f"{options.precision}-{options.target}"
        quantize_bundle(bundle, output, options)
        assert all(len(graph.files) == 1 for graph in read_manifest(output).graphs.values())
        with Session.open(output, glimmer.store, threads=1) as session:
            found, expected = session.answer(QUESTIONS[0]), glimmer.session.answer(QUESTIONS[0])
            assert found.scores == pytest.approx(expected.scores, abs=0.5)
