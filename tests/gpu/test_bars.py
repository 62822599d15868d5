"""Bars over results as the parts write them, and the page; the figures are made up."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest

from tests.gpu.bars import summary_of
from tests.gpu.fid import MODES
from tests.gpu.report import page
from tests.gpu.runner import DONE, FAILED, Part
from tests.gpu.setting import REHEARSAL


def graphs(snr_db) -> dict:
    return {"decoder_step": {"max_abs_err": 0.1, "mean_abs_err": 0.01, "snr_db": snr_db, "cosine": 1.0}}


def answers(em_delta, overlap, gate=None) -> dict:
    return {
        "questions": 1000, "em_reference": 0.9, "em_candidate": 0.9 + em_delta, "em_delta": em_delta,
        "answers_equal": 0.99, "top_m_overlap": overlap, "graphs": graphs(60.0), "gate": gate,
    }  # fmt: skip


def contender(batch, milliseconds) -> dict:
    return {
        "batch": batch, "median_ms": milliseconds, "questions_per_s": 1e3 * batch / milliseconds,
        "kernels": {"kernels": 100, "how": "torch.profiler (CUPTI)"},
    }  # fmt: skip


def latency(mode, ratio) -> dict:
    sides = {"ours": contender(1, 4.0), mode: contender(1, 4.0 * ratio)}
    return {"precision": "fp16", "mode": mode, "passages": 5, "contenders": sides, "ratio": ratio}


def throughput(mode, ratio) -> dict:
    sides = {"ours": contender(16, 4.0), mode: contender(8, 2.0 * ratio)}
    return {"precision": "fp16", "mode": mode, "passages": 5, "by_batch": {"16 and 8": sides}, "ratio": ratio}


def step_of(share) -> dict:
    return {
        "layers": 3, "precision": "fp16", "median_ms": 0.5 / share, "bandwidth_ms": 0.5, "of_bandwidth_floor": share,
        "kernels": {"kernels": 30, "how": "layers of the engine"},
    }  # fmt: skip


def good() -> dict[str, dict]:
    checks = [{"name": "max_em_loss_points", "limit": 0.5, "found": 0.1, "passed": True}]
    tried = {"built": True, "deserialised": True, "ran": True, "agrees": True, "graphs": {"fp16/decoder_step": {}}}
    return {
        "engines": {
            "CURRENT": tried,
            "7.5": {**tried, "ran": False, "agrees": False, "graphs": {"fp16/decoder_step": {"error": "sm_75 | no"}}},
            "choice": {"backend": "tensorrt-rtx", "capability": "CURRENT"},
        },
        "parity": {
            "fp16-same-graphs": {**answers(0.0, 1.0), "graphs": graphs(50.0)},
            "fp16-answers": answers(-0.001, 0.998),
            "int8-fp16-same-graphs": {**answers(0.0, 1.0), "graphs": graphs(None)},
            "int8-fp16-answers": answers(-0.001, 0.99, {"name": "default", "passed": True, "checks": checks}),
        },
        "decoder-steps": {"xl-step": step_of(0.5), "xxl-step": step_of(0.7)},
        "peers-large": {
            **{f"latency-k5-{mode}": latency(mode, 6.0) for mode in MODES},
            **{f"latency-k25-{mode}": latency(mode, 1.0) for mode in MODES},
            **{f"throughput-k5-{mode}": throughput(mode, 4.0) for mode in MODES},
        },
    }  # fmt: skip


def parts_of(tmp_path, results, device="NVIDIA H200") -> dict[str, Part]:
    parts = {}
    for name, found in results.items():
        part = Part.open(tmp_path, name)
        part.runs.append({"date": "2026-01-01", "device": device, "command": "c", "versions": {"a": "1"}})
        done = {"run": 0, "seconds": 1.0, "status": DONE}
        part.steps = {step: {**done, "result": value} for step, value in found.items()}
        part.write()
        parts[name] = part
    return parts


def verdicts(parts) -> dict[str, bool | None]:
    return {bar["bar"]: bar["passed"] for bar in summary_of(parts)["bars"]}


def test_all_bars_pass(tmp_path):
    found = verdicts(parts_of(tmp_path, good()))
    assert set(found.values()) == {True}
    assert len(found) == 13


@pytest.mark.parametrize(
    ("part", "step", "value", "bar"),
    [
        ("engines", "CURRENT", {"agrees": False, "graphs": {}}, "engines built on this GPU"),
        ("parity", "fp16-answers", answers(0.004, 0.998), "fp16: EM"),
        ("parity", "fp16-answers", answers(0.0, 0.99), "fp16: overlap"),
        ("parity", "fp16-same-graphs", {"graphs": graphs(44.0)}, "fp16: SNR of decoder_step"),
        ("parity", "int8-fp16-same-graphs", {"graphs": graphs(19.0)}, "int8-fp16: SNR of decoder_step"),
        ("decoder-steps", "xl-step", step_of(0.39), "decoder step, xl width"),
        ("decoder-steps", "xxl-step", step_of(0.59), "decoder step, xxl width"),
        ("peers-large", "latency-k5-default", latency("default", 4.9), "faster than FiD k=5, default"),
        ("peers-large", "latency-k5-reduce-overhead", latency("reduce-overhead", 1.9), "FiD k=5, reduce"),
        ("peers-large", "throughput-k5-eager", throughput("eager", 2.9), "a second of FiD k=5, eager"),
        ("peers-large", "throughput-k5-default", {**throughput("default", 4.0), "ratio": None}, "FiD k=5, default"),
    ],
)
def test_each_bar_can_fail(tmp_path, part, step, value, bar):
    results = deepcopy(good())
    results[part][step] = value
    failed = [name for name, passed in verdicts(parts_of(tmp_path, results)).items() if not passed]
    assert len(failed) == 1
    assert bar in failed[0]


def test_what_was_not_measured_does_not_pass(tmp_path):
    found = verdicts(parts_of(tmp_path, {"engines": {}}))
    assert set(found.values()) == {None}


def test_the_page_has_every_bar_and_what_is_open(tmp_path):
    parts = parts_of(tmp_path, good())
    part = parts["decoder-steps"]
    part.steps["xxl-step"] = {"run": 0, "seconds": 1.0, "status": FAILED, "error": "stopped after 60 s"}
    part.write()
    text = page(tmp_path)
    assert text.startswith("# Measured on NVIDIA H200\n")
    for bar in summary_of(parts)["bars"]:
        assert f"| {bar['bar']} | " in text
    assert "- `decoder-steps/xxl-step`: stopped after 60 s" in text
    assert "| decoder step, xxl width, share of its bandwidth floor | 0.6 | - | not measured |" in text
    assert "sm_75 \\| no" in text
    assert "Parts never begun: speed-large, switches-base, speed-base, peers-base." in text


def test_a_rehearsal_passes_nothing(tmp_path):
    assert set(verdicts(parts_of(tmp_path, good(), REHEARSAL)).values()) == {None}
    assert "nothing here is a measurement" in page(tmp_path)


def test_a_page_of_nothing_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"none of engines\.json"):
        page(tmp_path)


def test_the_summary_is_json(tmp_path):
    summary = summary_of(parts_of(tmp_path, good()))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["devices"] == ["NVIDIA H200"]
