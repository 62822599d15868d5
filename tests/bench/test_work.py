"""Multiply-adds and bytes of stages against numbers worked out by hand."""

from __future__ import annotations

from exporter.bench.work import Lengths, stage_macs, stage_work
from exporter.checkpoint import ModelOptions
from exporter.checkpoint.options import config_from_options
from exporter.checkpoint.presets import preset
from runtime.contract import Forms

OURS, PAPER = Forms("fp16", "lazy", "absorbed"), Forms("fp16", "full", "cached")
BASE = config_from_options(ModelOptions("glimmer"), preset("base"), subject="base")
LENGTHS = Lengths(25, 5, 48, 304, 8)
LAYER = 4 * 768 * 768 + 3 * 768 * 2048
JOINT = 352 * LAYER + 2 * 768 * 352 * 352


def test_the_papers_form():
    assert stage_macs(BASE, LENGTHS, PAPER) == {
        "question_encoder": 8 * (48 * LAYER + 2 * 768 * 48 * 48),
        "live_stage_a": 25 * JOINT,
        "live_stage_b": 3 * 5 * JOINT,
        "cross_kv": 12 * 2 * 768 * 768 * 1760,
        "decoder_step": 8 * (12 * (LAYER + 2 * 768 * 8 + 2 * 768 * 768 + 2 * 768 * 1760) + 32128 * 768),
    }


def test_our_form():
    macs = stage_macs(BASE, LENGTHS, OURS)
    assert macs["live_stage_a"] == 25 * (2 * 12 * 768 * 352 + 2 * 768 * 768 + 3 * 768 * 2048)
    assert macs["live_stage_b"] == 4 * 5 * JOINT
    step = 12 * (LAYER + 2 * 768 * 8 + 4 * 768 * 768 + 2 * 12 * 768 * 1760) + 32128 * 768
    assert macs["decoder_step"] == 8 * step
    assert "cross_kv" not in macs


def test_what_waits_for_memory():
    work = stage_work(BASE, LENGTHS, OURS, 2)
    assert work["live_stage_a"].memory_bytes == 2 * 25 * 304 * 768 * 2
    assert work["live_stage_a"].bytes == work["live_stage_a"].memory_bytes + 4 * LAYER
    weights = 12 * (8 * 768 * 768 + 3 * 768 * 2048) + 32128 * 768
    assert work["decoder_step"].bytes == 8 * 4 * (weights + 2 * (1760 * 768 + 2 * 12 * 8 * 768))
    assert work["live_stage_b"].macs == 2 * stage_macs(BASE, LENGTHS, OURS)["live_stage_b"]
    assert stage_work(BASE, LENGTHS, PAPER, 1)["live_stage_a"].bound == "arithmetic"


def test_a_deep_stage_a_is_arithmetic():
    large = config_from_options(ModelOptions("glimmer"), preset("large"), subject="large")
    assert large.num_stage_a_layers == 2
    assert stage_work(large, LENGTHS, OURS, 1)["live_stage_a"].bound == "arithmetic"
