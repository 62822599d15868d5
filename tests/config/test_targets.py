"""Targets and the floors that follow from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from glimmer_export.exporter.config import read as configs
from glimmer_export.exporter.config.read import config_names
from glimmer_export.exporter.config.targets import PRECISIONS, read_target
from glimmer_export.exporter.cost import CostRequest, cost_report
from glimmer_export.exporter.cost.report import resolve
from glimmer_export.exporter.cost.roofline import bytes_per_run
from glimmer_export.runtime.contract import OptionError

T4 = CostRequest(model="xxl", target="t4", cross_attention="absorbed")


@pytest.mark.parametrize("name", config_names("target"))
def test_rates_have_a_source_and_grow_as_precision_falls(name):
    target = read_target(name)
    assert "sheet" in target.source.lower() or "brief" in target.source.lower()
    assert target.peak_tops.fp32 <= target.peak_tops.fp16 <= target.peak_tops.int8


def test_floors_by_hand():
    floors = cost_report(T4).floors.stages
    resolved = resolve(T4)
    stage_b = floors["fp16"]["live_stage_b"]
    assert stage_b.arithmetic_ms == pytest.approx(2 * cost_report(T4).ours["live_stage_b"].macs / 65e12 * 1e3)
    assert stage_b.binds == "arithmetic"
    step = floors["fp16"]["decoder_step"]
    moved = bytes_per_run(resolved.model, resolved.workload, "decoder_step", "fp16")
    assert step.bandwidth_ms == pytest.approx(16 * moved / 300e9 * 1e3)
    # A step reads the decoder's weights for one token: 24 layers of eight projections and a feed-forward, and the
    # vocabulary; beside these the states it attends to and its cache, in and out.
    weights = 24 * (8 * 4096**2 + 3 * 4096 * 10240) + 4096 * 32128
    states = 1760 * 4096 + 2 * 2 * 24 * 4096 * 32 + 2 * 32128  # logits are FP32
    assert moved == pytest.approx(2 * (weights + states), rel=1e-4)
    assert step.binds == "bandwidth"
    assert step.ms == max(step.arithmetic_ms, step.bandwidth_ms)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_stage_b_reads_the_selected_passages_alone(precision):
    few, many = (resolve(replace(T4, model="base", k=k)) for k in (25, 100))
    moved = [bytes_per_run(one.model, one.workload, "live_stage_b", precision) for one in (few, many)]
    assert moved[0] == moved[1]
    moved = [bytes_per_run(one.model, one.workload, "live_stage_a", precision) for one in (few, many)]
    # fp16 codes in every precision
    assert moved[1] - moved[0] == pytest.approx(75 * 304 * 768 * 2, rel=0.01)


def test_a_graph_that_a_question_does_not_run_has_no_floor():
    floors = cost_report(CostRequest(model="base", architecture="memory_fid", target="h200")).floors.stages
    assert floors["fp32"]["memory_encoder"].binds is None
    assert floors["fp32"]["live_stage_b"].binds == "bandwidth"


def test_unknown_target():
    with pytest.raises(OptionError, match=f"{', '.join(config_names('target'))}, or a YAML file, found none"):
        read_target("../models/base")


GOOD = "description: x\nsource: a data sheet\npeak_tops: {fp32: 1, fp16: 2, int8: 4}\nmemory_bandwidth_gb_per_s: 10\n"
GOOD += "absorbed_efficiency: 0.5\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("peak_tops: [", "YAML mapping"),
        ("- a", "found a list"),
        (GOOD + "clock: 3\n", "clock: Extra inputs are not permitted"),
        (GOOD.replace("int8: 4", "int4: 4"), "peak_tops.int8: Field required"),
        (GOOD.replace("10", "0"), "memory_bandwidth_gb_per_s: Input should be greater than 0"),
        (GOOD.replace("10", "'10'"), "valid number"),
        (GOOD.replace("source: a data sheet\n", ""), "source: Field required"),
    ],
)
def test_a_damaged_target(text, found, tmp_path, monkeypatch):
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "odd.yaml").write_text(text)
    monkeypatch.setattr(configs, "configs_directory", lambda: tmp_path)
    with pytest.raises(OptionError, match=found):
        read_target("odd")


def test_an_undamaged_target(tmp_path, monkeypatch):
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "odd.yaml").write_text(GOOD)
    monkeypatch.setattr(configs, "configs_directory", lambda: tmp_path)
    assert read_target("odd").peak_tops.int8 == 4


GPU = """tensorrt:
  version: "10.3"
  compute_capability: "8.7"
  rtx_capability: "8.6"
  memory_gb: 8
  workspace_mib: 1024
  kernel_us: 4.0
  profiles:
    - {batch: [1, 1, 1], texts: [1, 1, 1], text: question}
    - {batch: [2, 4, 8], texts: [2, 16, 16], text: passage, passages: [5, model, 50]}
"""


def read(text, tmp_path, monkeypatch):
    (tmp_path / "targets").mkdir(exist_ok=True)
    (tmp_path / "targets" / "odd.yaml").write_text(text)
    monkeypatch.setattr(configs, "configs_directory", lambda: tmp_path)
    return read_target("odd")


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("  workspace_mib: 1024\n", "", "tensorrt.workspace_mib: Field required"),
        ("workspace_mib: 1024", "workspace_mib: 0", "workspace_mib: Input should be greater than 0"),
        ('version: "10.3"', "version: 10.3", "version: Input should be a valid string"),
        ('version: "10.3"', 'version: "10"', "version: String should match"),
        ('"8.7"', '"sm_87"', "compute_capability: String should match"),
        ("[2, 4, 8]", "[2, 8, 4]", "profiles.1.batch: .* the least, the one to tune for, and the greatest"),
        ("[5, model, 50]", "[50, model, 5]", "profiles.1.passages: .* in this order"),
        ("[2, 4, 8]", "[0, 4, 8]", "greater than 0"),
        ("[2, 4, 8]", "[2, 4]", "profiles.1.batch.2: Field required"),
        ("[2, 4, 8]", "['2', 4, 8]", "valid integer"),
        ("[2, 4, 8]", "[2, most, 8]", "'model'"),
        ("text: passage,", "text: answer,", "profiles.1.text: Input should be 'question' or 'passage'"),
        ("text: passage,", "text: passage, tokens: [1, 1, 1],", "tokens: Extra inputs are not permitted"),
    ],
)
def test_a_target_whose_compiling_is_damaged(before, after, found, tmp_path, monkeypatch):
    assert before in GPU
    with pytest.raises(OptionError, match=found):
        read(GOOD + GPU.replace(before, after), tmp_path, monkeypatch)


def test_a_target_without_profiles(tmp_path, monkeypatch):
    with pytest.raises(OptionError, match=r"profiles: .*at least 1 item"):
        read(GOOD + GPU.partition("  profiles:")[0] + "  profiles: []\n", tmp_path, monkeypatch)


def test_a_target_with_a_gpu(tmp_path, monkeypatch):
    found = read(GOOD + GPU, tmp_path, monkeypatch).tensorrt
    assert found.stand_in
    assert [profile.batch for profile in found.profiles] == [(1, 1, 1), (2, 4, 8)]
    assert found.profiles[1].passages == (5, "model", 50)


BUILT_AHEAD = {"7.5", "8.0", "8.6", "8.9", "12.0"}
"""What TensorRT-RTX 1.7 lists."""


def test_every_gpu_has_a_capability_that_can_be_built_for_ahead_of_time():
    gpus = {name: target.tensorrt for name in config_names("target") if (target := read_target(name)).tensorrt}
    assert len(gpus) >= 7
    for gpu in gpus.values():
        assert gpu.rtx_capability in BUILT_AHEAD
        assert gpu.stand_in == (gpu.compute_capability not in BUILT_AHEAD)
    for gpu in gpus.values():
        # Every batch up to the greatest has its profile, one question alone the first.
        for sizes in ([profile.batch for profile in gpu.profiles], [profile.texts for profile in gpu.profiles]):
            assert sizes[0][:2] == (1, 1)
            assert [size[0] for size in sizes[1:]] == [size[2] + 1 for size in sizes[:-1]]
