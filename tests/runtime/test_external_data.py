"""What a graph reads from outside is found wherever ONNX lets a tensor stand."""

from __future__ import annotations

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from runtime.external_data import ExternalData, external_data


def outside(location: str) -> TensorProto:
    tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "4096"), ("length", "8")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def node(attribute: onnx.AttributeProto) -> onnx.NodeProto:
    found = onnx.NodeProto(op_type="Constant", output=["value"])
    found.attribute.append(attribute)
    return found


def inner(location: str) -> onnx.GraphProto:
    return onnx.GraphProto(name="inner", initializer=[outside(location)])


def everywhere() -> onnx.ModelProto:
    sparse = onnx.SparseTensorProto(values=outside("sparse values"), indices=outside("sparse indices"), dims=[9])
    nodes = [
        node(helper.make_attribute("value", outside("attribute"))),
        node(onnx.AttributeProto(name="values", type=onnx.AttributeProto.TENSORS, tensors=[outside("attributes")])),
        node(onnx.AttributeProto(name="body", type=onnx.AttributeProto.GRAPH, g=inner("branch"))),
        node(onnx.AttributeProto(name="bodies", type=onnx.AttributeProto.GRAPHS, graphs=[inner("branches")])),
        node(onnx.AttributeProto(name="sparse", type=onnx.AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse)),
    ]
    graph = onnx.GraphProto(name="graph", node=nodes, initializer=[outside("initializer")], sparse_initializer=[sparse])
    function = onnx.FunctionProto(name="f", node=[node(helper.make_attribute("value", outside("function")))])
    return onnx.ModelProto(ir_version=10, graph=graph, functions=[function])


def found(content: bytes) -> list[ExternalData]:
    return list(external_data(memoryview(content)))


def test_every_place_of_a_tensor():
    places = found(everywhere().SerializeToString())
    assert {place.location.decode() for place in places} == {
        "attribute", "attributes", "branch", "branches", "sparse values", "sparse indices", "initializer", "function",
    }  # fmt: skip
    assert {(place.offset, place.length) for place in places} == {(4096, 8)}


def test_a_location_given_twice_counts_twice():
    tensor = outside("first")
    tensor.external_data.add(key="location", value="second")
    model = onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor]))
    assert [place.location for place in found(model.SerializeToString())] == [b"first", b"second"]


def test_messages_nested_without_end():
    content = b""
    for place in range(150):  # an attribute's graph, a node's attribute, a graph's node
        content = bytes([(6, 5, 1)[place % 3] << 3 | 2]) + length(content) + content
    with pytest.raises(ValueError, match="nested too deep"):
        found(bytes([7 << 3 | 2]) + length(content) + content)


def length(content: bytes) -> bytes:
    """As protobuf writes a size of two bytes."""
    return bytes([len(content) & 127 | 128, len(content) >> 7])


CONTENT = everywhere().SerializeToString()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(CONTENT) - 1), st.integers(0, 255), st.booleans())
def test_damage_is_a_value_error_or_harmless(place, byte, cut):
    content = CONTENT[:place] if cut else CONTENT[:place] + bytes([byte]) + CONTENT[place + 1 :]
    try:
        found(content)
    except ValueError:
        return
