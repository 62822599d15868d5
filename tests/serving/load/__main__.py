"""Load and faults for `glimmer-export serve`; the figures as JSON on stdout, exit code 1 if anything was at fault.

    python -m tests.serving.load answers overload --bundle demo-output/bundle --store demo-output/store \\
        --questions demo-output/world/questions.jsonl --clients 64 --requests 20000

`malformed` sends as many broken requests as `--requests` says; `--seed` names the first.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from glimmer_export.exporter.bench.machine import describe_machine
from tests.serving.load.malformed import malformed
from tests.serving.load.scenarios import SCENARIOS, Subject

ALL = {**SCENARIOS, "malformed": malformed}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.serving.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="+", choices=ALL)
    for name in ("bundle", "store", "questions"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--num-questions", type=int, help="the first so many of the file's; default: all")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=20_000)
    options = parser.parse_args()
    subject = Subject.of(
        options.bundle, options.store, options.questions, clients=options.clients, requests=options.requests
    )
    subject = replace(subject, questions=subject.questions[: options.num_questions])
    report = {"machine": describe_machine()}
    for name in options.scenarios:
        sys.stderr.write(f"{name}\n")
        report[name] = {"clients": options.clients, "requests": options.requests, **ALL[name](subject)}
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return int(any(report[name]["faults"] for name in options.scenarios))


if __name__ == "__main__":
    sys.exit(main())
