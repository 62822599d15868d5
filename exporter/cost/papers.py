"""The papers' formulas, multiply-adds of one question in FiD, MemoryFiD, LUMEN and GLIMMER, and their figure 2.

LUMEN paper, section 3, and GLIMMER paper, section 3: every token costs each layer's matrices once, and every token
that the decoder attends to the keys and values of each decoder layer. The products of attention are neglected as in
the papers, and the vocabulary projection with them. A layer's matrices are counted as they are, not rounded to a
multiple of d_model**2.

The GLIMMER paper's figure 2 has samples per TFLOP at XXL. The ratios between its three models hardly depend on the
length of an answer; how far the formulas are off does. The length that would suit the figure best is therefore given as
a fit, and is no length taken from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

from glimmer_export.exporter.bundle.forms import FormOptions
from glimmer_export.exporter.cost.model import DEFAULT_CUT, CostModel, Workload, model_from_preset
from glimmer_export.runtime.contract import CROSS_KV, ENCODER, LIVE_STAGE_A, LIVE_STAGE_B, QUESTION_ENCODER

__all__ = ["FIGURE_2", "PAPER_ARCHITECTURES", "FigureCheck", "check_figure_2", "paper_stages", "samples_per_tflop"]

PAPER_ARCHITECTURES = ("fid", "memory_fid", "lumen", "glimmer")


def paper_stages(model: CostModel, architecture: str, workload: Workload) -> dict[str, int]:
    """Multiply-adds by stage; the model gives widths and layers, its own architecture does not matter."""
    k, m = workload.num_retrieved, workload.num_selected
    joint, question = workload.joint_tokens, workload.question_tokens
    live, stage_a = model.num_live_layers, model.num_stage_a_layers
    shared = 0 if model.shape.separate_reranker else stage_a
    cross = model.shape.num_decoder_layers * 2 * model.projection
    decoder = _decoder_token(model) * workload.answer_tokens
    on_question = question * (model.num_layers - live) * model.layer
    match architecture:
        case "fid":
            return {
                ENCODER: k * joint * model.num_layers * model.layer, CROSS_KV: k * joint * cross,
                "decoder": decoder,
            }
        case "memory_fid":
            prefix = question * _decoder_token(model)
            return {CROSS_KV: k * workload.passage_tokens * cross, "decoder": prefix + decoder}
        case "lumen":
            return {
                QUESTION_ENCODER: on_question, "live_encoder": k * joint * live * model.layer,
                CROSS_KV: k * joint * cross, "decoder": decoder,
            }
        case "glimmer":
            return {
                QUESTION_ENCODER: on_question, LIVE_STAGE_A: k * joint * stage_a * model.layer,
                LIVE_STAGE_B: m * joint * (live - shared) * model.layer, CROSS_KV: m * joint * cross,
                "decoder": decoder,
            }
        case _:
            raise ValueError(f"no paper has {architecture!r}")


def _decoder_token(model: CostModel) -> int:
    """One token through the decoder: four projections of self-attention, two of cross-attention, feed-forward."""
    return model.shape.num_decoder_layers * (6 * model.projection + model.feed_forward)


FIGURE_2 = {"fid": (5, 5, 0.0927), "lumen": (10, 5, 0.1068), "glimmer": (25, 5, 0.1279)}
"""k, m and samples per TFLOP as the figure has them; m matters to GLIMMER alone."""
LONGEST_FIT = 1024


@dataclass(frozen=True)
class FigureCheck:
    """Formulas against figure, by architecture.

    `residuals` are (formula - figure) / figure; `ratio_errors` those of each ratio of two, named "lumen/fid".
    `fitted_answer_tokens` is a fit: the answer length at which the largest residual is least.
    """

    answer_tokens: int
    computed: dict[str, float]
    residuals: dict[str, float]
    ratio_errors: dict[str, float]
    fitted_answer_tokens: int
    fitted_residuals: dict[str, float]


def samples_per_tflop(macs: int) -> float:
    """Questions for 10**12 multiply-adds: figure 2's TFLOP has a multiply-add as one operation."""
    return 1e12 / macs


def check_figure_2(answer_tokens: int) -> FigureCheck:
    """Compare at 48 + 304 tokens and some answer length, with T5 XXL cut as in the paper."""
    computed = _computed(answer_tokens)
    figure = {name: row[2] for name, row in FIGURE_2.items()}
    ratio_errors = {
        f"{one}/{other}": (computed[one] / computed[other]) / (figure[one] / figure[other]) - 1
        for one, other in (("lumen", "fid"), ("glimmer", "fid"), ("glimmer", "lumen"))
    }
    fitted = _fitted_answer_tokens()
    return FigureCheck(
        answer_tokens, computed, _residuals(computed), ratio_errors, fitted, _residuals(_computed(fitted))
    )


def _fitted_answer_tokens() -> int:
    macs = {name: _linear_macs(name) for name in FIGURE_2}

    def worst(answer_tokens: int) -> float:
        return max(
            abs(samples_per_tflop(fixed + answer_tokens * token) / FIGURE_2[name][2] - 1)
            for name, (fixed, token) in macs.items()
        )

    return min(range(1, LONGEST_FIT + 1), key=worst)


def _residuals(computed: dict[str, float]) -> dict[str, float]:
    return {name: value / FIGURE_2[name][2] - 1 for name, value in computed.items()}


def _computed(answer_tokens: int) -> dict[str, float]:
    macs = {name: _linear_macs(name) for name in FIGURE_2}
    return {name: samples_per_tflop(fixed + answer_tokens * token) for name, (fixed, token) in macs.items()}


def _linear_macs(architecture: str) -> tuple[int, int]:
    """Multiply-adds before the answer, and of each of its tokens."""
    k, m, _ = FIGURE_2[architecture]
    workload = Workload(k, m, question_tokens=48, passage_tokens=304, answer_tokens=1, corpus_passages=1)
    model = model_from_preset("xxl", "glimmer", workload, FormOptions(), DEFAULT_CUT, "first")
    stages = paper_stages(model, architecture, workload)
    return sum(stages.values()) - stages["decoder"], stages["decoder"]
