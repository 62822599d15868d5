"""Load and faults for `glimmer-export serve`; the figures as JSON on stdout, exit code 1 if anything was at fault.

    python -m tests.serving.load answers overload --bundle demo-output/bundle --store demo-output/store \\
        --questions demo-output/world/questions.jsonl --clients 64 --requests 20000

`malformed` sends as many broken requests as `--requests` says, `throughput` has so many rounds, `rerank` ranks for so
many questions beside a cross-encoder (`--cross-encoder DIR`, written if it is not there).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

from glimmer_export.exporter.bench.machine import describe_machine
from tests.serving.load.asking import read_questions
from tests.serving.load.malformed import malformed
from tests.serving.load.reranking import rerank
from tests.serving.load.scenarios import SCENARIOS, Subject
from tests.serving.load.throughput import throughput

ALL = {**SCENARIOS, "malformed": malformed, "rerank": rerank, "throughput": throughput}


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
    parser.add_argument("--seconds", type=float, default=math.inf, help="of each: no request is begun after them")
    parser.add_argument("--cross-encoder", type=Path, help="folder of its graphs, for rerank")
    parser.add_argument("--serve", action="append", default=[], metavar="OPTION=VALUE", help="repeatable")
    options = parser.parse_args()
    subject = Subject(
        options.bundle, options.store, read_questions(options.questions)[: options.num_questions],
        clients=options.clients, requests=options.requests, seconds=options.seconds,
        options=dict(item.split("=", 1) for item in options.serve),
        cross_encoder=options.cross_encoder,
    )
    report = {"machine": describe_machine()}
    for name in options.scenarios:
        sys.stderr.write(f"{name}\n")
        report[name] = {
            "clients": options.clients, "requests": options.requests, "serve": options.serve, **ALL[name](subject),
        }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return int(any(report[name]["faults"] for name in options.scenarios))


if __name__ == "__main__":
    sys.exit(main())
