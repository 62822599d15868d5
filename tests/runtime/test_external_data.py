"""What a graph reads from outside is found wherever ONNX lets a tensor stand."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from glimmer_export.runtime.contract import BundleError
from glimmer_export.runtime.external_data import MAX_MADE_ELEMENTS, ExternalData, check_external_data, external_data


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


def refused(*tensors: TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> str:
    model = onnx.ModelProto(graph=onnx.GraphProto(initializer=tensors, node=nodes))
    with pytest.raises(ValueError, match="constant") as raised:
        found(model.SerializeToString())
    return str(raised.value)


def test_a_constant_of_other_bytes_than_its_shape_states():
    """A file of some bytes may state gigabytes: a library makes the array, or fails as its code does."""
    for dims, held in (([1 << 40], bytes(8)), ([2, 2], bytes(12)), ([1 << 20] * 3, b"")):
        raw = TensorProto(name="big", data_type=TensorProto.FLOAT, dims=dims, raw_data=held)
        assert f"'big' of {4 * math.prod(dims)} bytes by its shape, which has {len(held)}" in refused(raw)
    typed = TensorProto(name="big", data_type=TensorProto.INT64, dims=[1 << 40], int64_data=[1, 2])
    assert f"of {1 << 40} values by its shape, which has 2" in refused(typed)
    placed = outside("weights.data")
    placed.dims[:] = [1 << 40]
    assert f"'weight' of {4 << 40} bytes by its shape, which has 8" in refused(placed)
    for dims in ([-1], [1] * 65):
        assert "a shape that none has" in refused(TensorProto(name="big", dims=dims, data_type=1, raw_data=b""))
    inside = onnx.NodeProto(op_type="Constant", output=["y"])
    inside.attribute.append(helper.make_attribute("value", raw))
    assert "by its shape" in refused(nodes=(inside,))


def test_external_data_without_a_length_is_checked_against_its_file(tmp_path):
    tensor = outside("weights.data")
    del tensor.external_data[1:]
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor])).SerializeToString())

    def check(size: int) -> None:
        check_external_data(graph, {"weights.data": size}, error=BundleError, subject="graph", fix="copy it again")

    check(8)
    with pytest.raises(BundleError, match=r"within the 7 bytes of weights\.data, found some up to byte 8"):
        check(7)


@pytest.mark.parametrize(("operator", "inputs"), [("ConstantOfShape", "n"), ("Expand", "one n"), ("Tile", "one n")])
def test_a_constant_that_a_node_would_make_in_gigabytes(operator, inputs):
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    made = helper.make_node(operator, inputs.split(), ["y"])
    for count, values in ((1 << 40, [1 << 20, 1 << 20]), (1 << 28, [1 << 28])):
        typed = helper.make_tensor("n", TensorProto.INT64, [len(values)], values)
        raw = helper.make_tensor("n", TensorProto.INT64, [len(values)], np.array(values).tobytes(), raw=True)
        for size in (typed, raw):
            constant = helper.make_node("Constant", [], ["n"], value=size)
            if count > MAX_MADE_ELEMENTS:
                assert f"{count} values that a node {operator} makes" in refused(one, size, nodes=(made,))
                assert f"{count} values" in refused(one, nodes=(constant, made))
            else:
                graph = onnx.GraphProto(initializer=[one, size], node=[made])
                assert found(onnx.ModelProto(graph=graph).SerializeToString()) == []
