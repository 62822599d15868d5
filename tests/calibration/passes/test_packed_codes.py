"""Four codes in one INT32, and back by the nodes that a graph unpacks them with."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from glimmer_export.calibration.passes.packed_codes import pack_codes, unpacked

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 4))


@pytest.fixture(scope="module")
def unpacker() -> onnxruntime.InferenceSession:
    packed = ir.Value(name="packed", shape=ir.Shape(["rows", "columns"]), type=ir.TensorType(ir.DataType.INT32))
    last = ir.node("Identity", [packed])
    graph = ir.Graph([packed], [], nodes=[last], opset_imports={"": 20}, name="unpack")
    codes = unpacked(graph, packed, last, "table")
    last.replace_input_with(0, codes)
    output = last.outputs[0]
    output.name, output.type, output.shape = "codes", ir.TensorType(ir.DataType.INT32), ir.Shape(["rows", "all"])
    graph.outputs.append(output)
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@settings(max_examples=50, deadline=None)
@given(SIZES.flatmap(lambda size: arrays.arrays(np.int8, (size[0], 4 * size[1]))))
def test_codes_come_back(unpacker, codes):
    packed = pack_codes(codes)
    assert packed.dtype == np.int32
    assert packed.nbytes == codes.nbytes
    assert (unpacker.run(None, {"packed": packed})[0] == codes).all()


def test_every_byte_in_every_place(unpacker):
    values = np.arange(-128, 128, dtype=np.int8)
    codes = np.stack([np.roll(values, place) for place in range(8)], axis=1)
    assert (unpacker.run(None, {"packed": pack_codes(codes)})[0] == codes).all()
