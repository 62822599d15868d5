"""docs/measurements/draft-decoding.json and the table of its page: every trace replayed at base size.

    python -m tests.demo.draft_replays WORK

WORK is a bench's: what is exported there is not exported again. Run it on a quiet machine. A replay that is in the file
from one is kept, unless it is named: `--traces nq squad`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

MEASUREMENTS = Path("docs/measurements")
PAGE = MEASUREMENTS / "draft-decoding.md"
FOUND = PAGE.with_suffix(".json")
SECONDS = 12
NAMES = {"nq": "Natural Questions", "squad": "SQuAD", "hard": "hard world", "demo": "the demo"}
REPLAYS = (("nq", 1), ("squad", 1), ("hard", 1), ("demo", 1), ("nq", 4), ("squad", 4), ("nq", 16))
"""A trace and how many questions are decoded together."""
HEADER = (
    "| trace | batch | FP32, plain | drafts | ratio | end to end | INT8, plain | drafts | ratio | end to end |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
)


def arguments(trace: str, batch: int, work: str) -> list[str]:
    """Of `glimmer-export`."""
    given = (
        f"bench --random base --peers int8 --threads 2 --batch-size {batch} --work {work} "
        f"--draft-trace {MEASUREMENTS}/draft-trace-{trace}.json --seconds {SECONDS} --json"
    )
    return given.split()


def table(replays: list[dict[str, Any]]) -> str:
    """As the page has it: a star behind a ratio that was not taken on a quiet machine."""
    lines = [HEADER]
    for one in replays:
        cells = [NAMES[one["trace"]], str(one["batch_size"])]
        star = "" if one["load"]["worthless"] is False else "*"
        for name in ("ours", "int8"):
            row = one["bundles"][name]
            cells += [f"{row['plain_ms']:.1f}", f"{row['drafted_ms']:.1f}", f"{row['ratio']:.2f}x{star}"]
            cells.append(f"{row['end_to_end']:.2f}x")
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def with_table(page: str, replays: list[dict[str, Any]]) -> str:
    """The page with the table of these replays in the place of its own."""
    before, header, after = page.partition(HEADER)
    if not header:
        raise ValueError(f"{PAGE} has no table of replays")
    lines = after.splitlines(keepends=True)
    rows = len(list(takewhile(lambda line: line.startswith("|"), lines)))
    return before + table(replays) + "".join(lines[rows:])


def main() -> None:
    """Replay what is not there, and write the file and the page after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work")
    parser.add_argument("--traces", nargs="*", choices=NAMES, default=[], help="replayed again in any case")
    given = parser.parse_args()
    found = json.loads(FOUND.read_text(encoding="utf-8"))["replays"] if FOUND.exists() else []
    kept = {(one["trace"], one["batch_size"]): one for one in found}
    program = Path(sys.executable).with_name("glimmer-export")
    for trace, batch in REPLAYS:
        there = kept.get((trace, batch))
        if there is not None and there["load"]["worthless"] is False and trace not in given.traces:
            continue
        words = arguments(trace, batch, given.work)
        done = subprocess.run([program, *words], check=True, stdout=subprocess.PIPE)
        asked = " ".join(["glimmer-export", *arguments(trace, batch, "work")])
        kept[trace, batch] = {"trace": trace, "command": asked, **json.loads(done.stdout)}
        replays = [kept[one] for one in REPLAYS if one in kept]
        FOUND.write_text(json.dumps({"replays": replays}) + "\n", encoding="utf-8")
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), replays), encoding="utf-8")


if __name__ == "__main__":
    main()
