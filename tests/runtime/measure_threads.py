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

from runtime import Session
from runtime.backends import OnnxRuntimeBackend

SPINNING = "session.intra_op.allow_spinning"
SETTINGS: list[tuple[int | None, bool]] = [(None, True), (None, False), (1, True), (2, True), (2, False)]
"""Threads, None for ONNX Runtime's own choice, and whether they spin."""


def compute() -> None:
    """Keep one core busy."""
    value = 1
    while True:
        value = value * 3 % 1000003


def backend(threads: int | None, *, spinning: bool) -> OnnxRuntimeBackend:
    """ONNX Runtime with its own number of threads (None) or another."""

    class Measured(OnnxRuntimeBackend):
        def _make_options(self) -> Any:
            options = super()._make_options()
            options.intra_op_num_threads = threads or 0
            options.add_session_config_entry(SPINNING, "1" if spinning else "0")
            return options

    return Measured(threads or 1)


def main() -> None:
    """Print a JSON object a setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bundle", "store", "questions_file"):
        parser.add_argument(name, type=Path)
    for name, default in (("rounds", 5), ("questions", 20), ("busy", 0), ("callers", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    lines = options.questions_file.read_text(encoding="utf-8").splitlines()[: options.questions]
    questions = [json.loads(line)["question"] for line in lines]
    sessions = {
        setting: Session.open(
            options.bundle, options.store, verify=False, backend=backend(setting[0], spinning=setting[1])
        )
        for setting in SETTINGS
    }
    busy = [multiprocessing.get_context("spawn").Process(target=compute, daemon=True) for _ in range(options.busy)]
    for process in busy:
        process.start()
    seconds: dict[tuple[int | None, bool], list[float]] = {setting: [] for setting in SETTINGS}
    with ThreadPoolExecutor(options.callers) as pool:
        for session in sessions.values():
            session.answer(questions[0])
        for _ in range(options.rounds):
            for setting, session in random.sample(list(sessions.items()), len(sessions)):
                start = time.perf_counter()
                list(pool.map(session.answer, questions))
                seconds[setting].append(time.perf_counter() - start)
    for process in busy:
        process.kill()
    for (threads, spinning), taken in seconds.items():
        sys.stdout.write(
            json.dumps({
                "threads": threads or "ONNX Runtime's", "spinning": spinning, "busy": options.busy,
                "callers": options.callers, "questions_per_second": round(len(questions) / median(taken), 2),
                "fastest": round(len(questions) / min(taken), 2), "load": os.getloadavg()[0],
            }) + "\n"
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
