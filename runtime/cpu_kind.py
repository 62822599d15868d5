"""Which of the kinds of CPU that INT8 graphs are made for this machine has, and what it computes BF16 with."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["bf16_instructions", "cpu_flags", "cpu_kind"]

CPUINFO = Path("/proc/cpuinfo")
ARM = ("aarch64", "arm64")
VNNI = frozenset({"avx512_vnni", "avx_vnni", "avx512vnni"})
BF16 = ("amx_bf16", "avx512_bf16", "bf16")
"""Instructions for BF16, the widest first: they differ in how they round and in what they flush to zero."""


def cpu_kind() -> str:
    """`x86-vnni`, `x86` or `arm`; an x86 machine that does not list its instructions counts as one without VNNI."""
    if platform.machine().lower() in ARM:
        return "arm"
    return "x86-vnni" if VNNI & cpu_flags() else "x86"


def bf16_instructions() -> str:
    """What this CPU has for BF16, the widest; `none` if that is nothing or not listed."""
    flags = cpu_flags()
    return next((name for name in BF16 if name in flags), "none")


def cpu_flags() -> set[str]:
    """Instructions as Linux lists them of the first processor; none where they are not listed."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith(("flags", "Features"))), "").split())
