"""Graphs that are traced without their weights are the graphs that are traced with them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from glimmer_export.calibration.passes.edit import CONTENT
from glimmer_export.exporter.bundle import export_bundle
from glimmer_export.exporter.checkpoint.lazy_tensors import LazyTensors, TensorSpec
from glimmer_export.exporter.graphs import blank_weights
from glimmer_export.exporter.graphs.blank_weights import BlankWeights
from tests.bundle_factory import tree
from tests.exported import FORMS, Exported

SPECS = {"large": TensorSpec((128, 96), torch.float16), "small": TensorSpec((8,), torch.float16)}
VALUES = {name: torch.randn(spec.shape, generator=torch.Generator().manual_seed(1)).half()
          for name, spec in SPECS.items()}  # fmt: skip


@pytest.mark.slow
def test_a_bundle_is_the_same_whichever_weights_are_traced_blank(exported, tmp_path, monkeypatch):
    """The fixture's weights are all read before they are traced; here the feed-forward layers and tables are not.

    tests/bundle/test_fp16_export.py says it of FP16 each time.
    """
    variant = "glimmer, exact algebra"
    source: Exported = exported(variant)
    monkeypatch.setattr(blank_weights, "READ_ELEMENTS", 1024)
    export_bundle(source.checkpoint, tmp_path / "bundle", FORMS[variant], check=False)
    assert tree(tmp_path / "bundle") == tree(source.bundle)


def model_of(*arrays: np.ndarray) -> ir.Model:
    values = [ir.Value(name=f"weight.{place}", const_value=ir.tensor(array)) for place, array in enumerate(arrays)]
    node = ir.node("Concat", values, attributes={"axis": 0})
    graph = ir.Graph([], node.outputs, nodes=[node], initializers=values, opset_imports={"": 20}, name="graph")
    return ir.Model(graph, ir_version=10)


def test_any_view_of_a_blank_weight_is_filled(monkeypatch):
    monkeypatch.setattr(blank_weights, "READ_ELEMENTS", 100)
    looked_up: list[str] = []

    def load(name: str) -> torch.Tensor:
        looked_up.append(name)
        return VALUES[name]

    blank = BlankWeights(LazyTensors(SPECS, load))
    pages = blank._weight("large").numpy()
    assert (blank._weight("small").numpy() == VALUES["small"].float().numpy()).all()
    assert looked_up == ["small"]
    other = np.full(300, 2, np.float32)
    model = model_of(pages, pages.T, pages.reshape(4, 32, 96).transpose(0, 2, 1), other)
    assert blank.fill(model) == {"large"}
    assert looked_up == ["small"]
    weights = [value.const_value for value in model.graph.initializers.values()]
    expected = VALUES["large"].float().numpy()
    assert (weights[0].numpy() == expected).all()
    assert (weights[1].numpy() == expected.T).all()
    assert (weights[2].numpy() == expected.reshape(4, 32, 96).transpose(0, 2, 1)).all()
    assert (weights[3].numpy() == 2).all()
    assert len({weight.meta[CONTENT] for weight in weights[:3]}) == 3


def test_what_was_computed_of_blank_weights_is_refused():
    with pytest.raises(RuntimeError, match="blank"):
        BlankWeights(LazyTensors(SPECS, VALUES.__getitem__)).fill(model_of(np.zeros(10_000, np.float32)))
