"""What the rules hold a graph against: a compiler, its version and a GPU's compute capability."""

from __future__ import annotations

from dataclasses import dataclass

from glimmer_export.exporter.targets import TensorRTTarget

__all__ = ["COMPILERS", "Limits", "limits_of"]

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
