"""RMSNorms are found in the form that graphs have now, and in that of bundles that were exported before it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from glimmer_export.calibration.passes.convert_fp16 import ConvertFp16
from glimmer_export.calibration.passes.rescale_residual import RescaleResidual
from glimmer_export.calibration.passes.residual_stream import find_norms
from tests.calibration.fp16_graphs import every_value, graphs_of, run, tracked
from tests.exported import load_graph

OLD_BUNDLE = Path(__file__).parents[2] / "golden" / "bundle"
SCALE = 2.0**-10


@pytest.mark.parametrize("bundle", [None, OLD_BUNDLE], ids=["now", "before"])
def test_every_norm_is_found_and_kept_in_fp32_and_scales_exactly(glimmer, bundle):
    for path, inputs in graphs_of(bundle or glimmer):
        model = load_graph(path)
        forms = {norm.nodes[4].op_type for norm in find_norms(model.graph)}
        assert forms <= {"Reciprocal" if bundle else "Div"}
        lazy = path.name.startswith("live_stage_a") and bundle is not None
        assert len(find_norms(model.graph)) == sum(node.op_type == "Sqrt" for node in model.graph) - lazy
        expected, ranges = run(model, inputs), tracked(model, [inputs])
        RescaleResidual(SCALE, ranges)(model)
        for name, values in run(model, inputs).items():
            np.testing.assert_array_equal(values, expected[name], err_msg=f"{path.stem}: {name}")
        for name, values in every_value(model, inputs).items():
            finite = values[np.isfinite(values)]
            if name in ranges and finite.size:
                assert ranges.amax(name) == pytest.approx(np.abs(finite).max(), rel=1e-3), f"{path.stem}: {name}"
        ConvertFp16(ranges)(model)
        for norm in find_norms(model.graph):
            assert {value.dtype for node in norm.nodes for value in node.outputs} == {ir.DataType.FLOAT}


def test_a_root_divided_by_what_is_normalised_is_no_norm(glimmer):
    model = load_graph(glimmer.graph("memory_encoder"))
    norm = find_norms(model.graph)[0]
    division = norm.nodes[4]
    dividend, root = division.inputs
    division.replace_input_with(0, root)
    division.replace_input_with(1, dividend)
    assert norm.epsilon_add not in {found.epsilon_add for found in find_norms(model.graph)}
