"""Products that read one value as one product, and apart again: q, k and v of a self-attention, wi_0 and wi_1.

A decoder step multiplies one token by each weight: what that takes is to start each product and to read its weight.
Passes and patterns know the products by their own names, so graphs are merged when all else is done, and split when
they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.calibration.passes.edit import CONTENT, describe, initializer
from glimmer_export.runtime.contract import DECODER_PREFILL, DECODER_STEP

__all__ = ["DECODERS", "MergeProducts", "SplitProducts"]

DECODERS = frozenset({DECODER_PREFILL, DECODER_STEP})
"""The stages whose products are merged: elsewhere one reads many tokens, and a Split would copy what it wrote."""

JOIN = "+"
"""Between the names of the modules in the name of a merged one: `...SelfAttention.k+v+q/MatMul`."""
TOGETHER = (frozenset("qkv"), frozenset({"wi_0", "wi_1"}))
PRODUCT, WEIGHT = "/MatMul", ".weight"


@dataclass(frozen=True)
class _Product:
    """`node` multiplies by a constant of two dimensions; `scaled` multiplies the result by its tokens' scales.

    `parent` and `leaf` are its module's name, `parts` the constants of the weight: itself, or its codes and scales;
    `weight` is what the node reads of them.
    """

    node: ir.Node
    parent: str
    leaf: str
    weight: ir.Value
    parts: tuple[ir.Value, ...]
    scaled: ir.Node | None

    @property
    def output(self) -> ir.Value:
        """What others read."""
        return (self.scaled or self.node).outputs[0]

    @property
    def key(self) -> tuple[object, ...]:
        """What products that are merged have in common."""
        kind = next(kind for kind in TOGETHER if self.leaf in kind)
        suffixes = tuple(self._suffix(str(value.name)) for value in self.parts)
        scale = None if self.scaled is None else self.scaled.inputs[1]
        dtypes = tuple(value.dtype for value in self.parts)
        return self.parent, kind, self.node.inputs[0], suffixes, dtypes, scale

    def named(self, leaf: str, item: ir.Value | ir.Node) -> str:
        """A name with another module's in place of this one's."""
        return f"{self.parent}.{leaf}{self._suffix(str(item.name))}"

    def _suffix(self, name: str) -> str:
        return name.removeprefix(f"{self.parent}.{self.leaf}")


class MergeProducts(InPlacePass):
    """Make one product, followed by a Split, of those of one module that read one value in one precision.

    Exact: every column keeps its weights, in INT8 its codes and its scale. The products stand in the order that they
    had. What multiplies each by the scales of its tokens is done once, too.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Merge wherever two or more are found."""
        groups: dict[tuple[object, ...], list[_Product]] = {}
        for node in model.graph:
            if (product := _product(node)) is not None and any(product.leaf in kind for kind in TOGETHER):
                groups.setdefault(product.key, []).append(product)
        merged = [products for products in groups.values() if len(products) > 1]
        for products in merged:
            _merge(model.graph, products)
        return PassResult(model, bool(merged))


class SplitProducts(InPlacePass):
    """Undo `MergeProducts`: the products have their names, weights and values again. Other graphs are left alone."""

    def call(self, model: ir.Model) -> PassResult:
        """Split wherever a merged product's name says what it was made of."""
        merged = [
            product for node in model.graph
            if (product := _product(node)) is not None and JOIN in product.leaf and _split_behind(product) is not None
        ]
        for product in merged:
            _split(model.graph, product)
        return PassResult(model, bool(merged))


def _product(node: ir.Node) -> _Product | None:
    name, weight = str(node.name), node.inputs[1] if node.op_type == "MatMul" else None
    if weight is None or not name.endswith(PRODUCT):
        return None
    parent, _, leaf = name.removesuffix(PRODUCT).rpartition(".")
    dequantize = weight.producer()
    parts = (weight,) if dequantize is None else tuple(value for value in dequantize.inputs if value is not None)
    if dequantize is not None and (
        dequantize.op_type != "DequantizeLinear" or len(parts) != 2 or dequantize.attributes.get_int("axis", 1) != 1
    ):
        return None
    for value, rank in zip(parts, (2, 1), strict=False):
        known = value.is_initializer() and value.const_value is not None and len(value.const_value.shape) == rank
        if not known or len(value.uses()) != 1 or not str(value.name).startswith(f"{parent}.{leaf}{WEIGHT}"):
            return None
    if len(weight.uses()) != 1:
        return None
    return _Product(node, parent, leaf, weight, parts, _scaled(node))


def _scaled(node: ir.Node) -> ir.Node | None:
    """The product with each token's scale (`ScaleTokens`), if that alone reads a node's output."""
    uses = node.outputs[0].uses()
    if len(uses) != 1 or node.outputs[0].is_graph_output():
        return None
    (use,) = uses
    return use.node if use.node.name == f"{node.name}/Mul" and use.idx == 0 else None


def _merge(graph: ir.Graph, products: Sequence[_Product]) -> None:
    first = products[0]
    leaf = JOIN.join(product.leaf for product in products)
    parts = [_joined([product.parts[place] for product in products]) for place in range(len(first.parts))]
    sizes = [_width(product.parts[0]) for product in products]
    made = _made(graph, first, leaf, parts, sum(sizes))
    describe(made[-1].outputs[0], f"{first.parent}.{leaf}", first.output)
    _resize(made[-1].outputs[0], sum(sizes))
    split_sizes = initializer(graph, f"split.{'.'.join(map(str, sizes))}", np.array(sizes, np.int64))
    split = ir.node(
        "Split", [made[-1].outputs[0], split_sizes], {"axis": -1}, num_outputs=len(products),
        name=f"{first.parent}.{leaf}/Split",
    )
    graph.insert_before(first.node, [*made, split])
    for product, output in zip(products, split.outputs, strict=True):
        _take_over(output, product.output)
        _remove(graph, product)


def _split(graph: ir.Graph, merged: _Product) -> None:
    split = _split_behind(merged)
    assert split is not None
    leaves, end = merged.leaf.split(JOIN), 0
    for leaf, width, output in zip(leaves, _sizes(split), split.outputs, strict=True):
        start, end = end, end + width
        parts = [_columns(value, start, end) for value in merged.parts]
        made = _made(graph, merged, leaf, parts, width, str(output.name))
        graph.insert_before(split, made)
        _take_over(made[-1].outputs[0], output)
    sizes = split.inputs[1]
    graph.remove(split, safe=True)
    _remove(graph, merged)
    if sizes is not None and not sizes.uses():
        del graph.initializers[str(sizes.name)]


def _made(
    graph: ir.Graph, like: _Product, leaf: str, parts: Sequence[NDArray[Any] | ir.LazyTensor], width: int,
    output: str | None = None,
) -> list[ir.Node]:
    """The nodes of a product that is like another, with so many columns; `output` is the name of what it writes."""
    constants = [
        initializer(graph, like.named(leaf, value), content) for value, content in zip(like.parts, parts, strict=True)
    ]
    weight, made = constants[0], []
    if (dequantize := like.weight.producer()) is not None:
        made.append(ir.node("DequantizeLinear", constants, {"axis": 1}, name=like.named(leaf, dequantize)))
        weight = made[-1].outputs[0]
        describe(weight, like.named(leaf, like.weight), like.weight)
        _resize(weight, width)
    module = f"{like.parent}.{leaf}"
    made.append(ir.node("MatMul", [like.node.inputs[0], weight], name=f"{module}{PRODUCT}"))
    if like.scaled is not None:
        product = made[-1].outputs[0]
        describe(product, f"{output or module}/unit", like.node.outputs[0])
        _resize(product, width)
        made.append(ir.node("Mul", [product, like.scaled.inputs[1]], name=f"{module}{PRODUCT}/Mul"))
    return made


def _split_behind(product: _Product) -> ir.Node | None:
    """The Split that takes a merged product apart, if it is as its name says; a graph may come from anywhere."""
    name, leaves = f"{product.parent}.{product.leaf}/Split", product.leaf.split(JOIN)
    for node in product.output.consumers():
        sizes = node.inputs[1] if len(node.inputs) > 1 else None
        if node.op_type != "Split" or node.name != name or sizes is None or sizes.const_value is None:
            continue
        if node.attributes.get_int("axis", 0) != -1:
            continue
        matches = len(node.outputs) == len(leaves) == sizes.const_value.size == len(set(leaves))
        if matches and min(_sizes(node)) > 0 and sum(_sizes(node)) == _width(product.parts[0]):
            return node
    return None


def _remove(graph: ir.Graph, product: _Product) -> None:
    """Remove nodes whose results nobody reads any more, and their constants."""
    dequantize = product.weight.producer()
    for node in (product.scaled, product.node, dequantize):
        if node is not None:
            graph.remove(node, safe=True)
    for value in product.parts:
        del graph.initializers[str(value.name)]


def _take_over(new: ir.Value, old: ir.Value) -> None:
    describe(new, old.name, old)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    old.name = None


def _resize(value: ir.Value, width: int) -> None:
    """Give the last axis of a value's shape another size."""
    if value.shape is not None:
        value.shape = ir.Shape([*value.shape[:-1], width])


def _width(value: ir.Value) -> int:
    assert value.const_value is not None
    return int(value.const_value.shape.numpy()[-1])


def _sizes(split: ir.Node) -> list[int]:
    sizes = split.inputs[1]
    assert sizes is not None
    assert sizes.const_value is not None
    return [int(size) for size in sizes.const_value.numpy().reshape(-1)]


def _joined(parts: Sequence[ir.Value]) -> NDArray[Any] | ir.LazyTensor:
    """Constants beside each other along their last axis; what is made when it is asked for stays so."""
    tensors = [value.const_value for value in parts if value.const_value is not None]

    def join() -> NDArray[Any]:
        return np.concatenate([tensor.numpy() for tensor in tensors], axis=-1)

    if not any(isinstance(tensor, ir.LazyTensor) for tensor in tensors):
        return join()
    rows = tensors[0].shape.numpy()[:-1]
    shape = ir.Shape([*rows, sum(_width(value) for value in parts)])
    lazy = ir.LazyTensor(lambda: ir.tensor(join()), tensors[0].dtype, shape)
    contents = tuple(tensor.meta.get(CONTENT) if isinstance(tensor, ir.LazyTensor) else None for tensor in tensors)
    if None not in contents:
        lazy.meta[CONTENT] = contents
    return lazy


def _columns(value: ir.Value, start: int, end: int) -> NDArray[Any]:
    """A view of some columns of a constant: nothing is read before it is asked for."""
    assert value.const_value is not None
    columns: NDArray[Any] = value.const_value.numpy()[..., start:end]
    return columns
