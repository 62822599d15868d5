"""Each rule on graphs that break it, and on graphs as near to them as can be that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.helper import make_node as node

from glimmer_export.exporter.lint import CPU_RULES, GPU_RULES, Limits
from glimmer_export.exporter.lint.graph import LintGraph
from glimmer_export.runtime.contract import BundleError, GraphIO, IOTensor

JETSON = Limits("tensorrt", (10, 3), (8, 7))
T4 = Limits("tensorrt", (10, 3), (7, 5))
RULES = {rule.id: rule for rule in (*GPU_RULES, *CPU_RULES)}

F32, F16, I8, U8, I32, I64 = np.float32, np.float16, np.int8, np.uint8, np.int32, np.int64
Array = Any


class Model:
    """A graph from inputs and outputs (name -> (dtype, dims)), constants and nodes."""

    def __init__(
        self,
        inputs: Mapping[str, tuple[Any, Sequence[int | str]]],
        outputs: Mapping[str, tuple[Any, Sequence[int | str]]],
        constants: Mapping[str, Array],
        *nodes: onnx.NodeProto,
        opset: int = 20,
        domains: Sequence[str] = (),
        functions: Sequence[onnx.FunctionProto] = (),
    ) -> None:
        sides = [
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), dims)
                for name, (dtype, dims) in side.items()
            ]
            for side in (inputs, outputs)
        ]
        tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
        graph = helper.make_graph(list(nodes), "graph", *sides, tensors)
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        self.proto = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))
        self.io = GraphIO(*(
            tuple(IOTensor(name, np.dtype(dtype).name, tuple(dims)) for name, (dtype, dims) in side.items())
            for side in (inputs, outputs)
        ))

    def faults(self, rule: str, directory: Path, limits: Limits | None = JETSON) -> list[tuple[str, str]]:
        onnx.save(self.proto, directory / "graph.onnx")
        return list(RULES[rule].check(LintGraph(directory / "graph.onnx", "graph", self.io), limits))


X = {"x": (F32, ["batch", 4])}
Y = {"y": (F32, ["batch", 4])}
RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((4, 6)).astype(F32)
CODES = RANDOM.integers(-127, 127, (4, 6)).astype(I8)
OUT = {"y": (F32, ["batch", 6])}


def unary(kind: str = "Relu", *, opset: int = 20, domain: str = "", **attributes: Any) -> Model:
    return Model(
        X, Y, {}, node(kind, ["x"], ["y"], "the node", domain=domain, **attributes), opset=opset,
        domains=[domain] if domain else [],
    )


def with_function() -> Model:
    body = [node("Relu", ["a"], ["b"])]
    function = helper.make_function("local", "twice", ["a"], ["b"], body, [helper.make_opsetid("", 20)])
    return Model(X, Y, {}, node("Relu", ["x"], ["y"]), functions=[function])


def reduce_by(*, computed: bool) -> Model:
    inputs = X | ({"axes": (I64, [1])} if computed else {})
    constants = {} if computed else {"axes": np.array([1], I64)}
    return Model(inputs, {"y": (F32, ["batch", 1])}, constants, node("ReduceSum", ["x", "axes"], ["y"], "sum"))


def topk(k: int | None) -> Model:
    inputs = {"x": (F32, ["batch", 5000])} | ({"k": (I64, [1])} if k is None else {})
    outputs = {"values": (F32, ["batch", "k"]), "indices": (I64, ["batch", "k"])}
    constants = {} if k is None else {"k": np.array([k], I64)}
    return Model(inputs, outputs, constants, node("TopK", ["x", "k"], ["values", "indices"], "topk"))


def either(*, squeezed: bool = False, one_name: bool = False) -> Model:
    def branch(kind: str, name: str, inputs: list[str], dims: list[Any]) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)
        return helper.make_graph([node(kind, inputs, [name])], kind, [], [out])

    other = branch("Squeeze", "b", ["x", "axis"], [4]) if squeezed else branch("Neg", "b", ["x"], [1, 4])
    chosen = node(
        "If", ["condition"], ["y"], "either", then_branch=branch("Relu", "b" if one_name else "a", ["x"], [1, 4]),
        else_branch=other,
    )
    inputs = {"x": (F32, [1, 4]), "condition": (np.bool_, [])}
    return Model(inputs, {"y": (F32, [None, None])}, {"axis": np.array([0], I64)}, chosen)


def reshaped(*, length: int | str) -> Model:
    inputs = {"x": (F32, ["batch", 4]), "shape": (I64, [length])}
    nodes = [node("Reshape", ["x", "shape"], ["z"], "reshape"), node("Shape", ["z"], ["y"], "of")]
    return Model(inputs, {"y": (I64, [None])}, {}, *nodes)


def cast_to(kind: int) -> Model:
    back = node("Cast", ["z"], ["y"], "back", to=onnx.TensorProto.FLOAT)
    return Model(X, Y, {}, node("Cast", ["x"], ["z"], "there", to=kind), back)


def uint8_inside() -> Model:
    nodes = [
        node("Cast", ["x"], ["z"], "there", to=onnx.TensorProto.UINT8),
        node("Cast", ["z"], ["y"], "back", to=onnx.TensorProto.FLOAT),
    ]
    return Model(X, Y, {}, *nodes)


def uint8_input() -> Model:
    return Model({"x": (U8, ["batch", 4])}, Y, {}, node("Cast", ["x"], ["y"], "in", to=onnx.TensorProto.FLOAT))


def bfloat16_weight() -> Model:
    weight = WEIGHT.astype(ml_dtypes.bfloat16)
    x, y = {"x": (F32, ["batch", 4])}, {"y": (F32, ["batch", 6])}
    nodes = [
        node("Cast", ["x"], ["half"], to=onnx.TensorProto.BFLOAT16), node("MatMul", ["half", "w"], ["z"], "product"),
        node("Cast", ["z"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    return Model(x, y, {"w": weight}, *nodes)


def gather(indices: Any, dtype: Any = I64) -> Model:
    indices = np.asarray(indices, dtype)
    rows = {"y": (F32, [*indices.shape, "batch"])}
    transposed = node("Transpose", ["x"], ["t"], perm=[1, 0])
    return Model(X, rows, {"i": indices}, transposed, node("Gather", ["t", "i"], ["y"], "rows"))


def ids(dtype: Any) -> Model:
    table = RANDOM.standard_normal((9, 4)).astype(F32)
    lookup = node("Gather", ["table", "ids"], ["y"], "lookup")
    return Model({"ids": (dtype, ["batch"])}, Y, {"table": table}, lookup)


def gather_nd(dtype: Any) -> Model:
    pick = node("GatherND", ["x", "i"], ["y"], "pick")
    return Model({"x": (F32, [3, 4])}, {"y": (F32, [2, 4])}, {"i": np.array([[0], [2]], dtype)}, pick)


def int8_table(*, dequantised: bool) -> Model:
    table = RANDOM.integers(-127, 127, (9, 4)).astype(I8)
    inputs, constants = {"ids": (I32, ["batch"])}, {"table": table, "scale": np.array(0.5, F32)}
    if dequantised:
        first = node("DequantizeLinear", ["table", "scale"], ["floats"], "table")
        return Model(inputs, Y, constants, first, node("Gather", ["floats", "ids"], ["y"], "lookup"))
    nodes = [
        node("Gather", ["table", "ids"], ["rows"], "lookup"), node("DequantizeLinear", ["rows", "scale"], ["y"], "rows")
    ]
    return Model(inputs, Y, constants, *nodes)


def product(left: Any, right: Any) -> Model:
    x, y = {"x": (left, ["batch", 4])}, {"y": (left, ["batch", 6])}
    return Model(x, y, {"w": WEIGHT.astype(right)}, node("MatMul", ["x", "w"], ["y"], "product"))


def quantised(**changes: Any) -> Model:
    """A product as TensorRT wants it, in FP32; `changes` are of its parts."""
    parts: dict[str, Any] = {
        "x_scale": np.array(0.05, F32), "x_zero": np.array(0, I8), "back_scale": "x_scale", "w_codes": CODES,
        "w_scale": np.full(6, 0.01, F32), "axis": {"axis": 1}, "operator": "MatMul", "operator_attributes": {},
        "dequantise_x": True, "dequantise_w": True, "opset": 20, "x": F32, "extra": [], "inputs": {},
    } | changes  # fmt: skip
    nodes = [node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["codes"], "x/Q")]
    nodes.append(node("DequantizeLinear", ["codes", parts["back_scale"], "x_zero"], ["back"], "x/DQ"))
    nodes.append(node("DequantizeLinear", ["w_codes", "w_scale"], ["w"], "w/DQ", **parts["axis"]))
    sides = ["back" if parts["dequantise_x"] else "x", "w" if parts["dequantise_w"] else "plain"]
    nodes.append(node(parts["operator"], sides, ["y"], "product", **parts["operator_attributes"]))
    constants = {name: parts[name] for name in ("x_scale", "x_zero", "w_codes", "w_scale")} | {"plain": WEIGHT}
    constants |= {"other_scale": np.array(0.06, F32), "same_scale": np.array(0.05, F32)}
    constants = {name: value for name, value in constants.items() if name not in parts["inputs"]}
    inputs = {"x": (parts["x"], ["batch", 4])} | parts["inputs"]
    return Model(inputs, {"y": (parts["x"], ["batch", 6])}, constants, *nodes, *parts["extra"], opset=parts["opset"])


def fp16(**changes: Any) -> Model:
    scales = {"x_scale": np.array(0.05, F16), "w_scale": np.full(6, 0.01, F16), "x": F16}
    return quantised(**(scales | changes))


def codes_out() -> Model:
    extra = [node("Cast", ["codes"], ["seen"], to=onnx.TensorProto.INT32)]
    return quantised(extra=extra)


def cast_codes() -> Model:
    nodes = [
        node("Cast", ["x"], ["codes"], "cast", to=onnx.TensorProto.INT8),
        node("DequantizeLinear", ["codes", "scale"], ["y"], "DQ"),
    ]
    return Model(X, Y, {"scale": np.array(0.5, F32)}, *nodes)


TRANSPOSED = {
    "operator": "Gemm", "operator_attributes": {"transB": 1}, "w_codes": CODES.T, "axis": {"axis": 0},
}  # fmt: skip

BROKEN: dict[str, list[tuple[Model, str]]] = {
    "opset": [(unary(opset=21), "opset 21, where TensorRT 10.3 ends at 20"), (unary(opset=8), "opset 8")],
    "domain": [
        (unary("FastGelu", domain="com.microsoft"), "com.microsoft.FastGelu"),
        (with_function(), "a function of its own"),
    ],
    "operator": [
        (unary("BitwiseNot"), "BitwiseNot"),
        (Model({"x": (np.uint32, [4])}, {"y": (np.uint32, [4])}, {"n": np.full(4, 3, np.uint32)},
               node("BitShift", ["x", "n"], ["y"], direction="LEFT")), "BitShift"),
        (Model({"x": (U8, [2, 4])}, {"y": (I32, [2, 6])}, {"w": CODES}, node("MatMulInteger", ["x", "w"], ["y"])),
         "MatMulInteger"),
        (Model(X, {"y": (U8, [2, 4]), "s": (F32, []), "z": (U8, [])}, {},
               node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])), "DynamicQuantizeLinear"),
        (Model({"x": (F32, [1, 2, 3, 4])}, {"y": (F32, [1, 2, 3, 4])}, {}, node("Attention", ["x", "x", "x"], ["y"]),
               opset=23), "Attention, which came with 10.14"),
        (Model(X, Y, {"g": np.ones(4, F32) * 2}, node("RMSNormalization", ["x", "g"], ["y"]), opset=23),
         "RMSNormalization, which came with 10.15"),
    ],
    "constant-axes": [(reduce_by(computed=True), "axes axes, which are computed")],
    "topk": [(topk(None), "K k, which is computed"), (topk(3841), "K 3841")],
    "if-rank": [(either(squeezed=True), "a of rank 2 and b of rank 1"), (either(one_name=True), "b of rank 2 and b")],
    "static-rank": [(reshaped(length="n"), "z, whose number of dimensions is not known")],
    "dtype": [
        (cast_to(onnx.TensorProto.DOUBLE), "z of type DOUBLE"),
        (cast_to(onnx.TensorProto.INT16), "z of type INT16"),
        (cast_to(onnx.TensorProto.FLOAT8E4M3FN), "which needs compute capability 8.9"),
        (uint8_inside(), "z of type UINT8"),
    ],
    "int64": [(ids(I64), "an input or output of INT64"), (gather(range(9)), "a constant of 9 INT64 numbers")],
    "gather-nd": [(gather_nd(I32), "indices of INT32")],
    "int8": [(int8_table(dequantised=False), "table in a Gather"), (codes_out(), "codes in a Cast")],
    "mixed-product": [(product(F16, F32), "FLOAT16 and FLOAT")],
    "qdq-signed": [(quantised(x_zero=np.array(0, U8)), "codes of UINT8")],
    "qdq-zero-point": [
        (quantised(x_zero=np.array(3, I8)), "the zero point 3"),
        (quantised(inputs={"x_zero": (I8, [])}), "the zero point x_zero, which is computed"),
    ],
    "qdq-constant-scale": [(quantised(inputs={"x_scale": (F32, [])}), "the scale x_scale, which is computed")],
    "qdq-positive-scale": [
        (quantised(w_scale=np.array([1, 2, 0, 1, 1, 1], F32)), "a scale of 0.0"),
        (quantised(x_scale=np.array(-0.1, F32)), "a scale of -0.1"),
        (quantised(x_scale=np.array(np.inf, F32)), "a scale of inf"),
    ],
    "qdq-scale-dtype": [(fp16(x_scale=np.array(0.05, F32)), "a scale of FLOAT beside FLOAT16")],
    "qdq-fp16-scale": [(fp16(opset=18), "a FLOAT16 scale in opset 18")],
    "qdq-per-tensor": [(quantised(x_scale=np.full(4, 0.1, F32), x_zero=np.zeros(4, I8)), "4 scales")],
    "qdq-weight-axis": [
        (quantised(w_scale=np.full(4, 0.1, F32), axis={"axis": 0}), "each channel of axis 0 of a weight (4, 6)"),
        (quantised(**{**TRANSPOSED, "w_scale": np.full(4, 0.1, F32), "axis": {"axis": 1}}), "axis 1 of a weight (6,"),
        (quantised(w_codes=np.stack([CODES] * 2), axis={"axis": 2}), "axis 2 of a weight (2, 4, 6)"),
        (quantised(w_scale=np.full((2, 6), 0.1, F32), axis={"axis": 0, "block_size": 2}, opset=21), "blocks of 2"),
    ],
    "qdq-pair": [
        (codes_out(), "codes that go to Cast"),
        (cast_codes(), "codes that come from Cast"),
        (quantised(back_scale="other_scale"), "the scale other_scale where QuantizeLinear has x_scale"),
    ],
    "qdq-both-sides": [
        (quantised(dequantise_x=False), "INT8 on its right side alone"),
        (quantised(dequantise_w=False), "INT8 on its left side alone"),
    ],
}  # fmt: skip

KEPT: dict[str, list[Model]] = {
    "opset": [unary()],
    "domain": [unary()],
    "operator": [unary(), unary("Gelu"), either(), quantised()],
    "constant-axes": [reduce_by(computed=False)],
    "topk": [topk(3840)],
    "if-rank": [either()],
    "static-rank": [reshaped(length=3), quantised(), either()],
    "dtype": [uint8_input(), quantised(), fp16(), cast_to(onnx.TensorProto.BFLOAT16), bfloat16_weight()],
    "int64": [ids(I32), gather(range(8)), gather(range(9), I32)],
    "gather-nd": [gather_nd(I64), gather(range(3))],
    "int8": [int8_table(dequantised=True), quantised()],
    "mixed-product": [product(F16, F16), product(F32, F32), quantised()],
    "qdq-signed": [quantised(), fp16()],
    "qdq-zero-point": [quantised(), int8_table(dequantised=True)],
    "qdq-constant-scale": [quantised()],
    "qdq-positive-scale": [quantised(), quantised(x_scale=np.array(1e-40, F32))],
    "qdq-scale-dtype": [quantised(), fp16()],
    "qdq-fp16-scale": [fp16(opset=19), quantised(opset=18)],
    "qdq-per-tensor": [quantised(), quantised(x_scale=np.full(1, 0.1, F32), x_zero=np.zeros(1, I8))],
    "qdq-weight-axis": [
        quantised(), quantised(axis={}), quantised(axis={"axis": -1}), quantised(**TRANSPOSED),
        quantised(w_codes=np.stack([CODES] * 2), w_scale=np.array(0.1, F32), axis={}),
    ],
    "qdq-pair": [quantised(), quantised(back_scale="same_scale"), int8_table(dequantised=True)],
    "qdq-both-sides": [quantised(), product(F32, F32)],
}

OF_THEIR_OWN = {"fp32-product", "onnxruntime-opset", "onnxruntime-domain", "onnxruntime-loads"}


def places(table: Mapping[str, Sequence[Any]]) -> list[tuple[str, int]]:
    return [(rule, place) for rule, rows in table.items() for place in range(len(rows))]


def test_every_rule_has_its_graphs():
    assert set(BROKEN) == set(KEPT)
    assert set(RULES) == set(BROKEN) | OF_THEIR_OWN


@pytest.mark.parametrize(("rule", "place"), places(BROKEN))
def test_a_graph_that_breaks_a_rule(rule, place, tmp_path):
    model, found = BROKEN[rule][place]
    faults = model.faults(rule, tmp_path)
    assert faults
    assert found in faults[0][1]
    assert all(name for name, _ in faults)


@pytest.mark.parametrize(("rule", "place"), places(KEPT))
def test_a_graph_that_keeps_it(rule, place, tmp_path):
    assert KEPT[rule][place].faults(rule, tmp_path) == []


def test_a_fault_names_its_node(tmp_path):
    assert unary("BitwiseNot").faults("operator", tmp_path)[0][0] == "the node"
    assert [name for name, _ in quantised(x_zero=np.array(3, I8)).faults("qdq-zero-point", tmp_path)] == ["x/Q", "x/DQ"]
    assert gather(range(9)).faults("int64", tmp_path) == [("i", "a constant of 9 INT64 numbers")]


def test_nodes_inside_others_are_seen(tmp_path):
    model = either()
    then = next(attribute for attribute in model.proto.graph.node[0].attribute if attribute.name == "then_branch")
    then.g.node[0].op_type = "BitwiseNot"
    assert [found for _, found in model.faults("operator", tmp_path)] == ["BitwiseNot"]


def test_what_stands_in_constant_nodes_is_constant(tmp_path):
    model = quantised()
    for name in ("x_scale", "w_scale", "w_codes"):
        tensor = next(tensor for tensor in model.proto.graph.initializer if tensor.name == name)
        model.proto.graph.initializer.remove(tensor)
        model.proto.graph.node.insert(0, node("Constant", [], [name], value=tensor))
    for rule in ("qdq-constant-scale", "qdq-pair", "qdq-weight-axis", "qdq-per-tensor", "int8"):
        assert model.faults(rule, tmp_path) == []


def test_versions_and_capabilities_decide(tmp_path):
    attention = Model(
        {"x": (F32, [1, 2, 3, 4])}, {"y": (F32, [1, 2, 3, 4])}, {}, node("Attention", ["x", "x", "x"], ["y"]), opset=23
    )
    newer = Limits("tensorrt", (10, 14), (7, 5))
    for rule in ("operator", "opset"):
        assert attention.faults(rule, tmp_path)
        assert attention.faults(rule, tmp_path, newer) == []
    assert unary(opset=24).faults("opset", tmp_path, newer)
    assert unary(opset=24).faults("opset", tmp_path, Limits("tensorrt", (11, 4), (9, 0))) == []
    for model, enough in ((cast_to(onnx.TensorProto.FLOAT8E4M3FN), (8, 9)), (bfloat16_weight(), (8, 0))):
        assert model.faults("dtype", tmp_path, T4)
        assert model.faults("dtype", tmp_path, Limits("tensorrt", (10, 3), enough)) == []


def four_bits(axis: int = 0, dtype: Any = ml_dtypes.int4) -> Model:
    """A product of a float activation with a weight (64, 6) in blocks of 32."""
    scales = np.full((2, 6) if axis == 0 else (64, 1), 0.1, F16)
    return Model(
        {"x": (F16, ["batch", 64])}, {"y": (F16, ["batch", 6])},
        {"codes": RANDOM.integers(-7, 8, (64, 6)).astype(dtype), "scales": scales},
        node("DequantizeLinear", ["codes", "scales"], ["w"], axis=axis, block_size=32 if axis == 0 else 6),
        node("MatMul", ["x", "w"], ["y"], "product"), opset=21,
    )


def test_weights_of_four_bits_are_for_a_new_tensorrt_and_a_new_gpu(tmp_path):
    """Neither T4 nor JetPack 6.2 has them; INT8 beside a float activation nobody."""
    new = Limits("tensorrt", (10, 14), (8, 0))
    for rule in ("dtype", "opset", "qdq-signed", "qdq-weight-axis", "qdq-both-sides"):
        assert four_bits().faults(rule, tmp_path, new) == []
    for old in (T4, JETSON, Limits("tensorrt", (10, 14), (7, 5)), Limits("tensorrt", (10, 13), (8, 0))):
        ((_, found),) = four_bits().faults("dtype", tmp_path, old)
        assert found == "codes of type INT4, which needs compute capability 8.0 and TensorRT 10.14"
    assert four_bits(dtype=I8).faults("qdq-weight-axis", tmp_path, new)
    assert four_bits(dtype=I8).faults("qdq-both-sides", tmp_path, new)
    assert four_bits(axis=1).faults("qdq-weight-axis", tmp_path, new)


def test_products_in_fp32_are_refused_by_tensorrt_rtx_for_turing_alone(tmp_path):
    turing = Limits("tensorrt-rtx", (10, 3), (7, 5))
    assert product(F32, F32).faults("fp32-product", tmp_path, turing) == [("product", "a product in FP32")]
    assert quantised(dequantise_x=False, dequantise_w=False).faults("fp32-product", tmp_path, turing)
    assert product(F16, F16).faults("fp32-product", tmp_path, turing) == []
    assert product(F32, F32).faults("fp32-product", tmp_path, T4) == []
    assert product(F32, F32).faults("fp32-product", tmp_path, Limits("tensorrt-rtx", (10, 3), (8, 6))) == []


def test_what_onnx_runtime_takes(tmp_path):
    assert unary(opset=24).faults("onnxruntime-opset", tmp_path, None) == [("graph", "opset 24")]
    assert unary(opset=23).faults("onnxruntime-opset", tmp_path, None) == []
    assert unary("Odd", domain="org.other").faults("onnxruntime-domain", tmp_path, None)
    assert unary("FastGelu", domain="com.microsoft").faults("onnxruntime-domain", tmp_path, None) == []


def test_what_onnx_runtime_loads(tmp_path):
    assert unary().faults("onnxruntime-loads", tmp_path) == []
    assert "GatherND" in gather_nd(I32).faults("onnxruntime-loads", tmp_path)[0][1]
    other = unary()
    other.io = GraphIO((IOTensor("ids", "float32", ("batch", 4)),), other.io.outputs)
    ((name, found),) = other.faults("onnxruntime-loads", tmp_path)
    assert name == "graph"
    assert "'x'" in found


def test_a_file_that_is_no_graph(tmp_path):
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"no graph at all")
    with pytest.raises(BundleError, match="expected an ONNX graph"):
        LintGraph(path, "graph", GraphIO((), ()))


def test_scales_in_a_file_of_their_own_are_read(tmp_path):
    path, model = tmp_path / "graph.onnx", quantised(w_scale=np.array([1, 2, 0, 1, 1, 1], F32))
    onnx.save(model.proto, path, save_as_external_data=True, location="graph.onnx.data", size_threshold=0)
    graph = LintGraph(path, "graph", model.io)
    assert list(RULES["qdq-positive-scale"].check(graph, JETSON)) == [("w/DQ", "a scale of 0.0")]
