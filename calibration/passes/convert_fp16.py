"""FP32 graph -> strongly typed FP16 graph: products in half precision, the residual stream and RMSNorm in single."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.calibration.fp16_limits import FP16_MAX, MASKED
from glimmer_export.calibration.passes.columns_as_sums import ColumnsAsSums
from glimmer_export.calibration.passes.edit import CONTENT, infer_missing_types, initializer
from glimmer_export.calibration.passes.fp16_plan import ROLES, Fp16Plan, plan_fp16
from glimmer_export.calibration.passes.operators import constant, is_float
from glimmer_export.calibration.tracked import TrackedRanges
from glimmer_export.runtime.contract import CalibrationError

__all__ = ["ConvertFp16"]

HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT


class ConvertFp16(InPlacePass):
    """Give every node of a graph one float type, with a Cast where a value crosses; see `plan_fp16` for the rules.

    The graph's inputs and outputs keep their dtypes, but for those named in `fp16_io`, which become FP16. A value is
    cast once for all its readers, and nothing is cast back and forth. The score head is computed in FP32
    (`ColumnsAsSums`). Weights that FP16 products read become FP16. A mask's FP32 lowest number becomes MASKED where it
    is read in FP16. Q/DQ nodes take the dtype of what stands at them, their scales too.

    `ranges` are those of the graph as it now is; without them nothing is kept in FP32 for its size. `keep_fp32` are
    the roles of `fp16_plan.ROLES` that stay in FP32; with none the result is the naive FP16 graph. `keep` names
    products that do. After the call, `kept_fp32` lists what the ranges kept in FP32 and why.
    """

    def __init__(
        self, ranges: TrackedRanges | None = None, *, keep_fp32: frozenset[str] = ROLES, keep: Collection[str] = (),
        fp16_io: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.keep = keep
        self.fp16_io = fp16_io
        self.ranges = ranges
        self.keep_fp32 = keep_fp32
        self.kept_fp32: list[str] = []

    def call(self, model: ir.Model) -> PassResult:
        """Convert; raises CalibrationError for a constant beyond FP16, ValueError for a scale that FP16 rounds."""
        infer_missing_types(model)
        if "outside" in self.keep_fp32:
            ColumnsAsSums()(model)
        for value in model.graph.inputs:
            if value.name in self.fp16_io:
                value.dtype = HALF
        plan = plan_fp16(model.graph, self.ranges, self.keep_fp32, self.keep, self.fp16_io)
        self.kept_fp32 = plan.kept
        _Rewriter(model.graph, plan, self.fp16_io).rewrite()
        return PassResult(model, modified=True)


class _Rewriter:
    def __init__(self, graph: ir.Graph, plan: Fp16Plan, fp16_io: Collection[str]) -> None:
        self._graph = graph
        self._plan = plan
        self._fp16_io = fp16_io
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._dtypes: dict[ir.Value, ir.DataType] = {}

    def rewrite(self) -> None:
        nodes = list(self._graph)
        for node in nodes:
            for value in node.outputs:
                if is_float(value) and node in self._plan.half:
                    value.dtype = HALF
        self._cast_outputs()
        for node in nodes:
            self._rewire(node)
        self._drop_unused()

    def _rewire(self, node: ir.Node) -> None:
        """Give a node its inputs in the dtype that it computes in."""
        if node.op_type in {"Cast", "Shape"}:
            return
        dtype = HALF if node in self._plan.half else SINGLE
        first = 0
        if node.op_type == "QuantizeLinear":
            source = node.inputs[0]
            dtype, first = (source.dtype if source is not None else None) or SINGLE, 1
        for place, value in enumerate(node.inputs[first:], start=first):
            if is_float(value) and value is not None:
                exact = node.op_type in {"QuantizeLinear", "DequantizeLinear"}
                node.replace_input_with(place, self._value_in(value, dtype, exact=exact))

    def _value_in(self, value: ir.Value, dtype: ir.DataType, *, exact: bool = False) -> ir.Value:
        """The same value in another dtype: a converted constant, a copy of its node, or a Cast."""
        if constant(value) is not None:
            return self._constant_in(value, dtype, exact=exact)
        if value.dtype == dtype:
            return value
        if (value, dtype) not in self._made:
            self._made[value, dtype] = self._made_in(value, dtype)
        return self._made[value, dtype]

    def _made_in(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        node = value.producer()
        source = node.inputs[0] if node is not None and node.op_type == "Cast" else None
        if source is not None and source.dtype == dtype:
            return source
        if node is not None and node in self._plan.free and node.op_type == "Where" and dtype == HALF:
            return self._copied(node, value)
        return self._cast(value, dtype)

    def _copied(self, node: ir.Node, value: ir.Value) -> ir.Value:
        """A mask that is read in both precisions is filled twice: FP32's lowest number cast to FP16 is infinite."""
        output = ir.Value(name=f"{value.name}.fp16", shape=value.shape, type=ir.TensorType(HALF))
        copy = ir.Node("", node.op_type, node.inputs, list(node.attributes.values()), outputs=[output],
                       name=f"{node.name}.fp16")
        self._graph.insert_after(node, copy)
        self._plan.half.add(copy)
        self._rewire(copy)
        return output

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        suffix = "fp16" if dtype == HALF else "fp32"
        output = ir.Value(name=f"{value.name}.{suffix}", shape=value.shape, type=ir.TensorType(dtype))
        node = value.producer()
        cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], outputs=[output],
                       name=f"{value.name}/Cast.{suffix}")
        if node is None:
            self._graph.insert_before(next(iter(self._graph)), cast)
        else:
            self._graph.insert_after(node, cast)
        return output

    def _constant_in(self, value: ir.Value, dtype: ir.DataType, *, exact: bool) -> ir.Value:
        tensor = value.const_value
        if tensor is None or tensor.dtype == dtype:
            return value
        if (value, dtype) not in self._made:
            name = str(value.name)
            content: np.ndarray | ir.LazyTensor
            if dtype == SINGLE:
                content = tensor.numpy().astype(np.float32)
            elif isinstance(tensor, ir.LazyTensor):
                content = _lazy_half(tensor, name)
            else:
                content = _half(tensor.numpy(), name, exact=exact)
            name = f"{name}.{'fp16' if dtype == HALF else 'fp32'}"
            self._made[value, dtype] = initializer(self._graph, name, content)
        return self._made[value, dtype]

    def _cast_outputs(self) -> None:
        """Outputs are FP32 or FP16 as asked: the Cast takes the output's name, what it casts the name with `.fp16`."""
        for place, value in enumerate(self._graph.outputs):
            name = str(value.name)
            wanted = HALF if name in self._fp16_io else SINGLE
            if is_float(value) and value.dtype != wanted:
                cast = self._cast(value, wanted)
                value.name, cast.name = f"{name}.{'fp32' if wanted == HALF else 'fp16'}", name
                self._graph.outputs[place] = cast
                self._made[value, wanted] = cast

    def _drop_unused(self) -> None:
        """Remove what only the FP32 graph read; an FP16 weight takes its name over."""
        for node in reversed(list(self._graph)):
            if all(not value.uses() and not value.is_graph_output() for value in node.outputs):
                self._graph.remove(node, safe=True)
        initializers = self._graph.initializers
        for name in [name for name, value in initializers.items() if not value.uses()]:
            del initializers[name]
        for value in list(initializers.values()):
            name = str(value.name)
            plain = name.removesuffix(".fp16")
            if plain != name and plain not in initializers:
                del initializers[name]
                value.name = plain
                if value.const_value is not None:
                    value.const_value.name = plain
                initializers[plain] = value


def _lazy_half(tensor: ir.LazyTensor, name: str) -> ir.LazyTensor:
    """The same, made when it is asked for."""

    def convert() -> ir.TensorProtocol:
        return ir.tensor(_half(tensor.numpy(), name, exact=False), name=name)

    lazy = ir.LazyTensor(convert, HALF, tensor.shape, name=f"{name}.fp16")
    lazy.meta[CONTENT] = (tensor.meta.get(CONTENT, id(tensor)), "fp16")
    return lazy


def _half(array: np.ndarray, name: str, *, exact: bool) -> np.ndarray:
    """A constant in FP16, the mask's number replaced; raises where one overflows or, if `exact`, rounds."""
    array = np.where(array == np.finfo(np.float32).min, np.float32(MASKED), array)
    if (np.isfinite(array) & (np.abs(array) > FP16_MAX)).any():
        raise CalibrationError(
            f"constant {name}", expected=f"at most {FP16_MAX:.0f}, FP16's largest number",
            found=f"{np.abs(array).max():.4g}", fix="keep the products that read it in FP32: --precision fp16 --keep",
        )
    converted = array.astype(np.float16)
    if exact and (converted.astype(np.float32) != array).any():
        raise ValueError(f"the scale {name} is no FP16 number")
    return converted
