"""Bars over results as the parts write them, and the page; the figures are made up."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest

from glimmer_export.exporter.bench.gpu.bars import summary_of
from glimmer_export.exporter.bench.gpu.fid import MODES
from glimmer_export.exporter.bench.gpu.measure import PARTS
from glimmer_export.exporter.bench.gpu.parts import peers
from glimmer_export.exporter.bench.gpu.report import page
from glimmer_export.exporter.bench.gpu.results import write_results
from glimmer_export.exporter.bench.gpu.runner import DONE, FAILED, Part
from glimmer_export.exporter.bench.gpu.setting import ORT_CUDA, REHEARSAL, RTX, TORCH


def graphs(snr_db) -> dict:
    return {"decoder_step": {"max_abs_err": 0.1, "mean_abs_err": 0.01, "snr_db": snr_db, "cosine": 1.0}}


def answers(em_delta, overlap, gate=None) -> dict:
    return {
        "questions": 1000, "em_reference": 0.9, "em_candidate": 0.9 + em_delta, "em_delta": em_delta,
        "answers_equal": 0.99, "top_m_overlap": overlap, "graphs": graphs(60.0), "gate": gate, "engine": RTX,
    }  # fmt: skip


def contender(batch, milliseconds) -> dict:
    return {"batch": batch, "median_ms": milliseconds, "questions_per_s": 1e3 * batch / milliseconds}


def latency(mode, ratio, engine=RTX) -> dict:
    sides = {RTX: contender(1, 4.0), mode: contender(1, 4.0 * (ratio or 1.0))}
    return {
        "precision": "fp16", "mode": mode, "passages": 5, "contenders": sides, "ratios": {RTX: ratio}, "ratio": ratio,
        "engine": engine, "not_opened": {},
    }  # fmt: skip


def throughput(mode, ratio) -> dict:
    found = latency(mode, ratio)
    return {**found, "by_batch": {"16 and 8": found.pop("contenders")}}


def step_of(share) -> dict:
    rows = {RTX: {"median_ms": 0.5 / share, "of_bandwidth_floor": share}, TORCH: {"error": "no | luck"}}
    return {
        "layers": 3, "form": "absorbed", "precision": "fp16", "bandwidth_ms": 0.5, "engines": rows, "engine": RTX,
        "of_bandwidth_floor": share,
    }  # fmt: skip


def probe(agrees, **tries) -> dict:
    tried = {"built": True, "loaded": True, "ran": True, "agrees": agrees}
    return {"engine": RTX, "agrees": agrees, "capability": "CURRENT", "tries": {"CURRENT": tried, **tries}}


def graphs_of(engine, agrees) -> dict:
    facts = {"decoder_step": {"agrees": agrees, "snr_db": 100.0, "runs": 6}}
    return {"engine": engine, "version": "2.11", "agrees": agrees, "graphs": facts}


def parity() -> dict:
    checks = [{"name": "max_em_loss_points", "limit": 0.5, "found": 0.1, "passed": True}]
    return {
        "fp16-same-graphs": {**answers(0.0, 1.0), "graphs": graphs(50.0)},
        "fp16-answers": answers(-0.001, 0.998),
        "int8-fp16-same-graphs": {**answers(0.0, 1.0), "graphs": graphs(None)},
        "int8-fp16-answers": answers(-0.001, 0.99, {"name": "default", "passed": True, "checks": checks}),
    }  # fmt: skip


ANSWERS = {"engine": TORCH, "answers": 80, "same_answers": 80, "agrees": True, "queued": {}, "launched": 9}


def good() -> dict[str, dict]:
    return {
        "first": {
            "torch-stages-graphs": graphs_of("torch stages (float32)", True), "torch-stages-answers": ANSWERS,
            "tensorrt-rtx": probe(True),
        },
        "parity-tensorrt-rtx": parity(),
        "decoder-steps": {
            f"{size}-{form}-step": step_of(share)
            for size, share in (("xl", 0.5), ("xxl", 0.7)) for form in ("absorbed", "cached")
        },
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
    return {f"{bar['engine']}: {bar['bar']}": bar["passed"] for bar in summary_of(parts)["bars"]}


def test_all_bars_pass(tmp_path):
    found = verdicts(parts_of(tmp_path, good()))
    assert set(found.values()) == {True}
    assert len(found) == 17


@pytest.mark.parametrize(
    ("part", "step", "value", "bar"),
    [
        ("first", "tensorrt-rtx", probe(False), "engines built on this GPU"),
        ("first", "torch-stages-graphs", graphs_of(TORCH, False), "every graph agrees"),
        ("first", "torch-stages-answers", {**ANSWERS, "agrees": False}, "every answer agrees"),
        ("parity-tensorrt-rtx", "fp16-answers", answers(0.004, 0.998), "fp16: EM"),
        ("parity-tensorrt-rtx", "fp16-answers", answers(0.0, 0.99), "fp16: overlap"),
        ("parity-tensorrt-rtx", "fp16-same-graphs", {"graphs": graphs(44.0)}, "fp16: SNR of decoder_step"),
        ("parity-tensorrt-rtx", "int8-fp16-same-graphs", {"graphs": graphs(19.0)}, "int8-fp16: SNR of decoder_step"),
        ("decoder-steps", "xl-cached-step", step_of(0.39), "decoder step, xl width, cached"),
        ("decoder-steps", "xxl-absorbed-step", step_of(0.59), "decoder step, xxl width, absorbed"),
        ("peers-large", "latency-k5-default", latency("default", 4.9), "faster than FiD k=5, default"),
        ("peers-large", "latency-k5-reduce-overhead", latency("reduce-overhead", 1.9), "FiD k=5, reduce"),
        ("peers-large", "throughput-k5-eager", throughput("eager", 2.9), "a second of FiD k=5, eager"),
        ("peers-large", "throughput-k5-default", throughput("default", None), "FiD k=5, default"),
    ],
)
def test_each_bar_can_fail(tmp_path, part, step, value, bar):
    results = deepcopy(good())
    results[part][step] = value
    failed = [name for name, passed in verdicts(parts_of(tmp_path, results)).items() if not passed]
    assert len(failed) == 1
    assert bar in failed[0]


def test_only_engines_that_users_have_pass_a_bar():
    """Our stages run by torch are shown beside them, however fast they are."""
    ratios = {"torch stages (bfloat16)": 9.0, ORT_CUDA: 2.0}
    assert peers._best(ratios) == {"ratios": ratios, "engine": ORT_CUDA, "ratio": 2.0}
    assert peers._best({"torch stages (bfloat16)": 9.0})["ratio"] is None


def test_each_engine_that_was_compared_has_its_bars(tmp_path):
    both = {**good(), "parity-onnxruntime-cuda": {**parity(), "fp16-answers": answers(0.004, 0.998)}}
    found = verdicts(parts_of(tmp_path, both))
    assert len(found) == 22
    assert [bar for bar, passed in found.items() if not passed] == [
        "onnxruntime-cuda: fp16: EM within so many points of FP32's"
    ]


def test_what_was_not_measured_does_not_pass(tmp_path):
    found = verdicts(parts_of(tmp_path, {"first": {}}))
    assert set(found.values()) == {None}


def page_of(folder) -> str:
    write_results(folder, PARTS, folder / "r.tar.xz")
    return page(folder / "r.tar.xz")


def test_the_page_has_every_bar_and_what_is_open(tmp_path):
    results = good()
    results["first"]["tensorrt-rtx"] = probe(True, **{"8.0": {
        "built": True, "loaded": False, "ran": False, "agrees": False, "error": "sm_80 | no",
    }})  # fmt: skip
    parts = parts_of(tmp_path, results)
    part = parts["decoder-steps"]
    part.steps["xxl-cached-step"] = {"run": 0, "seconds": 1.0, "status": FAILED, "error": "stopped after 60 s"}
    part.write()
    text = page_of(tmp_path)
    assert text.startswith("# Measured on NVIDIA H200\n")
    for bar in summary_of(parts)["bars"]:
        assert f"| {bar['bar']} | {bar['engine'] or '-'} | " in text
    assert "- `decoder-steps/xxl-cached-step`: stopped after 60 s" in text
    assert "| decoder step, xxl width, cached, share of its bandwidth floor | - | 0.6 | - | not measured |" in text
    assert "sm_80 \\| no" in text
    assert "| torch stages | - | - | no \\| luck |" in text
    assert "Parts never begun: parity-onnxruntime-cuda, large-onnxruntime-cuda, large-torch, " in text


def test_a_rehearsal_passes_nothing(tmp_path):
    assert set(verdicts(parts_of(tmp_path, good(), REHEARSAL)).values()) == {None}
    assert "nothing here is a measurement" in page_of(tmp_path)


def test_a_page_of_nothing_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"none of first\.json"):
        page_of(tmp_path)


def test_the_summary_is_json(tmp_path):
    summary = summary_of(parts_of(tmp_path, good()))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["devices"] == ["NVIDIA H200"]
