"""Nodes that are quantised or left in float together: a graph's products by layer and kind."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from glimmer_export.calibration.linear import constant, find_linears
from glimmer_export.calibration.passes.quantize_embedding import find_lookups

__all__ = ["Group", "find_groups"]

JOINED = {"q": ("qkv", "[qkv]"), "k": ("qkv", "[qkv]"), "v": ("qkv", "[qkv]"), "wi": ("wi", r"wi(_\d)?")}
"""Modules that read one value and go together: their kind, and the expression for all of them."""


@dataclass(frozen=True)
class Group:
    """`nodes` of one graph, and `pattern`, which finds these among all `graph/node` and no others.

    `kind` is `qkv`, `o`, `wi` or `wo` inside a block, `embedding` for a table of rows, `unnamed` for a product
    without a module, else the module's own name: `lm_head`, `score`. `weights` counts elements.
    """

    graph: str
    kind: str
    pattern: str
    nodes: tuple[str, ...]
    weights: int


def find_groups(graph: ir.Graph, name: str, *, embeddings: bool) -> list[Group]:
    """The groups of an exported graph whose weights are folded, in its order; every product is in one.

    `embeddings`: with the tables of rows, each a group.
    """
    lookups = find_lookups(graph)
    tables = {_module(str(node.name)) for node in lookups}
    found: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for node in lookups if embeddings else ():
        table = node.inputs[0]
        assert table is not None
        key = ("embedding", f"{re.escape(_module(str(node.name)))}/Gather")
        found.setdefault(key, []).append((str(node.name), constant(table).size))
    for linear in find_linears(graph):
        found.setdefault(_kind(linear.name, tables), []).append((linear.name, constant(linear.weight).size))
    return [
        Group(
            name, kind, f"^{re.escape(name)}/{expression}", tuple(node for node, _ in nodes),
            sum(size for _, size in nodes),
        )
        for (kind, expression), nodes in found.items()
    ]


def _module(node: str) -> str:
    return node.rpartition("/")[0]


def _kind(node: str, tables: Collection[str]) -> tuple[str, str]:
    """The kind of a product, and the expression for those that go with it."""
    module = _module(node)
    if not module:  # the tracer had no name for it, and its weight none either
        return "unnamed", f"{re.escape(node)}$"
    if module in tables:  # tied: the table is the vocabulary projection too
        return "lm_head", f"{re.escape(module)}/MatMul"
    parent, dot, leaf = module.rpartition(".")
    kind, expression = JOINED.get("wi" if leaf.startswith("wi") else leaf, (leaf, re.escape(leaf)))
    return kind, f"{re.escape(parent + dot)}{expression}/"
