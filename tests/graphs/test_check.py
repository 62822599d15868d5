"""The checks that stand between a graph and a bundle can fail."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from glimmer_export.exporter.graphs.check import (
    check_operators,
    check_runs,
    check_written,
    compare_outputs,
    reference_runs,
)
from glimmer_export.exporter.stages import stage_from_model
from glimmer_export.exporter.tolerances import TOLERANCES, Tolerance, max_abs_error
from glimmer_export.runtime.contract import LOG_PROBABILITY, ExportError
from tests.exported import Exported

NAME = "cross_kv"
TOLERANCE = Tolerance(1e-3, 1e-2, "for the test")


@pytest.fixture
def path(glimmer: Exported, tmp_path: Path) -> Path:
    path = tmp_path / f"{NAME}.onnx"
    onnx.save(onnx.load(glimmer.graph(NAME)), path)
    return path


def check(glimmer: Exported, path: Path) -> float:
    check_written(path)
    stage = stage_from_model(glimmer.model, NAME, glimmer.forms)
    return check_runs(path, reference_runs(stage, glimmer.io[NAME], glimmer.shape, "fp16"))


def rewrite(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def perturb(model: onnx.ModelProto) -> None:
    """Change one number of one weight."""
    weight = max(model.graph.initializer, key=lambda item: len(item.raw_data))
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] += 0.01
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def swap_outputs(model: onnx.ModelProto) -> None:
    """Keys of one layer under the name of its values, and the other way round."""
    key, value = (output.name for output in model.graph.output[:2])
    names = {key: value, value: key}
    for node in model.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]


def use_forbidden_operator(model: onnx.ModelProto) -> None:
    """A GatherND that gathers everything, in its place."""
    name = model.graph.output[0].name
    (producer,) = (node for node in model.graph.node if name in node.output)
    producer.output[:] = ["before"]
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "zero"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "indices"))
    model.graph.node.extend([
        helper.make_node("Unsqueeze", ["before", "zero"], ["wrapped"]),
        helper.make_node("GatherND", ["wrapped", "indices"], ["gathered"]),
        helper.make_node("Identity", ["gathered"], [name]),
    ])


def use_another_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 21


def use_custom_domain(model: onnx.ModelProto) -> None:
    """An operator of ONNX Runtime's own."""
    name = model.graph.output[0].name
    (producer,) = (node for node in model.graph.node if name in node.output)
    producer.output[:] = ["before"]
    model.graph.node.append(helper.make_node("FastGelu", ["before"], [name], domain="com.microsoft"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def use_function(model: onnx.ModelProto) -> None:
    """One in the standard domain, which the domains therefore do not tell of."""
    body = [helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(helper.make_function("", "Same", ["x"], ["y"], body, [helper.make_opsetid("", 20)]))


def break_edge(model: onnx.ModelProto) -> None:
    """A node that reads what nothing writes."""
    model.graph.node[-1].input[0] = "nothing"


def declare_wrong_shape(model: onnx.ModelProto) -> None:
    """Valid for each node, but not what shape inference finds."""
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 99


def test_an_untouched_graph_passes(glimmer, path):
    assert 0 <= check(glimmer, path) < 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (perturb, "output past_key_values.0.encoder.*at most .* from torch"),
        (swap_outputs, "output past_key_values.0.encoder.*at most .* from torch"),
        (use_forbidden_operator, "GatherND"),
        (use_another_opset, "opset 20.*21"),
        (use_custom_domain, r"opset 20.*com\.microsoft"),
        (use_function, "1 functions"),
        (break_edge, "valid ONNX"),
        (declare_wrong_shape, "valid ONNX"),
    ],
)  # fmt: skip
def test_a_changed_graph_is_refused(glimmer, path, change, message):
    rewrite(path, change)
    with pytest.raises(ExportError, match=f"graph {NAME}.*{message}"):
        check(glimmer, path)


def test_bytes_that_are_no_onnx_are_refused(glimmer, path):
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ExportError, match=f"graph {NAME}.*valid ONNX"):
        check(glimmer, path)


@pytest.mark.parametrize("operator", ["Attention", "RMSNormalization", "MatMulInteger", "DynamicQuantizeLinear"])
def test_operators_that_a_target_lacks_are_refused(tmp_path, operator):
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "y"], ["z"])], "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "graph.onnx")
    with pytest.raises(ExportError, match=operator):
        check_operators(tmp_path / "graph.onnx")


def test_a_tolerance_grows_with_the_reference():
    reference = {"scores": np.array([[0.0, 100.0, -np.inf]], np.float32)}
    assert compare_outputs("g", {"scores": reference["scores"] + np.float32(1)}, reference, TOLERANCE) == 1
    with pytest.raises(ExportError, match=r"graph g, output scores: expected at most 1 from torch .*found 2"):
        compare_outputs("g", {"scores": reference["scores"] + np.float32(2)}, reference, TOLERANCE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_must_be_so_in_torch(value):
    reference = {"scores": np.array([[1.0, 2.0]], np.float32)}
    found = {"scores": np.array([[1.0, value]], np.float32)}
    with pytest.raises(ExportError):
        compare_outputs("g", found, reference, TOLERANCE)
    with pytest.raises(ExportError):
        compare_outputs("g", reference, found, TOLERANCE)


def test_another_shape_is_an_error():
    reference = {"scores": np.zeros((2, 3), np.float32)}
    assert max_abs_error(np.zeros((2, 1), np.float32), reference["scores"]) == np.inf
    with pytest.raises(ExportError):
        compare_outputs("g", {"scores": np.zeros((1, 3), np.float32)}, reference, TOLERANCE)


def test_masks_must_be_equal():
    reference = {"encoder_attention_mask": np.ones((1, 4), np.int32)}
    assert compare_outputs("g", reference, reference, TOLERANCE) == 0
    with pytest.raises(ExportError, match="encoder_attention_mask"):
        compare_outputs("g", {"encoder_attention_mask": np.array([[1, 1, 1, 0]], np.int32)}, reference, TOLERANCE)


def test_a_token_may_differ_only_in_a_tie():
    logits = np.array([[1.0, 1.0005, 0.5]], np.float32)
    reference = {"next_token": np.array([[1]], np.int32), "logits": logits}
    tied = {"next_token": np.array([[0]], np.int32), "logits": logits}
    other = {"next_token": np.array([[2]], np.int32), "logits": logits}
    assert compare_outputs("g", tied, reference, TOLERANCE) < 1e-3
    with pytest.raises(ExportError, match="next_token"):
        compare_outputs("g", other, reference, TOLERANCE)


def test_a_log_probability_may_move_as_its_logits_may():
    """It is a difference of two of them, and nearly 0 where the model is sure: no share of itself would do."""
    logits = np.array([[30.0, 1.0, 0.5]], np.float32)
    reference = {"logits": logits, LOG_PROBABILITY: np.array([[-1e-9]], np.float32)}
    limit = 2 * TOLERANCE.limit(logits)
    for error, refused in ((0.9 * limit, False), (1.1 * limit, True)):
        found = {"logits": logits, LOG_PROBABILITY: np.array([[-error]], np.float32)}
        with pytest.raises(ExportError, match=LOG_PROBABILITY) if refused else nullcontext():
            compare_outputs("g", found, reference, TOLERANCE)


def test_every_tolerance_has_its_reason():
    for tolerance in TOLERANCES.values():
        assert 0 < tolerance.atol < 1e-2
        assert 0 < tolerance.rtol < 1e-2
        assert len(tolerance.reason) > 20
