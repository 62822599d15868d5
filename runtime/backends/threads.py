"""How many threads run a graph if the caller does not say, and how they wait for work.

Measured in docs/measurements/threads.md. ONNX Runtime starts a thread a physical core of the machine, ties each to its
core and has it spin for work between two operators: on cores that others use too, what one thread waits for is then not
running, and the others burn its time. So there are no more threads than this process may use cores, they sleep after 20
microseconds without work, and a model whose operators are too short to be shared out has one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

__all__ = ["allowed_cpus", "available_cores", "num_threads", "sleep_soon"]

ONE_THREAD_BYTES = 32 << 20
"""Weights of a model that one thread runs about as fast as two: they lie in the core's caches."""
SPIN_MICROSECONDS = 20
"""As long as a thread takes to be woken; on busy cores it is all that is lost of each wait."""
SPINS_FOR_A_WHILE = (1, 26)
"""The first ONNX Runtime that takes a time to spin for: older ones spin for milliseconds, or not at all."""
_NUMBERS = re.compile(r"\d+")
CPU = Path("/sys/devices/system/cpu")
GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


def num_threads(threads: int | None, graph: Path) -> int:
    """How many threads run a graph file: so many, or for None as many as suit it."""
    if threads is not None:
        return threads
    return 1 if _weight_bytes(graph) <= ONE_THREAD_BYTES else available_cores()


def sleep_soon(options: Any, version: str) -> None:
    """Write into SessionOptions of an ONNX Runtime of that version, once, that threads without work soon sleep.

    A decoder step is a thousand short operators, and to be woken takes as long as many of them: at base size in INT8 it
    takes 12.7 ms if threads sleep at once, 10.1 if they look for work for SPIN_MICROSECONDS first.
    """
    spins = tuple(map(int, _NUMBERS.findall(version)[:2])) >= SPINS_FOR_A_WHILE
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spins else "0")
    if spins:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_MICROSECONDS))
    # Each graph has threads of its own. Those of the graph that ran last would else spin for work on the cores that
    # the next one needs, which doubled the time of the smaller graphs.
    options.add_session_config_entry("session.force_spinning_stop", "1")


def allowed_cpus() -> set[int]:
    """Numbers of the CPUs that this process may use; of all where the system has no affinity, as macOS."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def available_cores() -> int:
    """Physical cores that this process may use at once: those of its affinity, within its control groups' quota."""
    cores = {_siblings(cpu) for cpu in allowed_cpus()}
    return int(max(1, min(len(cores), _quota())))


def _weight_bytes(graph: Path) -> int:
    """The files of a graph's folder: weights lie beside the graphs, for all of them together."""
    return sum(file.stat().st_size for file in graph.parent.iterdir() if file.is_file())


def _siblings(cpu: int) -> str:
    """What names the core of a CPU: the CPUs that share it, or the CPU if the system does not say."""
    return _read(CPU / f"cpu{cpu}" / "topology" / "thread_siblings_list") or str(cpu)


def _quota() -> float:
    """CPUs that the control groups of this process allow, all above it too; no limit is infinite."""
    least = float("inf")
    for line in (_read(OWN_GROUP) or "").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = GROUPS / controllers if controllers else GROUPS
        group = root / path.lstrip("/")
        # In a container its own group is the root of what it sees, whatever the path says.
        for folder in {group, *group.parents, root}:
            if folder.is_relative_to(root):
                least = min(least, _quota_of(folder))
    return least


def _quota_of(folder: Path) -> float:
    if (limit := _read(folder / "cpu.max")) is not None:  # version 2: "max 100000", or a quota and its period
        quota, period = (*limit.split(), "", "")[:2]
    else:
        quota = _read(folder / "cpu.cfs_quota_us") or ""
        period = _read(folder / "cpu.cfs_period_us") or ""
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return float("inf")
    return int(quota) / int(period)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
