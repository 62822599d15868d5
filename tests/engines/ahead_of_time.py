"""TensorRT-RTX on a machine without a GPU: one compiler for all the capabilities that the targets stand for."""

from __future__ import annotations

import tensorrt_rtx

from glimmer_export.exporter.engines.compiler import Compiler
from glimmer_export.runtime.contract import EngineKey

__all__ = ["CAPABILITIES", "compiler"]

CAPABILITIES = ("SM75", "SM80", "SM86")


def compiler(*capabilities: str) -> Compiler:
    """Builds one engine for all of these; its key is of no account."""
    key = EngineKey("tensorrt_rtx", tensorrt_rtx.__version__, "7.5", None)
    return Compiler(tensorrt_rtx, key, stand_in=False, capabilities=capabilities, workspace_bytes=4 << 30)
