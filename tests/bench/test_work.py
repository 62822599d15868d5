"""Multiply-adds and bytes of stages against numbers worked out by hand."""

from __future__ import annotations

from glimmer_export.exporter.bench.ceilings import StageWork, stage_work
from glimmer_export.exporter.checkpoint import ModelOptions
from glimmer_export.exporter.checkpoint.options import config_from_options
from glimmer_export.exporter.checkpoint.t5_shape import preset
from glimmer_export.exporter.cost.model import Workload
from glimmer_export.runtime.contract import BundleManifest, Forms

OURS, PAPER = Forms(("fp16",), "lazy", "absorbed"), Forms(("fp16",), "full", "cached")
WORKLOAD = Workload(25, 5, 48, 304, answer_tokens=8, corpus_passages=1)
LAYER = 4 * 768 * 768 + 3 * 768 * 2048
JOINT = 352 * LAYER + 2 * 768 * 352 * 352
MEMORY = 25 * 304 * 768 * 2


def work_of(forms: Forms, batch_size: int = 1, size: str = "base") -> dict[str, StageWork]:
    config = config_from_options(ModelOptions("glimmer"), preset(size), subject=size)
    manifest = BundleManifest(
        1, config.shape, {}, None, forms.codecs, forms.stage_a, forms.cross_attention, None, (), None, "", "",
        None, log_probability=forms.log_probability,
    )
    return stage_work(manifest, WORKLOAD, batch_size)


def test_the_papers_form():
    assert {name: work.macs for name, work in work_of(PAPER).items()} == {
        "question_encoder": 8 * (48 * LAYER + 2 * 768 * 48 * 48),
        "live_stage_a": 25 * (JOINT + 768),
        "live_stage_b": 3 * 5 * JOINT,
        "cross_kv": 12 * 2 * 768 * 768 * 1760,
        "decoder_step": 8 * (12 * (LAYER + 2 * 768 * 8 + 2 * 768 * 768 + 2 * 768 * 1760) + 32128 * 768),
    }


def test_our_form():
    work = work_of(OURS)
    assert work["live_stage_b"].macs == 4 * 5 * JOINT
    step = 12 * (LAYER + 2 * 768 * 8 + 4 * 768 * 768 + 2 * 12 * 768 * 1760) + 32128 * 768
    assert work["decoder_step"].macs == 8 * step
    assert "cross_kv" not in work
    assert {name: one.bound for name, one in work.items()} == {
        "question_encoder": "arithmetic", "live_stage_a": "memory", "live_stage_b": "arithmetic",
        "decoder_step": "memory",
    }  # fmt: skip


def test_what_waits_for_memory():
    one, two = work_of(OURS, 1), work_of(OURS, 2)
    assert (one["live_stage_a"].memory_bytes, two["live_stage_a"].memory_bytes) == (MEMORY, 2 * MEMORY)
    small = 2 * (48 * 768 * 4 + 48 * 4 + 25 * 4 + 25 * 304 * 4 + 25 * 4)
    assert two["live_stage_a"].bytes == 2 * MEMORY + 4 * LAYER + small
    weights = 4 * (12 * (8 * 768 * 768 + 3 * 768 * 2048) + 32128 * 768)
    cache = 2 * 12 * 12 * 8 * 64 * 4
    rest = 4 + 4 + 1760 * 4 + 1760 * 768 * 4 + 2 * cache + 4 + 4 + 32128 * 4  # a token, its log-probability, logits
    assert two["decoder_step"].bytes == 8 * (weights + 2 * rest)
    assert two["live_stage_b"].macs == 2 * one["live_stage_b"].macs
    assert work_of(PAPER)["live_stage_a"].bound == "arithmetic"


def test_a_deep_stage_a_is_arithmetic():
    assert work_of(OURS, size="large")["live_stage_a"].bound == "arithmetic"
