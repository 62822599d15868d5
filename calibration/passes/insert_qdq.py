"""Surround products with QuantizeLinear and DequantizeLinear: INT8 that every runtime reads off the graph."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.calibration.linear import Linear, constant, find_linears
from glimmer_export.calibration.passes.edit import describe, initializer
from glimmer_export.calibration.scheme import Scheme

__all__ = ["InsertQDQ"]

Bounds = Callable[[str], tuple[float, float]]


class InsertQDQ(InPlacePass):
    """Quantise the named products: their weight, a channel at a time, and what they read, as a whole.

    A weight becomes an INT8 initializer behind a DequantizeLinear: per column, or one scale for all if each head has
    a weight of its own. Products that read one value share its pair. `bounds(name)` gives a value's lower and upper
    end.
    """

    def __init__(self, bounds: Bounds, scheme: Scheme, names: Collection[str]) -> None:
        super().__init__()
        self.bounds, self.scheme, self.names = bounds, scheme, names

    def call(self, model: ir.Model) -> PassResult:
        """Insert; nothing is changed if no product of that name is left."""
        graph = model.graph
        pairs: dict[ir.Value, ir.Value] = {}
        linears = [linear for linear in find_linears(graph) if linear.name in self.names]
        for linear in linears:
            if linear.x not in pairs:
                pairs[linear.x] = self._activation(graph, linear)
            linear.node.replace_input_with(0, pairs[linear.x])
            linear.node.replace_input_with(1, self._weight(graph, linear))
        return PassResult(model, bool(linears))

    def _activation(self, graph: ir.Graph, linear: Linear) -> ir.Value:
        name = str(linear.x.name)
        scale, zero_point = activation_scale(*self.bounds(name), self.scheme)
        inputs = [initializer(graph, f"{name}/scale", scale), initializer(graph, f"{name}/zero_point", zero_point)]
        quantize = ir.node("QuantizeLinear", [linear.x, *inputs], name=f"{name}/QuantizeLinear")
        codes = quantize.outputs[0]
        codes.name, codes.shape = f"{name}/codes", linear.x.shape
        codes.dtype = ir.DataType.from_numpy(zero_point.dtype)
        dequantize = ir.node("DequantizeLinear", [codes, *inputs], name=f"{name}/DequantizeLinear")
        describe(dequantize.outputs[0], f"{name}/dequantized", linear.x)
        graph.insert_before(linear.node, [quantize, dequantize])
        return dequantize.outputs[0]

    def _weight(self, graph: ir.Graph, linear: Linear) -> ir.Value:
        name = str(linear.weight.name)
        weight = constant(linear.weight)
        codes, scale = quantize_weight(weight, None if linear.by_head else 1, self.scheme)
        stored = initializer(graph, f"{name}.codes", codes)
        inputs = [stored, initializer(graph, f"{name}.scale", scale)]
        axis = {} if linear.by_head else {"axis": 1}
        dequantize = ir.node("DequantizeLinear", inputs, axis, name=f"{name}/DequantizeLinear")
        describe(dequantize.outputs[0], f"{name}/dequantized", linear.weight)
        graph.insert_before(linear.node, dequantize)
        if len(linear.weight.uses()) == 1:
            del graph.initializers[name]
        return dequantize.outputs[0]


def activation_scale(low: float, high: float, scheme: Scheme) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
    """Scale and zero point, scalars, of values between two ends; zero is always among the codes."""
    low, high = min(low, 0.0), max(high, 0.0)
    if not scheme.unsigned:
        return representable(np.float32(max(-low, high) / 127), scheme), np.array(0, np.int8)
    scale = representable(np.float32((high - low) / 255), scheme)
    return scale, np.array(np.clip(np.rint(-low / scale), 0, 255), np.uint8)


def quantize_weight(
    weight: NDArray[np.float32], axis: int | None, scheme: Scheme
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric codes of a weight and its scales: (channels,) along `axis`, or a scalar if it is None."""
    others = None if axis is None else tuple(index for index in range(weight.ndim) if index != axis)
    amax = np.abs(weight).max(axis=others)
    scale = representable((amax / scheme.weight_levels).astype(np.float32), scheme)
    along = scale if axis is None else np.expand_dims(scale, others or ())
    codes = np.clip(np.rint(weight / along), -scheme.weight_levels, scheme.weight_levels)
    return codes.astype(np.int8), scale


def representable(scale: NDArray[np.float32] | np.float32, scheme: Scheme) -> NDArray[np.float32]:
    """The scale as the target holds it, positive, and never smaller than asked where float16 has the range for it."""
    scale = np.asarray(scale, np.float32)
    if scheme.half_scales:
        half = scale.astype(np.float16)
        scale = np.where(half < scale, np.nextafter(half, np.float16(np.inf)), half).astype(np.float32)
    smallest = np.finfo(np.float16).smallest_subnormal if scheme.half_scales else np.finfo(np.float32).tiny
    return np.asarray(np.maximum(scale, np.float32(smallest)), np.float32)
