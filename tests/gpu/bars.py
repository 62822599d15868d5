"""What was found, held against what was asked for: each bar with its limit, and `passed` None where it is not known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from exporter.tolerances import MIN_SNR_DB
from tests.gpu.fid import MODES
from tests.gpu.runner import DONE, Part
from tests.gpu.setting import REHEARSAL

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
        *_engines(results.get("engines", {})), *_parity(results.get("parity", {})),
        *_steps(results.get("decoder-steps", {})), *_peers(results.get("peers-large", {})),
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


def _engines(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    found = results.get("CURRENT")
    agrees = None if found is None else bool(found["agrees"])
    yield {"bar": "engines built on this GPU run and agree", "limit": True, "found": agrees, "passed": agrees}


def _parity(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    fp16, int8 = results.get("fp16-answers"), results.get("int8-fp16-answers")
    yield _bar("fp16: EM within so many points of FP32's", FP16_EM_POINTS, fp16 and _points(fp16), most=True)
    yield _bar("fp16: overlap of the selected passages", FP16_OVERLAP, fp16 and fp16["top_m_overlap"])
    for check in (int8 or {}).get("gate", {}).get("checks", []):
        yield {"bar": f"int8-fp16: {check['name']}", **{key: check[key] for key in ("limit", "found", "passed")}}
    if int8 is None:
        yield {"bar": "int8-fp16: the default gate", "limit": True, "found": None, "passed": None}
    for precision, least in MIN_SNR_DB.items():
        graphs = results.get(f"{precision}-same-graphs", {}).get("graphs", {})
        # None is JSON's infinity: no error at all.
        for name, error in graphs.items():
            snr = error["snr_db"]
            passed = snr is None or snr >= least
            yield {"bar": f"{precision}: SNR of {name} beside the CPU, dB", "limit": least, "found": snr,
                   "passed": passed}  # fmt: skip


def _steps(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for size, least in STEP_SHARES.items():
        found = results.get(f"{size}-step")
        yield _bar(f"decoder step, {size} width, share of its bandwidth floor", least,
                   found and found["of_bandwidth_floor"])  # fmt: skip


def _peers(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for mode, least in LATENCY.items():
        yield _bar(f"large, one question: times faster than FiD k={FEW}, {mode}", least,
                   results.get(f"latency-k{FEW}-{mode}", {}).get("ratio"))  # fmt: skip
    for mode in MODES:
        yield _bar(f"large, best batch of each: times the questions a second of FiD k={FEW}, {mode}", THROUGHPUT,
                   results.get(f"throughput-k{FEW}-{mode}", {}).get("ratio"))  # fmt: skip


def _points(report: Mapping[str, Any]) -> float | None:
    delta = report["em_delta"]
    return None if delta is None else 100 * abs(float(delta))


def _bar(name: str, limit: float, found: float | None, *, most: bool = False) -> dict[str, Any]:
    passed = None if found is None else found <= limit + 1e-9 if most else found >= limit
    return {"bar": name, "limit": limit, "found": found, "passed": passed}
