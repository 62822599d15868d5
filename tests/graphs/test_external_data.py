"""Weights beyond protobuf's limit go to a file of their own; here the limit is lowered instead."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest

from exporter.bundle.write import _graph_entry
from exporter.graphs import export_graph, write
from exporter.graphs.samples import Sizes, sample_inputs
from runtime import Session
from runtime.contract import BundleError
from tests.exported import Exported, copy_bundle, update_manifest

NAME = "live_stage_a"
SIZES = Sizes(2, passages=3, selected=2, question=4, passage=5, encoder_tokens=9, prefix=2, cache_length=3)


@pytest.fixture(scope="module")
def bundle(glimmer: Exported, tmp_path_factory):
    """A bundle one of whose graphs has external data."""
    directory = copy_bundle(glimmer, tmp_path_factory.mktemp("external") / "bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "EXTERNAL_DATA_BYTES", 1000)
        graph = export_graph(glimmer.model, NAME, glimmer.io[NAME], glimmer.forms, directory / "graphs")
    assert [path.name for path in graph.files] == [f"{NAME}.onnx", f"{NAME}.onnx.data"]
    assert graph.num_bytes == sum(path.stat().st_size for path in graph.files)
    files = _graph_entry(directory, graph, glimmer.io[NAME]).files
    assert [file.path for file in files] == [f"graphs/{path.name}" for path in graph.files]
    update_manifest(directory, NAME)
    return directory


def test_the_weights_are_outside(glimmer, bundle):
    path = bundle / "graphs" / f"{NAME}.onnx"
    weights = onnx.load(path, load_external_data=False).graph.initializer
    outside = [weight for weight in weights if weight.data_location == onnx.TensorProto.EXTERNAL]
    assert len(outside) > 5
    assert {pair.value for weight in outside for pair in weight.external_data if pair.key == "location"} == {
        f"{NAME}.onnx.data"
    }
    assert path.stat().st_size < glimmer.graph(NAME).stat().st_size / 2


def test_the_outputs_are_the_same(glimmer, bundle):
    inputs = sample_inputs(glimmer.io[NAME], glimmer.shape, SIZES, seed=4)
    found, expected = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)
        for path in (bundle / "graphs" / f"{NAME}.onnx", glimmer.graph(NAME))
    )
    for one, other in zip(found, expected, strict=True):
        assert (one == other).all()


def test_a_session_answers_with_it(glimmer, bundle):
    with Session.open(bundle, glimmer.store, threads=1) as session:
        assert session.answer("w20 w31").token_ids == glimmer.session.answer("w20 w31").token_ids


def test_changed_external_data_is_refused(bundle, tmp_path):
    path = bundle / "graphs" / f"{NAME}.onnx.data"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        with pytest.raises(BundleError, match=r"live_stage_a\.onnx\.data.*SHA-256"):
            Session.open(bundle)
    finally:
        path.write_bytes(content)
