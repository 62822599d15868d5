"""The papers' formulas: multiply-adds of one question in FiD, MemoryFiD, LUMEN and GLIMMER.

LUMEN paper, section 3, and GLIMMER paper, section 3: every token costs each layer's matrices once, and every token
that the decoder attends to the keys and values of each decoder layer. The products of attention are neglected as in
the papers, and the vocabulary projection with them. A layer's matrices are counted as they are, not rounded to a
multiple of d_model**2.
"""

from __future__ import annotations

from glimmer_export.exporter.cost.model import CostModel
from glimmer_export.exporter.cost.workload import Workload

__all__ = ["PAPER_ARCHITECTURES", "paper_stages"]

PAPER_ARCHITECTURES = ("fid", "memory_fid", "lumen", "glimmer")


def paper_stages(model: CostModel, architecture: str, workload: Workload) -> dict[str, int]:
    """Multiply-adds by stage; the model gives widths and layers, its own architecture does not matter."""
    k, m = workload.num_retrieved, workload.num_selected
    joint, question = workload.joint_tokens, workload.question_tokens
    live, stage_a = model.num_live_layers, model.num_stage_a_layers
    cross = model.shape.num_decoder_layers * 2 * model.projection
    decoder = _decoder_token(model) * workload.answer_tokens
    on_question = question * (model.num_layers - live) * model.layer
    match architecture:
        case "fid":
            return {
                "encoder": k * joint * model.num_layers * model.layer, "cross_kv": k * joint * cross,
                "decoder": decoder,
            }
        case "memory_fid":
            prefix = question * _decoder_token(model)
            return {"cross_kv": k * workload.passage_tokens * cross, "decoder": prefix + decoder}
        case "lumen":
            return {
                "question_encoder": on_question, "live_encoder": k * joint * live * model.layer,
                "cross_kv": k * joint * cross, "decoder": decoder,
            }
        case "glimmer":
            return {
                "question_encoder": on_question, "live_stage_a": k * joint * stage_a * model.layer,
                "live_stage_b": m * joint * (live - stage_a) * model.layer, "cross_kv": m * joint * cross,
                "decoder": decoder,
            }
        case _:
            raise ValueError(f"no paper has {architecture!r}")


def _decoder_token(model: CostModel) -> int:
    """One token through the decoder: four projections of self-attention, two of cross-attention, feed-forward."""
    return model.shape.num_decoder_layers * (6 * model.projection + model.feed_forward)
