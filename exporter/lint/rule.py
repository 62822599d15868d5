"""A rule, what it holds a graph against (a compiler, its version, a GPU's compute capability), and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from glimmer_export.exporter.config.targets import TensorRTTarget
from glimmer_export.exporter.lint.graph import LintGraph

__all__ = ["COMPILERS", "Fault", "Finding", "Limits", "Rule", "limits_of"]

COMPILERS = ("tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class Limits:
    """`version` of TensorRT whose rules hold, major and minor; `capability` such as (7, 5)."""

    compiler: str
    version: tuple[int, int]
    capability: tuple[int, int]


def limits_of(target: TensorRTTarget, compiler: str) -> Limits:
    """The limits of a machine; TensorRT-RTX is held to the same TensorRT, so that either can take a graph."""
    rtx = compiler == "tensorrt-rtx"
    return Limits(
        compiler, _pair(target.version), _pair(target.rtx_capability if rtx else target.compute_capability)
    )


def _pair(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)


Fault = tuple[str, str]
"""The node (or tensor) that breaks a rule, and what it has instead."""


@dataclass(frozen=True)
class Rule:
    """`what` a graph must have, the document that says so, and how to mend it.

    `check(graph, limits)` yields what breaks it; the limits are None for a CPU.
    """

    id: str
    what: str
    source: str
    fix: str
    check: Callable[[LintGraph, Any], Iterable[Fault]]


@dataclass(frozen=True)
class Finding:
    """One place where a graph breaks a rule."""

    graph: str
    node: str
    rule: str
    source: str
    found: str
    fix: str
    text: str
    """All of it in one line."""

    @classmethod
    def of(cls, rule: Rule, graph: str, fault: Fault) -> Finding:
        """What a rule found in a graph."""
        node, found = fault
        text = f"{graph}/{node}: {rule.what}, found {found}; {rule.fix} [{rule.id}; {rule.source}]"
        return cls(graph, node, rule.id, rule.source, found, rule.fix, text)
