"""What decides a cost: a model's widths and layers, how much a question asks of it, and the dimensions of each run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from glimmer_export.exporter.bundle.forms import FormOptions, choose_forms
from glimmer_export.exporter.checkpoint.options import FROM_T5, ModelOptions, config_from_options, round_half_up
from glimmer_export.exporter.checkpoint.t5_shape import preset
from glimmer_export.exporter.config.read import config_label
from glimmer_export.runtime.contract import (
    LIVE_SHORTLIST,
    STAGES,
    TEXT_ENCODERS,
    Forms,
    GraphIO,
    ModelShape,
    OptionError,
    graph_io,
    stage_of,
)
from glimmer_export.runtime.contract.manifest import MAX_ANSWER, MAX_LENGTH, MAX_PASSAGES

if TYPE_CHECKING:
    from glimmer_export.runtime.contract import BundleManifest

__all__ = [
    "DEFAULT_CUT", "CostModel", "Proportions", "Workload", "check_same_size", "check_workload",
    "model_from_manifest", "model_from_preset", "model_from_shape", "num_runs", "read_passages", "run_dims",
]  # fmt: skip

LIMITS = {
    "--top-k": MAX_PASSAGES,
    "--top-m": MAX_PASSAGES,
    "--question-tokens": MAX_LENGTH,
    "--passage-tokens": MAX_LENGTH,
    "--answer-tokens": MAX_ANSWER,
    "--passages": 10**12,
}
"""The most that a checkpoint's config takes; and a corpus that no disk holds."""


@dataclass(frozen=True)
class Workload:
    """One question, a batch of one: k and m in passages, lengths in tokens, `corpus_passages` in its store."""

    num_retrieved: int
    num_selected: int
    question_tokens: int
    passage_tokens: int
    answer_tokens: int
    corpus_passages: int

    @property
    def joint_tokens(self) -> int:
        """Question and passage together: one input of the live encoder."""
        return self.question_tokens + self.passage_tokens


def check_workload(workload: Workload) -> None:
    """Raise OptionError for a count that is not positive or beyond any model, and for m above k."""
    values = {
        "--top-k": workload.num_retrieved,
        "--top-m": workload.num_selected,
        "--question-tokens": workload.question_tokens,
        "--passage-tokens": workload.passage_tokens,
        "--answer-tokens": workload.answer_tokens,
        "--passages": workload.corpus_passages,
    }
    for option, value in values.items():
        if not 1 <= value <= LIMITS[option]:
            raise OptionError(
                f"option {option}", expected=f"1 to {LIMITS[option]}", found=str(value), fix="choose one in that range"
            )
    if workload.num_selected > workload.num_retrieved:
        raise OptionError(
            "option --top-m", expected=f"at most the k = {workload.num_retrieved} passages retrieved",
            found=str(workload.num_selected), fix="lower --top-m or raise --top-k",
        )


MAX_NEW_TOKENS = 32
"""Length of the self-attention cache of a model that is only a size, unless a longer answer is asked for."""
FEED_FORWARD_MATRICES = {"gated-gelu": 3, "relu": 2}


@dataclass(frozen=True)
class Proportions:
    """Shares of the encoder that run live (alpha), and of those that rank (beta)."""

    live: Fraction
    rerank: Fraction


DEFAULT_CUT = Proportions(Fraction(1, 3), Fraction(1, 4))
"""The papers'."""


@dataclass(frozen=True)
class CostModel:
    """A model of one architecture in some form, and the cut that the other architectures would have at its size.

    `num_layers`, `num_live_layers` and `num_stage_a_layers` are those of the papers' formulas, which need all three
    whatever the architecture; a separate reranker's layers are not among the first two. `fp16_boundaries` are a
    bundle's, None if the model is only a size.
    """

    name: str
    shape: ModelShape
    forms: Forms
    num_layers: int
    num_live_layers: int
    num_stage_a_layers: int
    fp16_boundaries: tuple[str, ...] | None = None

    @property
    def codec(self) -> str | None:
        """The store codec that counts: the first that the graphs decode. None if there is no memory."""
        return next(iter(self.forms.codecs), None)

    @property
    def io(self) -> dict[str, GraphIO]:
        """Graph I/O by stage, for memory in the codec; all FP32 between graphs."""
        forms = replace(self.forms, codecs=self.forms.codecs[:1], both_forms=False)
        return {stage_of(name): io for name, io in graph_io(self.shape, forms).items()}

    @property
    def inner_dim(self) -> int:
        """Width of the attention heads together."""
        return self.shape.num_heads * self.shape.d_kv

    @property
    def projection(self) -> int:
        """Multiply-adds of one token in one of an attention's four projections; also its weights."""
        return self.shape.d_model * self.inner_dim

    @property
    def feed_forward(self) -> int:
        """Multiply-adds of one token in one feed-forward layer; also its weights."""
        matrices = FEED_FORWARD_MATRICES[self.shape.feed_forward_proj]
        return matrices * self.shape.d_model * self.shape.d_ff

    @property
    def layer(self) -> int:
        """Multiply-adds of one token in the matrices of one encoder layer; also its weights."""
        return 4 * self.projection + self.feed_forward


def model_from_preset(
    name: str, architecture: str, workload: Workload, forms: FormOptions, cut: Proportions, score_pooling: str,
    *, separate_reranker: bool = False, num_shortlisted: int | None = None,
) -> CostModel:
    """A model of a known size.

    Raises OptionError for an unknown size or for forms that do not fit, CheckpointError if a part is left empty.
    """
    shape = preset(name)
    options = ModelOptions(
        architecture,
        live_proportion=cut.live,
        rerank_proportion=cut.rerank,
        score_pooling=score_pooling,
        separate_reranker=FROM_T5 if separate_reranker else None,
        question_length=max(2, workload.question_tokens),
        passage_length=max(2, workload.passage_tokens),
        num_retrieved=workload.num_retrieved,
        num_shortlisted=num_shortlisted,
        num_selected=workload.num_selected if architecture == "glimmer" else None,
        max_new_tokens=max(MAX_NEW_TOKENS, workload.answer_tokens),
    )
    config = config_from_options(options, shape, subject=f"model {name}")
    label = config_label("size", name)
    return CostModel(label, config.shape, choose_forms(config, forms), *_cut_layers(shape.num_layers, cut))


def model_from_manifest(name: str, manifest: BundleManifest, workload: Workload) -> CostModel:
    """The model of a bundle, as `model_from_shape`."""
    return replace(
        model_from_shape(name, manifest.model, manifest.forms, workload), fp16_boundaries=manifest.fp16_boundaries
    )


def model_from_shape(name: str, shape: ModelShape, forms: Forms, workload: Workload) -> CostModel:
    """A model that is there; parts that its architecture has not are cut as the papers do.

    The decoder's cache is as long as the answer asks for: graphs take it at any length.
    """
    shape = replace(shape, max_new_tokens=max(shape.max_new_tokens, workload.answer_tokens))
    num_layers, num_live, num_stage_a = _cut_layers(shape.num_memory_layers + shape.num_live_layers, DEFAULT_CUT)
    if shape.traits.encodes_question:
        num_live = shape.num_live_layers
        num_stage_a = shape.num_stage_a_layers or _share(DEFAULT_CUT.rerank, num_live)
    return CostModel(name, shape, forms, num_layers, num_live, num_stage_a)


def check_same_size(model: CostModel, name: str) -> None:
    """Raise OptionError if a bundle's model is not of the named size."""
    shape, wanted = model.shape, preset(name)
    for field in ("vocab_size", "d_model", "d_kv", "d_ff", "num_heads"):
        if getattr(shape, field) != getattr(wanted, field):
            raise OptionError(
                "option --model", expected=f"the size of {model.name}, with {field} {getattr(shape, field)}",
                found=f"{name}, with {field} {getattr(wanted, field)}", fix="leave --model out: the bundle says it",
            )


def _cut_layers(num_layers: int, cut: Proportions) -> tuple[int, int, int]:
    """Layers in all, live, and in stage A."""
    num_live = _share(cut.live, num_layers)
    return num_layers, num_live, _share(cut.rerank, num_live)


def _share(proportion: Fraction, num_layers: int) -> int:
    return max(1, round_half_up(proportion * num_layers))


def run_dims(model: CostModel, workload: Workload, graph: str) -> dict[str, int]:
    """Values for the names of `glimmer_export.runtime.contract.graph_io`, for one run of a graph at batch 1.

    The memory encoder's are those of its run on a question, where it makes one, and else on a passage.
    """
    traits = model.shape.traits
    tokens = workload.joint_tokens
    if graph in TEXT_ENCODERS:
        tokens = workload.question_tokens if traits.encodes_question else workload.passage_tokens
    with_question = not traits.prefixes_decoder
    attended = workload.joint_tokens if with_question else workload.passage_tokens
    return {
        "batch": 1,
        "passages": workload.num_retrieved,
        "shortlisted": ranked_passages(model, workload),
        "selected": workload.num_selected,
        "question": workload.question_tokens,
        "passage": workload.passage_tokens,
        "tokens": tokens,
        "encoder_tokens": read_passages(model, workload) * attended,
        "prefix": 1 + workload.question_tokens,
        "positions": 1,
        "cache_length": model.shape.cache_length,
    }


def read_passages(model: CostModel, workload: Workload) -> int:
    """Passages that the decoder attends to: m where the architecture selects, else k."""
    return workload.num_selected if model.shape.traits.selects else workload.num_retrieved


def ranked_passages(model: CostModel, workload: Workload) -> int:
    """Passages that stage A ranks: all k, or in a cascade those that the shortlist keeps, m at least."""
    k, shortlisted = workload.num_retrieved, model.shape.num_shortlisted
    return k if shortlisted is None else min(k, max(shortlisted, workload.num_selected))


def num_runs(model: CostModel, workload: Workload, graph: str) -> int:
    """How often one question runs a graph: a decoder step for each answer token, the end included.

    A shortlist that would keep all k is not asked.
    """
    if graph == LIVE_SHORTLIST and ranked_passages(model, workload) == workload.num_retrieved:
        return 0
    return STAGES[graph].runs(model.shape, workload.answer_tokens)
