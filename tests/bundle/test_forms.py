"""Which form is chosen where none is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from glimmer_export.exporter.bundle import FormOptions, choose_forms
from glimmer_export.exporter.checkpoint import CheckpointConfig
from glimmer_export.exporter.checkpoint.options import ModelOptions, config_from_options
from glimmer_export.exporter.checkpoint.t5_shape import preset
from glimmer_export.exporter.config.targets import read_target
from glimmer_export.exporter.engines.cross_attention import KERNELS, cross_attention_ms, drafted_runs
from glimmer_export.runtime.contract import OptionError


def config_of(architecture: str = "glimmer", **changes: Any) -> CheckpointConfig:
    options = ModelOptions(architecture, question_length=48, passage_length=304, max_new_tokens=100)
    options = replace(options, **changes)
    return config_from_options(options, preset("base"), subject="test")


def test_stage_a_is_lazy_where_the_score_is_one_tokens():
    assert choose_forms(config_of(), FormOptions()).stage_a == "lazy"
    assert choose_forms(config_of(), FormOptions(stage_a="full")).stage_a == "full"
    assert choose_forms(config_of(score_pooling="mean"), FormOptions()).stage_a == "full"


@pytest.mark.parametrize("architecture", ["lumen", "memory_fid", "fid"])
def test_what_ranks_nothing_has_no_stage_a(architecture):
    assert choose_forms(config_of(architecture), FormOptions()).stage_a is None
    assert choose_forms(config_of(architecture), FormOptions(stage_a="full")).stage_a is None
    with pytest.raises(OptionError, match=f"full, as a {architecture} ranks nothing, found lazy"):
        choose_forms(config_of(architecture), FormOptions(stage_a="lazy"))


@pytest.mark.parametrize(
    ("target", "answer_tokens", "chosen"),
    [
        ("cpu", 23, "absorbed"), ("cpu", 24, "cached"),  # 40 without drafts
        # A GPU's step waits for its kernels and for memory: 69.8 tokens by multiply-adds alone, 64 dimensions a head of
        # a width of 768.
        ("t4", 4, "absorbed"), ("t4", 5, "cached"), ("jetson-orin-nano", 6, "absorbed"),
        ("jetson-orin-nano", 7, "cached"), ("h200", 2, "absorbed"), ("h200", 3, "cached"),
    ],
)  # fmt: skip
def test_auto_goes_by_the_answers_length_and_the_target(target, answer_tokens, chosen):
    options = FormOptions(answer_tokens=answer_tokens, target=target)
    assert choose_forms(config_of(), options).cross_attention == chosen


def test_a_run_with_a_draft_counts_its_positions_where_drafts_are_looked_up():
    assert drafted_runs(1) == [1]
    assert drafted_runs(2) == drafted_runs(3) == [1, 5]
    assert drafted_runs(8) == [1, 5, 5, 5, 5]


def test_auto_for_a_gpu_weighs_what_is_projected_before_the_first_step():
    """All k passages are read where nothing is ranked: more to project once, and no more kernels a step."""
    options = FormOptions(answer_tokens=14, target="t4")
    assert choose_forms(config_of("lumen"), options).cross_attention == "absorbed"
    assert choose_forms(config_of("glimmer"), options).cross_attention == "cached"


def test_the_time_of_cross_attention_by_hand():
    target, shape = read_target("t4"), config_of().shape
    assert target.tensorrt is not None
    tokens, projection = 5 * 352, 768 * 768
    step = 2 * (2 * projection + 2 * tokens * 768) / 300e9 + KERNELS["cached"] * 3e-6
    once = 2 * 2 * tokens * projection / 65e12 + 8 * 3e-6
    expected = 12 * (once + 16 * step) * 1e3
    assert cross_attention_ms("cached", shape, 16, target, target.tensorrt) == pytest.approx(expected)


def test_slow_kernels_are_for_the_form_that_has_fewer():
    target, shape = read_target("t4"), config_of().shape
    assert target.tensorrt is not None
    times = []
    for kernel_us in (0.001, 3.0):
        gpu = target.tensorrt.model_copy(update={"kernel_us": kernel_us})
        times.append([cross_attention_ms(form, shape, 5, target, gpu) for form in ("absorbed", "cached")])
    (absorbed, cached), (slow_absorbed, slow_cached) = times
    assert absorbed < cached
    assert slow_absorbed > slow_cached


def test_auto_counts_the_question_where_the_decoder_reads_it():
    options = FormOptions(answer_tokens=16)
    assert choose_forms(config_of("lumen"), options).cross_attention == "absorbed"
    assert choose_forms(config_of("memory_fid"), options).cross_attention == "cached"


def test_an_answer_is_never_expected_to_be_longer_than_it_can_be():
    assert choose_forms(config_of(max_new_tokens=10), FormOptions(answer_tokens=1000)).cross_attention == "absorbed"


@pytest.mark.parametrize("form", ["absorbed", "cached"])
def test_a_named_form_is_taken(form):
    options = FormOptions(cross_attention=form, answer_tokens=1000)
    assert choose_forms(config_of(), options).cross_attention == form


@pytest.mark.parametrize(
    ("options", "subject"),
    [
        (FormOptions(stage_a="half"), "--stage-a"),
        (FormOptions(cross_attention="some"), "--cross-attention"),
        (FormOptions(target="abacus"), "abacus"),
    ],
)
def test_unknown_forms_and_targets(options, subject):
    with pytest.raises(OptionError, match=subject):
        choose_forms(config_of(), options)


def test_a_mean_cannot_be_lazy():
    with pytest.raises(OptionError, match="a mean over all tokens, found lazy"):
        choose_forms(config_of(score_pooling="mean"), FormOptions(stage_a="lazy"))
