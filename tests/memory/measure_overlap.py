"""How much of a build's time its device has nothing to do, with an encoder that only waits, as for a GPU.

    python -m tests.memory.measure_overlap BUNDLE CORPUS --ms-a-passage 0.6 0.05 --codecs fp16 rq8x

The bundle's memory encoder is not run: in its place a stub sleeps for each passage, and gives random memory of the
bundle's width (drawn once). The rest of a build is as it is: reading, tokenising, codec, checksums, writing, syncing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from glimmer_export.exporter.memory import build_store
from glimmer_export.exporter.memory.runners import job
from glimmer_export.runtime.bundle import Bundle

KEPT = 1 << 20
"""Values that are drawn; memory is cut from them."""


class Waiting:
    """Sleeps as long as a device would take, and counts it."""

    def __init__(self, width, seconds):
        self.width, self.seconds, self.busy = width, seconds, 0.0
        self.values = np.random.default_rng(0).standard_normal(KEPT * width // 256, np.float32)

    def run(self, inputs):
        rows, length = inputs["input_ids"].shape
        began = time.perf_counter()
        needed = length * self.width
        states = np.stack([self.values[row * 7 : row * 7 + needed].reshape(length, self.width) for row in range(rows)])
        time.sleep(max(0.0, rows * self.seconds - (time.perf_counter() - began)))
        self.busy += time.perf_counter() - began
        return {"hidden_states": states}


def main() -> None:
    """Print a row for each codec and time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--ms-a-passage", type=float, nargs="+", default=[0.6])
    parser.add_argument("--codecs", nargs="+", default=["fp16"])
    parser.add_argument("--passages-per-shard", type=int, default=1024)
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args()
    width = Bundle.open(asked.bundle).manifest.model.d_model
    for codec in asked.codecs:
        for milliseconds in asked.ms_a_passage:
            stub = Waiting(width, milliseconds / 1e3)
            job.memory_encoder = lambda *_, stub=stub: stub
            with tempfile.TemporaryDirectory(dir=asked.work) as folder:
                began, cpu = [], []
                encode = job.LocalRunner.run

                def run(self, *arguments, encode=encode, began=began, cpu=cpu, **options):
                    began.append(time.perf_counter())
                    cpu.append(time.process_time())
                    yield from encode(self, *arguments, **options)
                    began.append(time.perf_counter())
                    cpu.append(time.process_time())

                job.LocalRunner.run = run
                build_store(
                    asked.bundle, asked.corpus, Path(folder) / "store", codec=codec, threads=1,
                    passages_per_shard=asked.passages_per_shard,
                )
                job.LocalRunner.run = encode
            taken = began[1] - began[0]
            print(  # noqa: T201
                f"{codec}, {milliseconds} ms a passage: {taken:.1f} s of encoding, device idle "
                f"{1 - stub.busy / taken:.0%}, {cpu[1] - cpu[0]:.1f} CPU s"
            )


if __name__ == "__main__":
    main()
