"""The papers' formulas: by hand, and against the GLIMMER paper's figure 2."""

from __future__ import annotations

from fractions import Fraction

import pytest

from glimmer_export.exporter.bundle.forms import FormOptions
from glimmer_export.exporter.cost.model import DEFAULT_CUT, CostModel, Proportions, Workload, model_from_preset
from glimmer_export.exporter.cost.papers import (
    FIGURE_2,
    PAPER_ARCHITECTURES,
    check_figure_2,
    paper_stages,
    samples_per_tflop,
)

D, FF, LAYERS = 4096, 10240, 24
LAYER = 4 * D * D + 3 * D * FF
CROSS = LAYERS * 2 * D * D
DECODER_TOKEN = LAYERS * (6 * D * D + 3 * D * FF)


def xxl(workload: Workload, cut: Proportions = DEFAULT_CUT) -> CostModel:
    return model_from_preset("xxl", "glimmer", workload, FormOptions(), cut, "first")


def question(k: int, m: int = 5, answer_tokens: int = 16) -> Workload:
    return Workload(k, m, question_tokens=48, passage_tokens=304, answer_tokens=answer_tokens, corpus_passages=1)


BY_HAND = {
    "fid": 25 * 352 * (24 * LAYER + CROSS) + 16 * DECODER_TOKEN,
    "memory_fid": 25 * 304 * CROSS + (48 + 16) * DECODER_TOKEN,
    "lumen": 48 * 16 * LAYER + 25 * 352 * (8 * LAYER + CROSS) + 16 * DECODER_TOKEN,
    "glimmer": 48 * 16 * LAYER + 25 * 352 * 2 * LAYER + 5 * 352 * (6 * LAYER + CROSS) + 16 * DECODER_TOKEN,
}


@pytest.mark.parametrize("architecture", PAPER_ARCHITECTURES)
def test_by_hand_at_xxl(architecture):
    workload = question(25)
    assert sum(paper_stages(xxl(workload), architecture, workload).values()) == BY_HAND[architecture]


def test_ratios_of_figure_2_agree_within_3_percent():
    check = check_figure_2(answer_tokens=16)
    assert set(check.ratio_errors) == {"lumen/fid", "glimmer/fid", "glimmer/lumen"}
    assert all(abs(error) < 0.03 for error in check.ratio_errors.values()), check.ratio_errors


def test_residuals_of_figure_2_are_those_stated():
    check = check_figure_2(answer_tokens=16)
    assert check.residuals == pytest.approx({"fid": 0.117, "lumen": 0.101, "glimmer": 0.103}, abs=1e-3)
    for name, (k, m, figure) in FIGURE_2.items():
        workload = question(k, m)
        formula = samples_per_tflop(sum(paper_stages(xxl(workload), name, workload).values()))
        assert check.computed[name] == pytest.approx(formula)
        assert check.residuals[name] == pytest.approx(formula / figure - 1)


def test_the_fit_is_better_than_its_neighbours():
    fitted = check_figure_2(answer_tokens=16).fitted_answer_tokens
    worst = [max(map(abs, check_figure_2(length).residuals.values())) for length in (fitted - 1, fitted, fitted + 1)]
    assert worst[1] == min(worst) < 0.03


def test_proportions_cut_the_encoder():
    workload = question(25)
    model = xxl(workload, Proportions(Fraction(1, 2), Fraction(1, 3)))
    stages = paper_stages(model, "glimmer", workload)
    assert stages["live_stage_a"] == 25 * 352 * 4 * LAYER
    assert stages["live_stage_b"] == 5 * 352 * 8 * LAYER


def test_an_unknown_architecture_is_a_bug():
    with pytest.raises(ValueError, match="no paper has"):
        paper_stages(xxl(question(25)), "bert", question(25))
