"""Nodes that are quantised or left in float together: a graph's products by layer and kind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from calibration.linear import constant, find_linears
from calibration.passes.quantize_embedding import find_lookups

__all__ = ["Group", "find_groups"]

JOINED = {"q": ("qkv", "[qkv]"), "k": ("qkv", "[qkv]"), "v": ("qkv", "[qkv]"), "wi": ("wi", r"wi(_\d)?")}
"""Modules that read one value and go together: their kind, and the expression for all of them."""


@dataclass(frozen=True)
class Group:
    """`nodes` of one graph, and `pattern`, which finds these among all `graph/node` and no others.

    `kind` is `qkv`, `o`, `wi` or `wo` inside a block, `embedding` for a table of rows, else the module's own name:
    `lm_head`, `score`. `weights` counts elements.
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
    found: dict[tuple[str, str], list[tuple[str, int]]] = {}
    if embeddings:
        for node in find_lookups(graph):
            table = node.inputs[0]
            assert table is not None
            key = ("embedding", re.escape(_module(str(node.name))))
            found.setdefault(key, []).append((str(node.name), constant(table).size))
    for linear in find_linears(graph):
        found.setdefault(_kind(_module(linear.name)), []).append((linear.name, constant(linear.weight).size))
    return [_group(name, kind, module, nodes) for (kind, module), nodes in found.items()]


def _group(graph: str, kind: str, module: str, nodes: Sequence[tuple[str, int]]) -> Group:
    return Group(
        graph, kind, f"^{re.escape(graph)}/{module}/", tuple(node for node, _ in nodes), sum(size for _, size in nodes)
    )


def _module(node: str) -> str:
    return node.rpartition("/")[0] or node


def _kind(module: str) -> tuple[str, str]:
    """The kind of a module's product, and the expression for the modules that go with it."""
    parent, dot, leaf = module.rpartition(".")
    kind, expression = JOINED.get("wi" if leaf.startswith("wi") else leaf, (leaf, re.escape(leaf)))
    return kind, re.escape(parent + dot) + expression
