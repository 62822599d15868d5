"""Runs cases by hand: `python -m tests.fuzz [--cases N] [--target NAME] [--seed N] [--command-line] [--keep FOLDER]`.

Prints what came of how many, and each case that came to a bad end; exit code 1 where there is one.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.case import Case, Sound
from tests.fuzz.command_line import run_as_process
from tests.fuzz.oracle import Report, Runner
from tests.fuzz.plan import cases
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--target", choices=TARGETS, action="append", help="repeatable; default: all")
    parser.add_argument("--first", type=int, default=0, help="seed of each target's first case")
    parser.add_argument("--seed", type=int, help="of one case of one target")
    parser.add_argument("--command-line", action="store_true", help="each case in a process of its own")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after this time")
    parser.add_argument("--keep", type=Path, help="leave the case of --seed here")
    options = parser.parse_args()
    if options.seed is not None:
        chosen = [Case(name, options.seed) for name in options.target]
    else:
        chosen = cases(options.cases, options.target or TARGETS, first=options.first)
        random.Random(options.first).shuffle(chosen)
    report, shown, end = Report(), 0, time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, Runner(Path(folder)) as runner:
        if options.keep is not None:
            options.keep.mkdir(parents=True)
            chosen[0].prepare(options.keep, Sound(Path(folder)))
        for case in chosen:
            if time.monotonic() > end:
                break
            report.add(case, run_as_process(case, runner.root) if options.command_line else runner.outcome(case))
            for found in report.found[shown:]:
                sys.stdout.write(f"{found}\n")
                sys.stdout.flush()
            shown = len(report.found)
    sys.stdout.write("\n".join(report.lines()) + "\n")
    return bool(report.found)


if __name__ == "__main__":
    sys.exit(main())
