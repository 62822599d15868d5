"""OUT's JSON as a page: `python -m tests.gpu.report OUT > docs/measurements/h200.md`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.gpu.bars import summary_of
from tests.gpu.measure import PARTS
from tests.gpu.runner import Part
from tests.gpu.setting import REHEARSAL

__all__ = ["page"]


def page(folder: Path) -> str:
    """Markdown of everything that was found; what was not measured is named as such."""
    parts = {name: Part.open(folder, name) for name in PARTS if (folder / f"{name}.json").is_file()}
    if not parts:
        raise SystemExit(f"{folder}: none of {', '.join(f'{name}.json' for name in PARTS)}")
    return "\n".join(_lines(parts)) + "\n"


def _lines(parts: Mapping[str, Part]) -> Iterator[str]:
    summary = summary_of(parts)
    yield f"# Measured on {', '.join(summary['devices'])}"
    yield ""
    if REHEARSAL in summary["devices"]:
        yield from ["A rehearsal at tiny sizes: nothing here is a measurement.", ""]
    yield from _runs(parts)
    yield ""
    yield "## Bars"
    yield ""
    verdicts = {True: "yes", False: "**no**", None: "not measured"}
    yield from _table(
        ["bar", "limit", "found", "passed"],
        [
            [bar["bar"], _number(bar["limit"]), _number(bar["found"]), verdicts[bar["passed"]]]
            for bar in summary["bars"]
        ],
    )
    if summary["open"]:
        yield from ["", "## Not done", ""]
        yield from (f"- `{name}`: {reason}" for name, reason in summary["open"].items())
    missing = [name for name in PARTS if name not in parts]
    if missing:
        yield from ["", f"Parts never begun: {', '.join(missing)}."]
    for name, part in parts.items():
        yield from _part(name, part.results)


def _runs(parts: Mapping[str, Part]) -> Iterator[str]:
    heads = [(name, run) for name, part in parts.items() for run in part.runs]
    yield from _table(
        ["part", "date", "device", "driver", "command"],
        [
            [name, run["date"], run["device"], run.get("gpu", {}).get("driver_version", "-"), f"`{run['command']}`"]
            for name, run in heads
        ],
    )
    versions = heads[-1][1].get("versions", {})
    yield ""
    yield f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}."


def _part(name: str, results: Mapping[str, Any]) -> Iterator[str]:
    yield from ["", f"## {name}", ""]
    if name == "engines":
        tried = {step: found for step, found in results.items() if "graphs" in found}
        keys = ("built", "deserialised", "ran", "agrees")
        yield from _table(
            ["engine for", *keys, "first error"],
            [
                [step, *("yes" if found[key] else "no" for key in keys),
                 next((graph["error"] for graph in found["graphs"].values() if "error" in graph), "")]
                for step, found in tried.items()
            ],
        )  # fmt: skip
        yield from _line("Taken for the other parts", results.get("choice"))
    elif name == "parity":
        yield from _table(
            ["step", "questions", "EM, reference", "EM", "answers equal", "top-m overlap", "least SNR, dB"],
            [
                [step, *(_number(found[key]) for key in PARITY), _number(_least_snr(found))]
                for step, found in results.items() if "graphs" in found
            ],
        )  # fmt: skip
    else:
        for step, found in results.items():
            yield from _measured(step, found)


PARITY = ("questions", "em_reference", "em_candidate", "answers_equal", "top_m_overlap")


def _measured(step: str, found: Mapping[str, Any]) -> Iterator[str]:
    if "stages" in found:
        yield from _heading(step)
        yield from _table(
            ["graph", "runs", "ms", "floor, ms", "of its floor", "kernels", *_others(found["stages"])],
            [
                [name, stage["runs"], _number(stage["ours"]["median_ms"]), _number(stage["floor_ms"]),
                 _number(stage["of_floor"]), _kernels(stage), *map(_times, stage["ratios"].values())]
                for name, stage in found["stages"].items()
            ],
        )  # fmt: skip
    elif "batches" in found:
        yield from _heading(step)
        yield from _table(
            ["batch", "ms", "questions/s"],
            [
                [batch, _number(row["median_ms"]), _number(row["questions_per_s"])]
                for batch, row in found["batches"].items()
            ],
        )
        yield from _line("Kernels of an answer", found["kernels"])
    elif "by_batch" in found:
        rows = [row for sides in found["by_batch"].values() for row in sides.items()]
        yield from _contenders(step, rows, found["ratio"])
    elif "contenders" in found:
        yield from _contenders(step, found["contenders"].items(), found["ratio"])
    elif "variants" in found:
        yield from _heading(f"{step}")
        yield from _table(
            ["variant", "ms", "to the default", "kernels", "same answers"],
            [
                [name, _number(row["median_ms"]), _number(found["ratios"][name]), _kernels(row),
                 "yes" if found["same_answers"][name] else "**no**"]
                for name, row in found["variants"].items()
            ],
        )  # fmt: skip
    elif "of_bandwidth_floor" in found:
        yield (
            f"- `{step}`: {found['layers']} layers, {_number(found['median_ms'])} ms, floor "
            f"{_number(found['bandwidth_ms'])} ms, {_number(found['of_bandwidth_floor'])} of it; "
            f"{_kernels(found)} kernels"
        )
    else:
        yield from _line(step, found)


def _contenders(title: str, rows: Iterable[tuple[str, Mapping[str, Any]]], ratio: float | None) -> Iterator[str]:
    yield from _heading(f"{title}: ours is better by {_times(ratio) or '-'}")
    yield from _table(
        ["contender", "batch", "ms", "questions/s", "kernels", "error"],
        [
            [who, row["batch"], _number(row.get("median_ms")), _number(row.get("questions_per_s")), _kernels(row),
             row.get("error", "")]
            for who, row in rows
        ],
    )  # fmt: skip


def _heading(text: str) -> list[str]:
    return ["", f"### {text}", ""]


def _line(name: str, value: Any) -> Iterator[str]:
    yield from ["", f"{name}: `{json.dumps(value)}`"]


def _others(stages: Mapping[str, Any]) -> list[str]:
    ratios = next(iter(stages.values()))["ratios"]
    return [f"{who}: ours is faster by" for who in ratios]


def _kernels(row: Mapping[str, Any]) -> str:
    kernels = row.get("kernels") or {}
    count = kernels.get("kernels")
    return "-" if count is None else f"{count}" if kernels["how"].startswith("torch") else f"{count} ({kernels['how']})"


def _least_snr(report: Mapping[str, Any]) -> float | None:
    return min((graph["snr_db"] for graph in report["graphs"].values() if graph["snr_db"] is not None), default=None)


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def _number(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    return f"{value:,.4g}" if isinstance(value, float) else f"{value}"


def _table(columns: list[str], rows: list[list[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"| {' | '.join('---' for _ in columns)} |"
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"


if __name__ == "__main__":
    sys.stdout.write(page(Path(sys.argv[1])))
