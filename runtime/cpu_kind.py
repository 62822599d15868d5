"""Which of the kinds of CPU that INT8 graphs are made for this machine has."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["cpu_kind"]

CPUINFO = Path("/proc/cpuinfo")
VNNI = frozenset({"avx512_vnni", "avx_vnni", "avx512vnni"})


def cpu_kind() -> str:
    """`x86-vnni`, `x86` or `arm`; an x86 machine that does not list its instructions counts as one without VNNI."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return "arm"
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "x86"
    flags = next((line for line in lines if line.startswith("flags")), "")
    return "x86-vnni" if VNNI & set(flags.split()) else "x86"
