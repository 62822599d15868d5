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
SETTINGS: dict[str, tuple[int, bool]] = {
    "onnxruntime": (0, True), "onnxruntime, waiting": (0, False), "1": (1, True), "2": (2, True),
    "2, waiting": (2, False),
}  # fmt: skip
"""Threads, 0 for ONNX Runtime's own choice, and whether they spin."""


def compute() -> None:
    """Keep one core busy."""
    value = 1
    while True:
        value = value * 3 % 1000003


class Threads(OnnxRuntimeBackend):
    """ONNX Runtime with so many threads, which spin for work or sleep."""

    def __init__(self, threads: int, *, spinning: bool) -> None:
        super().__init__(threads)
        self._spinning = spinning

    def _make_options(self) -> Any:
        options = super()._make_options()
        if self._spinning:
            options.add_session_config_entry(SPINNING, "1")
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
            backend=Threads(SETTINGS[setting][0], spinning=SETTINGS[setting][1]),
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
