"""Peak resident memory of one contender: a process of its own opens it, answers two batches, and says how far it got.

Run as a module it is that process: a JSON object on stdin, the number of bytes on stdout.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glimmer_export.exporter.bench.contender import ContenderSpec
from glimmer_export.exporter.bench.inputs import BenchQuestion
from glimmer_export.exporter.bench.open import open_contenders

__all__ = ["measure_peak_rss"]

BATCHES = 2
STATUS = Path("/proc/self/status")


def measure_peak_rss(spec: ContenderSpec, batches: Sequence[Sequence[BenchQuestion]]) -> int:
    """Bytes resident at most, Python and its libraries included; raises RuntimeError where the process fails."""
    job = {
        "spec": {**asdict(spec), "model": str(spec.model), "store": None if spec.store is None else str(spec.store)},
        "batches": [[asdict(question) for question in batch] for batch in batches[:BATCHES]],
    }
    done = subprocess.run(
        [sys.executable, "-m", "glimmer_export.exporter.bench.peak_rss"], input=json.dumps(job), capture_output=True,
        text=True, check=False, start_new_session=True,  # Ctrl-C is for us, who end it
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the process that measures the memory of {spec.key} failed:\n{done.stderr}")
    return int(done.stdout.split()[-1])


def _main() -> None:
    job: dict[str, Any] = json.load(sys.stdin)
    paths = {name: None if job["spec"][name] is None else Path(job["spec"][name]) for name in ("model", "store")}
    spec = ContenderSpec(**{**job["spec"], **paths})
    contender = open_contenders([spec])[spec.key]
    for batch in job["batches"]:
        contender.answer([BenchQuestion(**question) for question in batch])
    sys.stdout.write(f"{_peak_bytes()}\n")


def _peak_bytes() -> int:
    """From /proc, not getrusage: Linux hands the peak of the process that forked on to the program it starts."""
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


if __name__ == "__main__":
    _main()
