"""The rows of docs/measurements/fidelity.md, one after another; what is there already is not run again.

    OMP_NUM_THREADS=1 python -m tests.demo.fidelity runs
    OMP_NUM_THREADS=1 python -m tests.demo.fidelity runs --worlds hard --rows "int8 cpu" "int8 tensorrt"

Each world has a folder, in which its commands run as the page has them; what a row says is kept beside them as
`rows/LABEL.json` with its command, its date and how long it took. fidelity.json has the rows that are there, and of the
others what it had before; the page has its tables.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any

PAGE = Path("docs/measurements/fidelity.md")
FOUND = PAGE.with_suffix(".json")
MACHINE = "two cores of an AMD EPYC with AVX512-VNNI, busy"

NUM_QUESTIONS = 4000
WORLDS = {"demo": "--contexts 25", "hard": "--world hard"}
"""Options of `demo-data` by a world's name."""
CODECS = ("int8", "int4", "rq4x", "rq8x", "pq8x", "rq16x", "pq16x")
PRECISIONS = {"int8": ("cpu", "tensorrt"), "int8-fp16": ("tensorrt",), "fp16": ("tensorrt",)}
"""The targets that each is measured for."""
ROUNDED = "onnxruntime-cpu-fp16-rounded"
LEAST = 1000
"""What the default gate wants at least."""
GATE = "--gate default"
NOT_PASSED = 1
"""What `parity` exits with where the gate did not pass: that too is a result."""
GIVEN = "--questions world/questions.jsonl --passages given --batch-size 32"

COMMON = {
    "world": f"demo-data --questions {NUM_QUESTIONS} {{options}} -o world",
    "fp32": f"export world/checkpoint --codecs {','.join(('fp16', *CODECS))} -o fp32",
    "store": "memory build fp32 --corpus world/corpus.jsonl --codec fp16 -o store",
    "fp32/calibration": "calibrate fp32 --store store --questions world/questions.jsonl --passages given "
    "--passages-per-question 25",
}
"""What makes what all rows need, by what is there when it was made, in order."""


@dataclass(frozen=True)
class Row:
    """A row by what makes its bundle or store, `parity`'s arguments, and how many questions it asks.

    `world` is the only one that has it, None for both.
    """

    made: dict[str, str]
    parity: str
    asked: int = NUM_QUESTIONS
    world: str | None = None

    @property
    def command(self) -> str:
        """What asks, without `glimmer-export`."""
        limit = "" if self.asked == NUM_QUESTIONS else f" --limit {self.asked}"
        return f"parity {self.parity} {GIVEN}{limit} --json"


def _bundle(precision: str, target: str, *, asked: int = NUM_QUESTIONS, options: str = "") -> Row:
    bundle = f"{precision}-{target}"
    gpu = "--gpu none " if target == "tensorrt" else ""
    made = f"quantize fp32 --precision {precision} --target {target} {gpu}-o {bundle}"
    world = "hard" if options == "--attribution" else None
    return Row({bundle: made}, f"{bundle} --reference fp32 --store store {options}".rstrip(), asked, world)


def _weight_only(bits: str) -> Row:
    bundle = f"int8-weights-{bits}"
    made = f"quantize fp32 --precision int8 --weight-only {bits} -o {bundle}"
    return Row({bundle: made}, f"{bundle} --reference fp32 --store store", LEAST)


def _openvino(options: str) -> Row:
    return Row({}, f"fp32 --reference fp32 --store store --backend openvino {options}{GATE}", LEAST)


def _codec(codec: str) -> Row:
    store = f"store-{codec}"
    made = f"memory convert store --codec {codec} -o {store}"
    return Row({store: made}, f"fp32 --reference fp32 --store {store} --reference-store store")


ROWS = {
    "int8 cpu": _bundle("int8", "cpu", options=GATE),
    "int8 tensorrt": _bundle("int8", "tensorrt"),
    "int8 openvino": _bundle("int8", "cpu", asked=LEAST, options=f"--backend openvino {GATE}"),
    "bf16 openvino": _openvino("--compute-precision bf16 "),
    "fp32 openvino": _openvino(""),
    "int8 cpu, weights of 8 bits": _weight_only("int8"),
    "int8 cpu, weights of 4 bits": _weight_only("int4"),
    "codec int8": _codec("int8"),
    "codec int4": _codec("int4"),
    "codec rq4x": _codec("rq4x"),
    "codec rq8x": _codec("rq8x"),
    "codec pq8x": _codec("pq8x"),
    "codec rq16x": _codec("rq16x"),
    "codec pq16x": _codec("pq16x"),
    "int8-fp16 tensorrt": _bundle("int8-fp16", "tensorrt"),
    "fp32 beside torch": Row({}, "fp32 --checkpoint world/checkpoint --store store"),
    "int8 tensorrt, attribution": _bundle("int8", "tensorrt", asked=600, options="--attribution"),
    "fp16 rounded": _bundle("fp16", "tensorrt", options=f"--backend {ROUNDED}"),
}
"""Most telling first. Attribution asks each question seven times. A row with a gate says whether it passed."""
KEPT = (
    "reference", "candidate", "coverage", "passages", "reference_memory", "answers_equal", "answers_equal_of_correct",
    "top_m_overlap", "kendall_tau", "score_snr_db", "gold_in_top_m", "em_reference", "em_candidate", "em_delta",
    "em_delta_interval", "first_difference", "log_probability", "memory_max_abs_err", "graphs", "attribution", "gate",
)  # fmt: skip
"""Of a parity report."""


def command(text: str, folder: Path) -> bytes:
    """Run `glimmer-export` with these arguments in a folder; what it says on standard output."""
    sys.stderr.write(f"{folder}$ glimmer-export {text}\n")
    program = Path(sys.executable).with_name("glimmer-export")
    done = subprocess.run([program, *shlex.split(text)], check=False, stdout=subprocess.PIPE, cwd=folder)
    if done.returncode != NOT_PASSED or GATE not in text:
        done.check_returncode()
    return done.stdout


def make(folder: Path, steps: dict[str, str], options: str) -> None:
    """Make what is not there."""
    for name, text in steps.items():
        if not (folder / name).exists():
            command(text.format(options=options), folder)


def measure(folder: Path, label: str, options: str) -> None:
    """Make what a row needs and ask its questions, unless its result is there."""
    row = ROWS[label]
    output = folder / "rows" / f"{label}.json"
    if output.exists():
        return
    make(folder, COMMON | row.made, options)
    keep(folder, row.command, KEPT, output)


def keep(folder: Path, asked: str, names: Sequence[str], output: Path) -> None:
    """Ask for a report in a folder; write what it says under these names, with its command, date and seconds."""
    started = time.monotonic()
    report = json.loads(command(asked, folder))
    kept = {
        "command": f"glimmer-export {asked}", "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.monotonic() - started), **{name: report[name] for name in names},
    }  # fmt: skip
    output.parent.mkdir(exist_ok=True)
    partial = output.with_suffix(".partial")
    partial.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    partial.replace(output)


def labels_of(world: str) -> list[str]:
    """The rows that a world has, in order."""
    return [label for label, row in ROWS.items() if row.world in (None, world)]


def merged(found: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A result with the rows that are in the folder in the place of those it had; rows that are none are dropped."""
    worlds: dict[str, dict[str, Any]] = {world: {} for world in WORLDS}
    for world, rows in worlds.items():
        for label in labels_of(world):
            path = folder / world / "rows" / f"{label}.json"
            if path.exists():
                rows[label] = json.loads(path.read_text(encoding="utf-8"))
            elif label in found[world]:
                rows[label] = found[world][label]
    return {"machine": MACHINE, "versions": {"onnxruntime": version("onnxruntime")}, **worlds}


COLUMNS = (
    "questions", "exact match", "answers equal", "equal of the correct", "top-m overlap", "scores, SNR",
    "log-probability, SNR",
)  # fmt: skip
HEADER = (f"| | {' | '.join(COLUMNS)} |", "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")


def table(rows: dict[str, Any]) -> str:
    """A world's rows as the page has them."""
    lines = [*HEADER]
    for label, row in rows.items():
        if row["attribution"] is not None:
            continue
        low, high = row["em_delta_interval"]
        shares = (row[name] for name in ("answers_equal", "answers_equal_of_correct", "top_m_overlap"))
        noise = (row["score_snr_db"], row["log_probability"]["snr_db"])
        cells = [
            label, f"{row['coverage']['asked']:,}",
            f"{100 * row['em_delta']:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})",
            *(f"{100 * share:.2f}%" for share in shares), *(f"{snr:.1f} dB" for snr in noise),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


PARTS_HEADER = (
    "| part | answers equal | top-m overlap | log-probability, mean error |",
    "| --- | ---: | ---: | ---: |",
)
PARTS = {
    "memory_encoder_store": "memory encoder, passages", "memory_encoder_question": "memory encoder, questions",
    "live_stage_a": "stage A", "live_stage_b": "stage B", "decoder": "decoder",
}  # fmt: skip


def parts_table(row: dict[str, Any]) -> str:
    """What each part of a row's candidate costs alone."""
    lines = [*PARTS_HEADER]
    for part, name in PARTS.items():
        effect = row["attribution"][part]
        equal, overlap = (f"{100 * effect[figure]:.2f}%" for figure in ("answers_equal", "top_m_overlap"))
        lines.append(f"| {name} | {equal} | {overlap} | {effect['log_prob_error']:.3f} |")
    return "\n".join(lines) + "\n"


def tables(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Every table of the page in its order, each with its first line."""
    hard = found["hard"]
    return [
        *((HEADER[0], table(found[world])) for world in WORLDS),
        (PARTS_HEADER[0], parts_table(hard["int8 tensorrt, attribution"])),
    ]


def with_tables(page: str, found: dict[str, Any]) -> str:
    """The page with its tables as they were found; all else stays."""
    lines, at = page.splitlines(keepends=True), 0
    for header, text in tables(found):
        at = lines.index(f"{header}\n", at)
        old = len(list(takewhile(lambda line: line.startswith("|"), lines[at:])))
        new = text.splitlines(keepends=True)
        lines[at : at + old] = new
        at += len(new)
    return "".join(lines)


def write(folder: Path) -> None:
    """Bring fidelity.json and the page's tables up to date."""
    found = merged(json.loads(FOUND.read_text(encoding="utf-8")), folder)
    FOUND.write_text(json.dumps(found) + "\n", encoding="utf-8")
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


def run(folder: Path, worlds: list[str], labels: list[str]) -> None:
    """The rows of these names, of all worlds before the next row; what is written is brought up to date after each."""
    for label in labels:
        for world in worlds:
            if label in labels_of(world):
                (folder / world).mkdir(parents=True, exist_ok=True)
                measure(folder / world, label, WORLDS[world])
                write(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the rows of docs/measurements/fidelity.md.")
    parser.add_argument("folder", type=Path, help="where worlds, bundles, stores and results are kept")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    asked = parser.parse_args()
    run(asked.folder.resolve(), asked.worlds, asked.rows)
