"""Measure on a GPU, part by part.

    python -m glimmer_export.exporter.bench.gpu.measure -o OUT/results.tar.xz [--part NAME ...]

What is found goes into that one file, which is whole after every step; report.py makes a page of it. Run it again and
it goes on if it was: --work keeps what was exported, built and found on this machine, --resume takes up a file that
came from another. --rehearse goes through all of it at tiny sizes on a CPU.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from glimmer_export.exporter.bench.gpu.backends import FIRST
from glimmer_export.exporter.bench.gpu.parts import decoder_steps, first, kernels, parity, peers, speed, switches
from glimmer_export.exporter.bench.gpu.results import unpack_results, write_results
from glimmer_export.exporter.bench.gpu.runner import DONE, Step, run_part
from glimmer_export.exporter.bench.gpu.setting import ORT_CUDA, RTX, TORCH, Setting, describe

__all__ = ["PARTS", "main", "measure"]

PARTS: dict[str, Callable[[Setting], list[Step]]] = {
    FIRST: first.steps,
    "parity-onnxruntime-cuda": partial(parity.steps, engine=ORT_CUDA),
    "large-onnxruntime-cuda": partial(speed.steps, size="large", engine=ORT_CUDA),
    "large-torch": partial(speed.torch_steps, size="large"),
    "peers-large": partial(peers.steps, size="large"),
    "decoder-steps": decoder_steps.steps,
    "parity-tensorrt-rtx": partial(parity.steps, engine=RTX),
    "large-tensorrt-rtx": partial(speed.steps, size="large", engine=RTX),
    "switches-base": partial(switches.steps, size="base"),
    "large-torch-stages": partial(speed.steps, size="large", engine=TORCH),
    "base-tensorrt-rtx": partial(speed.steps, size="base", engine=RTX),
    "base-onnxruntime-cuda": partial(speed.steps, size="base", engine=ORT_CUDA),
    "peers-base": partial(peers.steps, size="base"),
    "kernels": kernels.steps,
}
"""In the order of what would be missed most; kernels are counted when every time is taken."""


def measure(setting: Setting, names: Sequence[str], archive: Path, *, seconds: float, command: str) -> bool:
    """Run parts within `seconds` of all; whether every step of them is done."""
    deadline = time.monotonic() + seconds
    complete = True

    def kept() -> None:
        write_results(setting.out, PARTS, archive)

    for name in names:
        steps = PARTS[name](setting)
        if setting.rehearsal:  # a CPU takes as long as it takes
            steps = [replace(step, seconds=math.inf) for step in steps]
        left = deadline - time.monotonic()
        part = run_part(setting.out, name, steps, describe(setting, command), seconds=left, kept=kept)
        complete &= all(part.steps.get(step.name, {}).get("status") == DONE for step in steps)
        kept()
    return complete


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if every step is done; 1 where some failed or were left for another run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="file of all results, such as results.tar.xz")
    parser.add_argument("--part", choices=PARTS, nargs="+", help="some parts; without it all, in order")
    parser.add_argument("--work", type=Path, help="folder of exports and engines (default: below the temporary one)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="of this call (default: as long as it takes)")
    parser.add_argument("--resume", type=Path, help="file of results to go on from, where --work has none")
    parser.add_argument("--carried", type=Path, help="folder that unpack.py filled (default: what is installed)")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes on the CPU: to find mistakes, not times")
    options = parser.parse_args(arguments)
    work = options.work or Path(tempfile.gettempdir()) / ("glimmer-rehearsal" if options.rehearse else "glimmer-gpu")
    found = work / "results"
    found.mkdir(parents=True, exist_ok=True)
    if options.resume is not None:
        unpack_results(options.resume, found)
    if options.rehearse:
        os.environ["XDG_CACHE_HOME"] = str(work / "cache")
    setting = Setting.of(work, found, rehearsal=options.rehearse, carried=options.carried)
    given = sys.argv[1:] if arguments is None else arguments
    words = ["python", "-m", "glimmer_export.exporter.bench.gpu.measure", *given]
    command = shlex.join(map(str, words))
    complete = measure(setting, options.part or list(PARTS), options.output, seconds=options.seconds, command=command)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
