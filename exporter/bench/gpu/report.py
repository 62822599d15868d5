"""A file of results as a page.

    python -m glimmer_export.exporter.bench.gpu.report results.tar.xz > docs/measurements/h200.md
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from glimmer_export.exporter.bench.gpu.bars import summary_of
from glimmer_export.exporter.bench.gpu.measure import PARTS
from glimmer_export.exporter.bench.gpu.results import parts_of, unpack_results
from glimmer_export.exporter.bench.gpu.runner import Part
from glimmer_export.exporter.bench.gpu.setting import REHEARSAL

__all__ = ["page"]


def page(archive: Path) -> str:
    """Markdown of everything that was found; what was not measured is named as such."""
    with tempfile.TemporaryDirectory() as folder:
        unpack_results(archive, Path(folder))
        parts = parts_of(Path(folder), PARTS)
    if not parts:
        raise SystemExit(f"{archive}: none of {', '.join(f'{name}.json' for name in PARTS)}")
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
        ["bar", "engine", "limit", "found", "passed"],
        [
            [bar["bar"], bar["engine"] or "-", _number(bar["limit"]), _number(bar["found"]), verdicts[bar["passed"]]]
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
    if name.startswith("parity"):
        yield from _table(
            ["step", "engine", "questions", "EM, reference", "EM", "answers equal", "top-m overlap", "least SNR, dB"],
            [
                [step, found["engine"], *(_number(found[key]) for key in PARITY), _number(_least_snr(found))]
                for step, found in results.items() if "graphs" in found
            ],
        )  # fmt: skip
        return
    for step, found in results.items():
        yield from _measured(step, found)


PARITY = ("questions", "em_reference", "em_candidate", "answers_equal", "top_m_overlap")


def _measured(step: str, found: Mapping[str, Any]) -> Iterator[str]:
    """One step's finding, in the form of what it holds, with the engine beside every figure."""
    for key, form in _FORMS.items():
        if key in found:
            yield from form(step, found)
            return
    yield from _line(step, found)


def _graphs(step: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading(f"{step}: {found['engine']} {found['version']}")
    yield from _table(
        ["graph", "agrees", "SNR, dB", "error"],
        [
            [name, _number(graph["agrees"]), _number(graph.get("snr_db")), graph.get("error", "")]
            for name, graph in found["graphs"].items()
        ],
    )


def _tries(step: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading(f"{step}: one engine of one graph")
    keys = ("built", "loaded", "ran", "agrees")
    yield from _table(
        ["engine for", *keys, "error"],
        [
            [capability, *(_number(facts[key]) for key in keys), facts.get("error", "")]
            for capability, facts in found["tries"].items()
        ],
    )


def _stages(step: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading(step)
    others = next(iter(found["stages"].values()))["ratios"]
    yield from _table(
        ["graph", "runs", "engine", "ms", "floor, ms", "of its floor", *(f"{who}: slower by" for who in others)],
        [
            [name, stage["runs"], stage["first"], _number(stage["contenders"][stage["first"]]["median_ms"]),
             _number(stage["floor_ms"]), _number(stage["of_floor"]), *map(_times, stage["ratios"].values())]
            for name, stage in found["stages"].items()
        ],
    )  # fmt: skip


def _batches(step: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading(step)
    yield from _table(
        ["batch", "engine", "ms", "questions/s"],
        [
            [batch, found["engine"], _number(row["median_ms"]), _number(row["questions_per_s"])]
            for batch, row in found["batches"].items()
        ],
    )


def _by_batch(step: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield from _contenders(step, [row for sides in found["by_batch"].values() for row in sides.items()], found)


def _by_contender(step: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield from _contenders(step, found["contenders"].items(), found)


def _contenders(step: str, rows: Iterable[tuple[str, Mapping[str, Any]]], found: Mapping[str, Any]) -> Iterator[str]:
    ratios = ", ".join(f"{engine} {_times(ratio)}" for engine, ratio in found["ratios"].items())
    yield from _heading(f"{step}: ours is better by {ratios or '-'}")
    yield from _table(
        ["contender", "batch", "ms", "questions/s", "error"],
        [
            [who, row["batch"], _number(row.get("median_ms")), _number(row.get("questions_per_s")),
             row.get("error", "")]
            for who, row in rows
        ],
    )  # fmt: skip
    yield from (f"\n{engine} could not be opened: {error}" for engine, error in found["not_opened"].items())


def _variants(step: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading(f"{step}: {found['engine']}")
    yield from _table(
        ["variant", "ms", "to the default", "same answers"],
        [
            [name, _number(row["median_ms"]), _number(found["ratios"][name]),
             "yes" if found["same_answers"][name] else "**no**"]
            for name, row in found["variants"].items()
        ],
    )  # fmt: skip


def _step(step: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading(f"{step}: {found['layers']} layers, floor {_number(found['bandwidth_ms'])} ms")
    yield from _table(
        ["engine", "ms", "of its bandwidth floor", "error"],
        [
            [engine, _number(row.get("median_ms")), _number(row.get("of_bandwidth_floor")), row.get("error", "")]
            for engine, row in found["engines"].items()
        ],
    )


def _counts(step: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading(f"{step}: {found['engine']}")
    yield from _table(
        ["of", "kernels", "copies", "ms in kernels", "error"],
        [
            [name, _kernels(count), _number(count.get("copies")), _number(count.get("kernel_ms")),
             count.get("error", "")]
            for name, count in found["counts"].items()
        ],
    )  # fmt: skip


_FORMS = {
    "tries": _tries, "graphs": _graphs, "stages": _stages, "batches": _batches, "by_batch": _by_batch,
    "contenders": _by_contender, "variants": _variants, "bandwidth_ms": _step, "counts": _counts,
}  # fmt: skip
"""By what a finding holds."""


def _heading(text: str) -> list[str]:
    return ["", f"### {text}", ""]


def _line(name: str, value: Any) -> Iterator[str]:
    yield from ["", f"{name}: `{json.dumps(value)}`"]


def _kernels(count: Mapping[str, Any]) -> str:
    kernels, how = count["kernels"], count["how"]
    return "-" if kernels is None else f"{kernels}" if how.startswith("torch") else f"{kernels} ({how})"


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
