"""The dimensions that vary, by graph, in the runs that one question makes of it."""

from __future__ import annotations

from glimmer_export.exporter.cost.model import CostModel
from glimmer_export.exporter.cost.workload import Workload

__all__ = ["num_runs", "read_passages", "run_dims"]


def run_dims(model: CostModel, workload: Workload, graph: str) -> dict[str, int]:
    """Values for the names of `glimmer_export.runtime.contract.graph_io`, for one run of a graph at batch 1.

    The memory encoder's are those of its run on a question, where it makes one, and else on a passage.
    """
    traits = model.shape.traits
    tokens = workload.joint_tokens
    if graph in ("memory_encoder", "question_encoder"):
        tokens = workload.question_tokens if traits.encodes_question else workload.passage_tokens
    with_question = not traits.prefixes_decoder
    attended = workload.joint_tokens if with_question else workload.passage_tokens
    return {
        "batch": 1,
        "passages": workload.num_retrieved,
        "selected": workload.num_selected,
        "question": workload.question_tokens,
        "passage": workload.passage_tokens,
        "tokens": tokens,
        "encoder_tokens": read_passages(model, workload) * attended,
        "prefix": 1 + workload.question_tokens,
        "cache_length": model.shape.cache_length,
    }


def read_passages(model: CostModel, workload: Workload) -> int:
    """Passages that the decoder attends to: m where the architecture selects, else k."""
    return workload.num_selected if model.shape.traits.selects else workload.num_retrieved


def num_runs(model: CostModel, workload: Workload, graph: str) -> int:
    """How often one question runs a graph: a decoder step for each answer token, the end included."""
    traits = model.shape.traits
    if graph == "memory_encoder":
        return int(traits.encodes_question and not model.shape.separate_question_encoder)
    if graph == "decoder_step":
        return workload.answer_tokens - int(traits.prefixes_decoder)
    return 1
