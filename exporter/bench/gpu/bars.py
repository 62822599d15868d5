"""What was found, held against what was asked for: each bar with its limit, and `passed` None if it is not known.

A bar names the engine that it was found with, and only one that users have can pass it: our stages run by torch are
measured beside them, and have a bar of their own, that our CUDA layer runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from glimmer_export.exporter.bench.gpu.backends import CURRENT, FIRST, PROBES
from glimmer_export.exporter.bench.gpu.fid import MODES
from glimmer_export.exporter.bench.gpu.runner import DONE, Part
from glimmer_export.exporter.bench.gpu.setting import REHEARSAL, RTX, SHIPPED, TORCH
from glimmer_export.exporter.tolerances import MIN_SNR_DB
from glimmer_export.runtime.contract import CROSS_ATTENTION_FORMS

__all__ = ["summary_of"]

STEP_SHARES = {"xl": 0.40, "xxl": 0.60}
"""Least share of its bandwidth floor that a decoder step at batch 1 is to reach."""
LATENCY = {"default": 5.0, "reduce-overhead": 2.0}
"""How many times faster than Hugging Face's FiD with 5 passages one question is to be at large size."""
THROUGHPUT = 3.0
FEW = 5
"""Passages that the peer reads."""
FP16_EM_POINTS, FP16_OVERLAP = 0.2, 0.995


def summary_of(parts: Mapping[str, Part]) -> dict[str, Any]:
    """Bars, the devices of all runs, and which steps are not done. What was rehearsed passes no bar and fails none."""
    results = {name: part.results for name, part in parts.items()}
    devices = {str(run["device"]) for part in parts.values() for run in part.runs}
    bars = [
        *_first(results.get(FIRST, {})), *_parity(results), *_steps(results.get("decoder-steps", {})),
        *_peers(results.get("peers-large", {})),
    ]  # fmt: skip
    if REHEARSAL in devices:
        bars = [{**bar, "passed": None} for bar in bars]
    return {
        "devices": sorted(devices),
        "bars": bars,
        "open": {
            f"{name}/{step}": facts.get("error", facts["status"])
            for name, part in parts.items() for step, facts in part.steps.items() if facts["status"] != DONE
        },
    }


def _first(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for what, step in {"graph": PROBES[TORCH], "answer": "torch-stages-answers"}.items():
        found = results.get(step)
        yield _yes(f"our CUDA layer runs, and every {what} agrees", TORCH, found=found and bool(found["agrees"]))
    found = results.get(PROBES[RTX])
    agrees = None if found is None else bool(found["tries"].get(CURRENT, {}).get("agrees"))
    yield _yes("engines built on this GPU run and agree", RTX, found=agrees)


def _parity(results: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Of every engine that was compared; if none was, bars of which nothing is known."""
    compared = {engine: results.get(f"parity-{engine}", {}) for engine in SHIPPED}
    seen = {
        engine: found for engine, found in compared.items()
        if any(step.endswith(("-answers", "-same-graphs")) for step in found)
    }
    for engine, found in (seen or {SHIPPED[0]: {}}).items():
        yield from _parity_of(engine, found)


def _parity_of(engine: str, results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    fp16, int8 = results.get("fp16-answers"), results.get("int8-fp16-answers")
    yield _bar("fp16: EM within so many points of FP32's", engine, FP16_EM_POINTS, fp16 and _points(fp16), most=True)
    yield _bar("fp16: overlap of the selected passages", engine, FP16_OVERLAP, fp16 and fp16["top_m_overlap"])
    for check in (int8 or {}).get("gate", {}).get("checks", []):
        yield {
            "bar": f"int8-fp16: {check['name']}", "engine": engine,
            **{key: check[key] for key in ("limit", "found", "passed")},
        }  # fmt: skip
    if int8 is None:
        yield _yes("int8-fp16: the default gate", engine, found=None)
    for precision, least in MIN_SNR_DB.items():
        graphs = results.get(f"{precision}-same-graphs", {}).get("graphs", {})
        # None is JSON's infinity: no error at all.
        for name, error in graphs.items():
            snr = error["snr_db"]
            passed = snr is None or snr >= least
            yield {"bar": f"{precision}: SNR of {name} beside the CPU, dB", "engine": engine, "limit": least,
                   "found": snr, "passed": passed}  # fmt: skip


def _steps(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for size, least in STEP_SHARES.items():
        for form in CROSS_ATTENTION_FORMS:
            found = results.get(f"{size}-{form}-step") or {}
            yield _bar(f"decoder step, {size} width, {form}, share of its bandwidth floor", found.get("engine"), least,
                       found.get("of_bandwidth_floor"))  # fmt: skip


def _peers(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for mode, least in LATENCY.items():
        found = results.get(f"latency-k{FEW}-{mode}", {})
        yield _bar(f"large, one question: times faster than FiD k={FEW}, {mode}", found.get("engine"), least,
                   found.get("ratio"))  # fmt: skip
    for mode in MODES:
        found = results.get(f"throughput-k{FEW}-{mode}", {})
        yield _bar(f"large, best batch of each: times the questions a second of FiD k={FEW}, {mode}",
                   found.get("engine"), THROUGHPUT, found.get("ratio"))  # fmt: skip


def _points(report: Mapping[str, Any]) -> float | None:
    delta = report["em_delta"]
    return None if delta is None else 100 * abs(float(delta))


def _yes(name: str, engine: str, *, found: bool | None) -> dict[str, Any]:
    return {"bar": name, "engine": engine, "limit": True, "found": found, "passed": found}


def _bar(name: str, engine: str | None, limit: float, found: float | None, *, most: bool = False) -> dict[str, Any]:
    passed = None if found is None else found <= limit + 1e-9 if most else found >= limit
    return {"bar": name, "engine": engine, "limit": limit, "found": found, "passed": passed}
