"""Questions a second of a bundle by threads of a graph run, and by how its threads wait for work.

    python -m tests.runtime.measure_threads BUNDLE STORE QUESTIONS [--rounds 5] [--questions 20] [--busy 0]

Every setting has a session of its own in this process, and they take turns, in another order each round: what else
runs on the machine meets all of them alike. What is printed is the median over the rounds. `--busy` processes compute
all the while; `--callers` threads ask at the same time. `QUESTIONS` has a JSON object with `question` a line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import OnnxRuntimeBackend

SPINNING = "session.intra_op.allow_spinning"
LENGTH = "session.intra_op.spin_duration_us"
SETTINGS: dict[str, tuple[int, int]] = {
    "onnxruntime": (0, LONG := 10_000), "onnxruntime, waiting": (0, 0), "1": (1, 0), "2": (2, LONG),
    "2, waiting": (2, 0), "2, 20 us": (2, 20), "2, 50 us": (2, 50),
}  # fmt: skip
"""Threads, 0 for ONNX Runtime's own choice, and for how many microseconds they spin before they sleep."""


def compute() -> None:
    """Keep one core busy."""
    value = 1
    while True:
        value = value * 3 % 1000003


class Threads(OnnxRuntimeBackend):
    """ONNX Runtime with so many threads, which spin for work so long before they sleep."""

    def __init__(self, threads: int, microseconds: int) -> None:
        super().__init__(threads)
        self._microseconds = microseconds

    def _make_options(self) -> Any:
        options = super()._make_options()
        options.add_session_config_entry(SPINNING, "1" if self._microseconds else "0")
        options.add_session_config_entry(LENGTH, str(self._microseconds))
        return options


def main() -> None:
    """Print a JSON object a setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bundle", "store", "questions_file"):
        parser.add_argument(name, type=Path)
    for name, default in (("rounds", 5), ("questions", 20), ("busy", 0), ("callers", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--setting", action="append", choices=SETTINGS)
    options = parser.parse_args()
    settings = options.setting or list(SETTINGS)
    lines = options.questions_file.read_text(encoding="utf-8").splitlines()[: options.questions]
    questions = [json.loads(line)["question"] for line in lines]
    sessions = {
        setting: Session.open(
            options.bundle, options.store, verify=False,
            backend=Threads(*SETTINGS[setting]),
        )
        for setting in settings
    }
    busy = [multiprocessing.get_context("spawn").Process(target=compute, daemon=True) for _ in range(options.busy)]
    for process in busy:
        process.start()
    seconds: dict[str, list[float]] = {setting: [] for setting in settings}
    with ThreadPoolExecutor(options.callers) as pool:
        for session in sessions.values():
            session.answer(questions[0])
        for _ in range(options.rounds):
            for setting, session in random.sample(list(sessions.items()), len(sessions)):
                start = time.perf_counter()
                list(pool.map(session.answer, questions))
                seconds[setting].append(time.perf_counter() - start)
                sys.stderr.write(f"{setting}: {seconds[setting][-1]:.2f} s\n")
    for process in busy:
        process.kill()
    for setting, taken in seconds.items():
        sys.stdout.write(
            json.dumps({
                "threads": setting, "busy": options.busy,
                "callers": options.callers, "questions_per_second": float(f"{len(questions) / median(taken):.3g}"),
                "fastest": float(f"{len(questions) / min(taken):.3g}"), "load": os.getloadavg()[0],
            }) + "\n"
        )  # fmt: skip


if __name__ == "__main__":
    main()
