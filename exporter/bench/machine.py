"""Where a bench ran."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glimmer_export.runtime.backends.threads import allowed_cpus
from glimmer_export.runtime.cpu_kind import cpu_flags

__all__ = ["cpu_label", "describe_machine", "load_average", "threads_label"]

CPUINFO = Path("/proc/cpuinfo")
INSTRUCTIONS = (
    "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "amx_fp16",
    "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
"""Those that a matrix product is many times faster with, in FP32, INT8 or BF16; of x86, then of ARM."""
NUMBERS = ("cpu family", "model", "CPU implementer", "CPU part")
"""What /proc/cpuinfo says beside the name, which a hypervisor may cut short and ARM does not give."""


def describe_machine() -> dict[str, Any]:
    """CPU model and instructions, CPUs this process may use, memory in bytes, 1-minute load average."""
    return {
        **_cpu(),
        "cpus": len(allowed_cpus()),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average": load_average(),
    }


def load_average() -> float | None:
    """Of the last minute, processes that run or want to; None where the system keeps none."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def cpu_label(machine: Mapping[str, Any]) -> str:
    """What a table calls the CPU of `describe_machine`: its name, and what tells it from others of that name."""
    details = [machine.get("cpu_numbers", ""), ", ".join(machine.get("instructions", ()))]
    shown = "; ".join(detail for detail in details if detail)
    return f"{machine['cpu']} ({shown})" if shown else str(machine["cpu"])


def threads_label(threads: int, machine: Mapping[str, Any]) -> str:
    """What times were taken on: so many threads of that CPU."""
    return f"{threads} thread{'' if threads == 1 else 's'} of {cpu_label(machine)}"


def _cpu() -> dict[str, Any]:
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    flags = cpu_flags()
    numbers = (f"{name.removeprefix('cpu ').removeprefix('CPU ')} {found[name]}" for name in NUMBERS if name in found)
    return {
        "cpu": found.get("model name") or platform.processor() or platform.machine() or "unknown",
        "cpu_numbers": ", ".join(numbers),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
    }
