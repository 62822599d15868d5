"""What calibration sees of a graph, and that it changes nothing of what the session computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from glimmer_export.calibration.collect import CollectingBackend, instrument
from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.contract import CalibrationError, GraphIO, IOTensor
from glimmer_export.runtime.passage_memory import pad_ids
from tests.exported import QUESTIONS, VARIANTS

FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}


def collect(source, questions, *, limit=99):
    backend = CollectingBackend(OnnxRuntimeBackend(1), limit=limit, threads=1)
    with Session.open(source.bundle, source.store, threads=1, backend=backend) as session:
        answers = session.answer_many(questions)
        if "memory_encoder" in backend.collectors:  # not every architecture runs it on a question
            ids, mask = pad_ids([session.text.question(question) for question in questions])
            backend.collectors["memory_encoder"].observe({"input_ids": ids, "attention_mask": mask})
    return backend.collectors, answers


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_float_tensor_that_depends_on_the_inputs_has_a_range(exported, variant):
    source = exported(variant)
    collectors, answers = collect(source, QUESTIONS[:4])
    expected = source.session.answer_many(QUESTIONS[:4])
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]
    assert set(collectors) == set(source.io)
    for name, collector in collectors.items():
        graph = onnx.load(source.graph(name)).graph
        known = {weight.name for weight in graph.initializer} | {""}
        dims = {value.name: value.type.tensor_type for value in (*graph.value_info, *graph.output, *graph.input)}
        depends = [value.name for value in graph.input]
        for node in graph.node:
            if known.issuperset(node.input):
                known.update(node.output)
            else:
                depends.extend(node.output)
        wanted = [tensor for tensor in depends if dims[tensor].elem_type in FLOATS]
        ranges = collector.result()
        assert list(ranges) == wanted
        assert collector.unseen() == []
        for tensor, found in ranges.items():
            last = dims[tensor].shape.dim[-1] if dims[tensor].shape.dim else None
            if found.channel_amax is not None:
                assert last.dim_value == len(found.channel_amax)
                assert found.channel_amax.max() == found.amax
            elif last is not None and last.dim_value == source.shape.d_model:
                pytest.fail(f"{name}, {tensor}: no channels")
            assert -1e30 < found.minimum <= found.maximum < 1e30
            assert found.histogram.sum() == found.count > 0


@pytest.mark.parametrize("variant", ["glimmer", "lumen", "memory_fid", "fid"])
def test_padding_enters_no_range(exported, variant):
    """A padded batch gives what its questions give one by one."""
    source = exported(variant)
    batch, _ = collect(source, QUESTIONS[:3])
    single, _ = collect(source, QUESTIONS[:1])
    for question in QUESTIONS[1:3]:
        more, _ = collect(source, [question])
        for name, collector in single.items():
            other = more[name].result()
            for tensor, running in collector.followed():
                running.minimum = min(running.minimum, other[tensor].minimum)
                running.maximum = max(running.maximum, other[tensor].maximum)
    for name, collector in batch.items():
        for tensor, running in collector.followed():
            if name.startswith("decoder") or name == "cross_kv":
                continue  # a batch runs until its last answer ends
            expected = dict(single[name].followed())[tensor]
            found = (running.minimum, running.maximum)
            assert found == pytest.approx((expected.minimum, expected.maximum), rel=1e-3, abs=1e-4), (name, tensor)


def test_padding_between_question_and_passage_enters_no_channel(tmp_path):
    """Nor where the states stand as the decoder reads them, flattened."""
    helper, dims = onnx.helper, ("batch", "passages", "tokens")
    table = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    table[0] = 100
    known = {"states": (*dims, 4), "encoder_hidden_states": ("batch", "encoder_tokens", 4)}
    values = {
        name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in known.items()
    }
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["states"]),
         helper.make_node("Reshape", ["states", "shape"], ["encoder_hidden_states"])],
        "encoder",
        [helper.make_tensor_value_info(name, onnx.TensorProto.INT32, dims) for name in ("input_ids", "attention_mask")],
        [values["encoder_hidden_states"]],
        [onnx.numpy_helper.from_array(table, "table"), onnx.numpy_helper.from_array(np.array([0, -1, 4]), "shape")],
        value_info=[values["states"]],
    )  # fmt: skip
    path = tmp_path / "encoder.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    io = GraphIO(
        (IOTensor("input_ids", "int32", dims), IOTensor("attention_mask", "int32", dims)),
        (IOTensor("encoder_hidden_states", "float32", known["encoder_hidden_states"]),),
    )
    backend = CollectingBackend(OnnxRuntimeBackend(1), limit=9, threads=1)
    ids = np.array([[[7, 9, 0, 0, 11, 12], [7, 9, 0, 0, 13, 0]]], np.int32)
    backend.load(path, io).run({"input_ids": ids, "attention_mask": np.minimum(ids, 1)})
    found = backend.collectors["encoder"].result()
    assert list(found) == list(known)
    for tensor in found.values():
        assert tensor.channel_amax.tolist() == np.abs(table[[7, 9, 11, 12, 13]]).max(axis=0).tolist()
        assert tensor.amax == tensor.channel_amax.max()


def test_the_limit_bounds_the_passages_of_a_question(glimmer):
    collectors, _ = collect(glimmer, QUESTIONS[3:4], limit=1)
    assert collectors["live_stage_a"].runs == collectors["live_stage_b"].runs == 1
    collectors, _ = collect(glimmer, QUESTIONS[3:4], limit=2)
    assert collectors["live_stage_a"].runs == collectors["live_stage_b"].runs == 2


def test_external_data_stays_where_it_is(glimmer):
    graph = instrument(glimmer.graph("memory_encoder"))
    weights = onnx.load_from_string(graph.model).graph.initializer
    assert onnx.TensorProto.EXTERNAL in {weight.data_location for weight in weights}


def graph_of(path, nodes, **constants):
    """A text encoder of a few nodes."""
    helper = onnx.helper
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.INT32, ["batch", "tokens"])
              for name in ("input_ids", "attention_mask")]  # fmt: skip
    output = helper.make_tensor_value_info("hidden_states", onnx.TensorProto.FLOAT, ["batch", "tokens", 4])
    weights = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "text", inputs, [output], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    tokens = ("batch", "tokens")
    return GraphIO(
        (IOTensor("input_ids", "int32", tokens), IOTensor("attention_mask", "int32", tokens)),
        (IOTensor("hidden_states", "float32", (*tokens, 4)),),
    )


def run_graph(path, io):
    backend = CollectingBackend(OnnxRuntimeBackend(1), limit=9, threads=1)
    graph = backend.load(path, io)
    ids = np.array([[0, 1, 0]], np.int32)
    graph.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    return backend.collectors[path.stem].result()


def test_a_value_that_is_not_finite_is_named(tmp_path):
    node = onnx.helper.make_node
    embedding = np.array([[1, 2, 3, 4], [1, np.inf, 0, 0]], np.float32)
    nodes = [node("Gather", ["embedding", "input_ids"], ["states"]), node("Neg", ["states"], ["hidden_states"])]
    io = graph_of(tmp_path / "text.onnx", nodes, embedding=embedding)
    with pytest.raises(CalibrationError, match="graph text, tensor states: expected finite values"):
        run_graph(tmp_path / "text.onnx", io)


def test_constants_are_left_out_and_empty_tensors_do_no_harm(tmp_path):
    node = onnx.helper.make_node
    nodes = [
        node("Transpose", ["weight"], ["turned"]),
        node("Gather", ["embedding", "input_ids"], ["states"]),
        node("Slice", ["states", "zero", "zero", "one"], ["nothing"]),
        node("Concat", ["states", "nothing"], ["joined"], axis=1),
        node("MatMul", ["joined", "turned"], ["product"]),
        node("Identity", ["product"], ["hidden_states"]),
    ]
    weights = np.arange(16, dtype=np.float32).reshape(4, 4)
    io = graph_of(
        tmp_path / "text.onnx", nodes, embedding=weights[:2], weight=weights, zero=np.array([0]), one=np.array([1])
    )
    found = run_graph(tmp_path / "text.onnx", io)
    assert list(found) == ["states", "joined", "product", "hidden_states"]
    assert found["states"].channel_amax.tolist() == [4, 5, 6, 7]
    assert found["product"].histogram is found["hidden_states"].histogram
    assert found["hidden_states"].channel_amax.tolist() == found["product"].channel_amax.tolist()
