"""Which products are worth INT8 on a GPU: those whose weights save more time than their Q/DQ costs in kernels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["COPIES", "Gpu", "Unworthy", "asks_given_keys", "not_worth"]

ADDED_KERNELS = 1
"""Of the products that read one value, together: their codes are made in a kernel of its own, as TensorRT-RTX 1.7 lists
a decoder step at batch 1 (docs/measurements/kernels.md)."""


COPIES = "not INT8, as TensorRT-RTX would copy the keys and values that they ask, at every run"
"""Of the products of `asks_given_keys`, in a report."""


@dataclass(frozen=True)
class Gpu:
    """A machine: bytes that it reads in a second, and microseconds that a kernel takes beside its work."""

    name: str
    memory_bandwidth_gb_per_s: float
    kernel_us: float

    def saved_us(self, num_bytes: int) -> float:
        """Microseconds that it needs to read so much."""
        return num_bytes / (self.memory_bandwidth_gb_per_s * 1e3)

    def gain(self, num_bytes: int) -> float:
        """How many times what Q/DQ costs is saved where so much less is read."""
        return self.saved_us(num_bytes) / (ADDED_KERNELS * self.kernel_us)


@dataclass(frozen=True)
class Unworthy:
    """Products that stay as they are: their names, and what INT8 would save of the largest of them."""

    names: tuple[str, ...]
    most_bytes: int

    def note(self, gpus: Sequence[Gpu]) -> str:
        """Why, by the machine on which it would pay most."""
        gpu = max(gpus, key=lambda each: each.gain(self.most_bytes))
        return (
            f"{len(self.names)} products: not INT8, as the largest that read one value would save "
            f"{self.most_bytes / 1e6:.2f} MB of weights a run, {gpu.saved_us(self.most_bytes):.2f} us on {gpu.name}, "
            f"where the kernel that Q/DQ adds takes {ADDED_KERNELS * gpu.kernel_us:g} us"
        )


def not_worth(graph: ir.Graph, names: Collection[str], gpus: Sequence[Gpu], saved_bytes: int) -> Unworthy | None:
    """The products among `names` that INT8 would speed up on none of the machines; None if there are none.

    `saved_bytes` are those of one weight. Products that read one value share its codes, so they are judged together. A
    run reads every weight once, whatever its batch: the rule is for graphs of few rows, which wait for their weights.
    """
    from glimmer_export.calibration.linear import constant, find_linears

    readers: dict[ir.Value, list[tuple[str, int]]] = {}
    for linear in find_linears(graph):
        if linear.name in names:
            readers.setdefault(linear.x, []).append((linear.name, constant(linear.weight).size * saved_bytes))
    left: list[str] = []
    most = 0
    for products in readers.values():
        num_bytes = sum(size for _, size in products)
        if all(gpu.gain(num_bytes) <= 1 for gpu in gpus):
            left += [name for name, _ in products]
            most = max(most, num_bytes)
    return Unworthy(tuple(left), most) if left else None


def asks_given_keys(graph: ir.Graph, names: Collection[str]) -> tuple[str, ...]:
    """The products among `names` that make queries of keys which the graph is given: cached cross-attention's.

    TensorRT-RTX 1.7 attends to given keys and values where they lie if the query comes of an FP16 product. If it comes
    of an INT8 one, it copies both first: more bytes than INT8 saves in all (docs/measurements/kernels.md).
    """
    from glimmer_export.calibration.linear import find_linears

    products: dict[ir.Value | None, str] = {
        linear.output: linear.name for linear in find_linears(graph) if linear.name in names
    }
    found = []
    for node in graph:
        keys = _origin(node.inputs[1], "Transpose") if node.op_type == "MatMul" else None
        if keys is not None and keys in graph.inputs and str(keys.name).endswith(".key"):  # not absorbed states
            name = products.get(_origin(node.inputs[0], "Reshape", "Transpose"))
            found += [] if name is None else [name]
    return tuple(found)


def _origin(value: ir.Value | None, *passed: str) -> ir.Value | None:
    """If a value comes from, before nodes of these kinds."""
    while value is not None and (node := value.producer()) is not None and node.op_type in passed:
        value = node.inputs[0]
    return value
