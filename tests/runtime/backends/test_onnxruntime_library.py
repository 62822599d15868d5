"""What ONNX Runtime raises when a graph is loaded and when it runs has a name of ours; what we raise keeps its own."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state

from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.backends.onnxruntime_gpu import OnnxRuntimeDeviceBackend
from glimmer_export.runtime.backends.onnxruntime_library import OrtSession
from glimmer_export.runtime.contract import BackendError, BundleError, DeviceMemoryError, GraphIO
from glimmer_export.runtime.contract.graph_io import IOTensor

OWN = [
    kind for kind in vars(onnxruntime_pybind11_state).values()
    if isinstance(kind, type) and issubclass(kind, BaseException)
]
BACKENDS = {
    "cpu": lambda: OnnxRuntimeBackend(1),
    "device": lambda: OnnxRuntimeDeviceBackend("CPUExecutionProvider", "cpu", threads=1),
}
VALUES = np.ones((1, 3), np.float32)
IO = GraphIO(
    (IOTensor("values", "float32", ("batch", 3)), IOTensor("numbers", "int32", ("length",))),
    (IOTensor("taken", "float32", ("rows", "columns")),),
)


def write_graph(path, operator):
    """A graph that reads `numbers` as places among three values, or by their squares as a shape to expand them to."""
    nodes = [helper.make_node("Gather", ["values", "numbers"], ["taken"], axis=1)]
    if operator == "Expand":
        nodes = [
            helper.make_node("Cast", ["numbers"], ["wide"], to=TensorProto.INT64),
            helper.make_node("Mul", ["wide", "wide"], ["shape"]),
            helper.make_node("Expand", ["values", "shape"], ["taken"]),
        ]
    tensors = [
        helper.make_tensor_value_info("values", TensorProto.FLOAT, ["batch", 3]),
        helper.make_tensor_value_info("numbers", TensorProto.INT32, ["length"]),
    ]
    taken = helper.make_tensor_value_info("taken", TensorProto.FLOAT, ["rows", "columns"])
    graph = helper.make_graph(nodes, "graph", tensors, [taken])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_that_fails_when_it_runs_is_named(tmp_path, backend):
    graph = BACKENDS[backend]().load(write_graph(tmp_path / "graph.onnx", "Gather"), IO)
    assert graph.run({"values": VALUES, "numbers": np.array([2], np.int32)})["taken"].tolist() == [[1]]
    with pytest.raises(BackendError, match=r"graph\.onnx: expected a graph that runs, found .*out of data bounds"):
        graph.run({"values": VALUES, "numbers": np.array([7], np.int32)})


@pytest.mark.parametrize("backend", BACKENDS)
def test_want_of_memory_is_named_and_the_graph_goes_on(tmp_path, backend):
    graph = BACKENDS[backend]().load(write_graph(tmp_path / "graph.onnx", "Expand"), IO)
    with pytest.raises(DeviceMemoryError, match=r"graph\.onnx: expected memory"):
        graph.run({"values": VALUES, "numbers": np.array([2**20, 1], np.int32)})
    assert graph.run({"values": VALUES, "numbers": np.array([2, 1], np.int32)})["taken"].shape == (4, 3)


@pytest.mark.parametrize("kind", [*OWN, RuntimeError, MemoryError], ids=lambda kind: kind.__name__)
def test_all_that_it_raises_is_named(tmp_path, monkeypatch, kind):
    path = write_graph(tmp_path / "graph.onnx", "Gather")
    graph = OnnxRuntimeBackend(1).load(path, IO)

    def fails(*_, **__):
        raise kind("the first line\nthe second")

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", fails)
    expected = DeviceMemoryError if kind is MemoryError else BackendError
    with pytest.raises(expected, match="the first line") as caught:
        graph.run({"values": VALUES, "numbers": np.zeros(1, np.int32)})
    assert "second" not in str(caught.value)
    monkeypatch.setattr(onnxruntime, "InferenceSession", fails)
    with pytest.raises(DeviceMemoryError if kind is MemoryError else BundleError, match="the first line"):
        OnnxRuntimeBackend(1).load(path, IO)


@pytest.mark.parametrize("kind", [AttributeError, TypeError, KeyError, ValueError])
def test_a_bug_in_calling_it_keeps_its_traceback(tmp_path, monkeypatch, kind):
    path = write_graph(tmp_path / "graph.onnx", "Gather")
    graph = OnnxRuntimeBackend(1).load(path, IO)

    def fails(*_, **__):
        raise kind("a bug")

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", fails)
    with pytest.raises(kind, match="a bug"):
        graph.run({"values": VALUES, "numbers": np.zeros(1, np.int32)})
    monkeypatch.setattr(onnxruntime, "InferenceSession", fails)
    with pytest.raises(kind, match="a bug"):
        OnnxRuntimeBackend(1).load(path, IO)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dims", [("batch", 3), (1, "columns"), ("length", "columns")])
def test_outputs_of_another_shape_are_named(tmp_path, backend, dims):
    """What a graph declares, names of dimensions, binds nothing that it gives."""
    io = GraphIO(IO.inputs, (IOTensor("taken", "float32", dims),))
    graph = BACKENDS[backend]().load(write_graph(tmp_path / "graph.onnx", "Expand"), io)
    with pytest.raises(BundleError, match=r"graph\.onnx: expected taken of the shape .*, found \[9, 3\]"):
        graph.run({"values": VALUES, "numbers": np.array([3, 1], np.int32)})
    if dims != ("length", "columns"):
        assert graph.run({"values": VALUES, "numbers": np.array([1, 1], np.int32)})["taken"].shape == (1, 3)


def test_names_that_are_not_utf_8_are_named(tmp_path):
    path = write_graph(tmp_path / "graph.onnx", "Gather")
    path.write_bytes(path.read_bytes().replace(b"numbers", b"number\xff"))
    with pytest.raises(BundleError, match="graph"):
        OrtSession(
            path, onnxruntime.SessionOptions(), subject="graph",
            refused=lambda reason: BundleError("graph", expected="one", found=reason, fix="none"),
        )
