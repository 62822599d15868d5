"""Products whose weights have few bits and whose activations are float: how a manifest states them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from glimmer_export.runtime.contract.errors import BundleError

__all__ = [
    "ACCURACY_LEVELS", "BLOCK_DOMAIN", "BLOCK_OPERATOR", "BLOCK_SIZE", "WEIGHT_ALGORITHMS", "WEIGHT_BITS",
    "WeightOnlyEntry", "check_weight_only", "weight_bits_of",
]  # fmt: skip

WEIGHT_BITS = {"int4": 4, "int8": 8}
"""By what the command line calls them."""
BLOCK_OPERATOR, BLOCK_DOMAIN, BLOCK_SIZE = "MatMulNBits", "com.microsoft", 32
"""ONNX Runtime's product with such weights, and how many of a column share a scale: few enough for 4 bits."""
ACCURACY_LEVELS = (4, 1)
"""Of MatMulNBits: multiplied in INT8, each block of the activations being rounded to it first, or in FP32."""
WEIGHT_ALGORITHMS = ("k-quant", "gptq", "rtn")
"""The least weighted square error of a block, the least error of the product on real inputs, round to nearest."""


@dataclass(frozen=True)
class WeightOnlyEntry:
    """Which graphs have products with weights of few bits and float activations (MatMulNBits), and how.

    `bits` 4 or 8, in blocks of `block_size` along what is multiplied; `accuracy_level` is the operator's (1 multiplies
    in FP32, 4 in INT8), `algorithm` one of WEIGHT_ALGORITHMS; `eight_bit`, of 4 bits, are the products that have 8
    instead, as regular expressions on graph/node.
    """

    graphs: tuple[str, ...]
    bits: int
    block_size: int
    accuracy_level: int
    algorithm: str
    eight_bit: tuple[str, ...]


def weight_bits_of(precision: str) -> int | None:
    """The bits of the weights of a graph of this precision; None if they are not set apart from its arithmetic."""
    return {"w4": 4, "w8": 8}.get(precision.rsplit("-", maxsplit=1)[-1])


def check_weight_only(
    entry: WeightOnlyEntry | None, precisions: Mapping[str, str], target: str | None, *, subject: str, fix: str
) -> None:
    """Raise BundleError for what no writer gives, and unless `entry` names the graphs whose precision says so.

    `precisions` are those of all graphs, by name; `target` is that of the quantisation, None if there was none.
    """
    having = {name: bits for name, precision in precisions.items() if (bits := weight_bits_of(precision)) is not None}
    stated = {} if entry is None else dict.fromkeys(entry.graphs, entry.bits)
    if having != stated:
        raise BundleError(subject, expected=_graphs(having), found=_graphs(stated), fix=fix)
    if entry is None:
        return
    for name, allowed in (
        ("bits", tuple(WEIGHT_BITS.values())), ("block_size", (BLOCK_SIZE,)), ("accuracy_level", ACCURACY_LEVELS),
        ("algorithm", WEIGHT_ALGORITHMS),
    ):
        if (value := getattr(entry, name)) not in allowed:
            known = ", ".join(map(str, allowed))
            raise BundleError(f"{subject}, {name}", expected=f"one of {known}", found=str(value)[:80], fix=fix)
    if not having or target != "cpu":
        found = "no graph" if not having else f"graphs for {target}"
        raise BundleError(subject, expected="graphs for the target cpu, or null", found=found, fix=fix)


def _graphs(bits: Mapping[str, int]) -> str:
    """Graphs and their bits, as the precisions of their entries must have them."""
    return ", ".join(f"{name} of {count} bits"[:80] for name, count in bits.items()) or "no graph"
