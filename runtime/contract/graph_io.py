"""Names, dtypes and dimensions of every graph's inputs and outputs: the one table that exporter and runtime share.

A dimension is a number, or a name for one that varies: `batch`, `passages` (k), `shortlisted` (those that
stage A of a cascade ranks), `selected` (m), `question` and
`passage` (lengths in tokens), `tokens` (length of one encoder input), `encoder_tokens` (all that the decoder attends
to), `prefix`, `positions` and `cache_length` (decoder positions: of a question in front of an answer, of one step, of
all steps together).
"""

from __future__ import annotations

from dataclasses import dataclass

from glimmer_export.runtime.codecs import codec_layout
from glimmer_export.runtime.contract.architecture import ModelShape
from glimmer_export.runtime.contract.stages import (
    CROSS_KV,
    DECODER_PREFILL,
    DECODER_STEP,
    ENCODER,
    LIVE_SHORTLIST,
    LIVE_STAGE_A,
    LIVE_STAGE_B,
    MEMORY_ENCODER,
    QUESTION_ENCODER,
)

__all__ = [
    "CROSS_ATTENTION_FORMS",
    "LOG_PROBABILITY",
    "STAGE_A_FORMS",
    "Dim",
    "Forms",
    "GraphIO",
    "IOTensor",
    "codec_inputs",
    "codec_of",
    "form_of",
    "graph_io",
    "stage_of",
]

STAGE_A_FORMS = ("lazy", "full")
CROSS_ATTENTION_FORMS = ABSORBED, CACHED = ("absorbed", "cached")

FP16 = "fp16"

LOG_PROBABILITY = "next_token_log_probability"
"""The decoder's output that tells how sure it was of the token it chose: log_softmax of the logits there, in nats."""

Dim = int | str


@dataclass(frozen=True)
class IOTensor:
    """One input or output of a graph; dtype is numpy's name."""

    name: str
    dtype: str
    dims: tuple[Dim, ...]


@dataclass(frozen=True)
class GraphIO:
    """Inputs and outputs of one graph, in order."""

    inputs: tuple[IOTensor, ...]
    outputs: tuple[IOTensor, ...]


@dataclass(frozen=True)
class Forms:
    """Which of two equal algebraic forms the graphs have, and the store codecs that they decode.

    `stage_a`: `lazy` computes only the scored token in stage A's last layer, and leaves the layer to stage B if it is
    the live encoder's; None if nothing is ranked. `cross_attention`: `absorbed` attends to the encoder's states
    themselves, `cached` to keys and values projected from them once; with `both_forms` the decoder's graphs are there
    in either, and this is the one that answers. `log_probability`: the decoder has that output, and `takes_drafts`: its
    steps take a token and a draft of those behind it, as every graph that is exported today does.
    """

    codecs: tuple[str, ...]
    stage_a: str | None
    cross_attention: str
    log_probability: bool = True
    both_forms: bool = False
    takes_drafts: bool = True


def graph_io(shape: ModelShape, forms: Forms) -> dict[str, GraphIO]:
    """The graphs of a model (docs/design.md, section 3), in the order in which they run. Activations are float32.

    A stage that reads memory has a graph for each codec: its own name for fp16, `live_stage_b.int8` for another. Where
    both forms of cross-attention are there, a stage of the decoder has a graph for each: `decoder_step.absorbed`.
    """
    traits = shape.traits
    graphs: dict[str, GraphIO] = {}
    if traits.has_memory:
        graphs[MEMORY_ENCODER] = _text_encoder(shape)
    if shape.separate_question_encoder:
        graphs[QUESTION_ENCODER] = _text_encoder(shape)
    if not traits.has_memory:
        graphs[ENCODER] = _joined_encoder(shape)
    if shape.num_shortlisted is not None:
        for codec in forms.codecs:
            graphs[_graph_name(LIVE_SHORTLIST, codec)] = _live_shortlist(shape, codec)
    if traits.selects:
        for codec in forms.codecs:
            graphs[_graph_name(LIVE_STAGE_A, codec)] = _live_stage_a(shape, forms, codec)
    if traits.has_memory:
        for codec in forms.codecs if _reads_memory(shape, forms) else (FP16,):
            graphs[_graph_name(LIVE_STAGE_B, codec)] = _live_stage_b(shape, forms, codec)
    for form in CROSS_ATTENTION_FORMS if forms.both_forms else (forms.cross_attention,):
        suffix = f".{form}" if forms.both_forms else ""
        cross = (_states(shape),) if form == ABSORBED else tuple(_cross_cache(shape))
        if form == CACHED:
            graphs[CROSS_KV] = GraphIO((_states(shape),), cross)
        if traits.prefixes_decoder:
            graphs[f"{DECODER_PREFILL}{suffix}"] = _decoder_prefill(shape, forms, cross)
        graphs[f"{DECODER_STEP}{suffix}"] = _decoder_step(shape, forms, cross)
    return graphs


def stage_of(graph: str) -> str:
    """The stage that a graph computes: `live_stage_b` for `live_stage_b.int8`."""
    return graph.partition(".")[0]


def codec_of(graph: str) -> str:
    """The store codec that a graph decodes, where it reads memory."""
    suffix = graph.partition(".")[2]
    return FP16 if not suffix or suffix in CROSS_ATTENTION_FORMS else suffix


def form_of(graph: str) -> str | None:
    """The form of cross-attention that a graph is for, where its name tells; None: all of the bundle's decoder are."""
    suffix = graph.partition(".")[2]
    return CACHED if graph == CROSS_KV else suffix if suffix in CROSS_ATTENTION_FORMS else None


def codec_inputs(shape: ModelShape, codec: str) -> tuple[IOTensor, ...]:
    """What a graph reads of k passages' memory in a store's codec, and behind it the codec's own arrays."""
    layout = codec_layout(codec, shape.d_model)
    per_token = ("batch", "passages", "passage")
    return (
        *(IOTensor(tensor.name, tensor.dtype, (*per_token, *tensor.shape)) for tensor in layout.per_token),
        *(IOTensor(tensor.name, tensor.dtype, (*per_token[:2], *tensor.shape)) for tensor in layout.per_passage),
        *(IOTensor(tensor.name, tensor.dtype, tensor.shape) for tensor in layout.arrays),
    )


def _graph_name(stage: str, codec: str) -> str:
    return stage if codec == FP16 else f"{stage}.{codec}"


def _text_encoder(shape: ModelShape) -> GraphIO:
    return GraphIO(
        (IOTensor("input_ids", "int32", ("batch", "tokens")), IOTensor("attention_mask", "int32", ("batch", "tokens"))),
        (IOTensor("hidden_states", "float32", ("batch", "tokens", shape.d_model)),),
    )


def _joined_encoder(shape: ModelShape) -> GraphIO:
    dims = ("batch", "passages", "tokens")
    return GraphIO(
        (IOTensor("input_ids", "int32", dims), IOTensor("attention_mask", "int32", dims)), _encoder_outputs(shape)
    )


def _question(shape: ModelShape) -> tuple[IOTensor, ...]:
    return (
        IOTensor("question_states", "float32", ("batch", "question", shape.d_model)),
        IOTensor("question_mask", "int32", ("batch", "question")),
    )


MEMORY_MASK = IOTensor("memory_mask", "int32", ("batch", "passages", "passage"))


def _ranked(shape: ModelShape) -> Dim:
    """The passages that stage A ranks."""
    return "passages" if shape.num_shortlisted is None else "shortlisted"


def _rerank_states(shape: ModelShape) -> IOTensor:
    return IOTensor("rerank_states", "float32", ("batch", _ranked(shape), "tokens", shape.d_model))


def _hands_states_over(shape: ModelShape, forms: Forms) -> bool:
    """Whether stage A leaves states that stage B goes on from: not a separate reranker, nor one layer that is lazy."""
    return not shape.separate_reranker and (forms.stage_a == "full" or shape.num_stage_a_layers > 1)


def _reads_memory(shape: ModelShape, forms: Forms) -> bool:
    """Whether stage B does: not where stage A hands states over."""
    return not (shape.traits.selects and _hands_states_over(shape, forms))


def _live_shortlist(shape: ModelShape, codec: str) -> GraphIO:
    return GraphIO(
        (*_question(shape), *codec_inputs(shape, codec), MEMORY_MASK),
        (IOTensor("scores", "float32", ("batch", "passages")),),
    )


def _live_stage_a(shape: ModelShape, forms: Forms, codec: str) -> GraphIO:
    ranked = _ranked(shape)
    scores = IOTensor("scores", "float32", ("batch", ranked))
    selected = () if shape.num_shortlisted is None else (IOTensor("selected", "int32", ("batch", ranked)),)
    return GraphIO(
        (*_question(shape), *codec_inputs(shape, codec), MEMORY_MASK, *selected),
        (scores, _rerank_states(shape)) if _hands_states_over(shape, forms) else (scores,),
    )


def _live_stage_b(shape: ModelShape, forms: Forms, codec: str) -> GraphIO:
    inputs: tuple[IOTensor, ...]
    memory = codec_inputs(shape, codec)
    selected = IOTensor("selected", "int32", ("batch", "selected"))
    if not _reads_memory(shape, forms):
        mask = IOTensor(MEMORY_MASK.name, MEMORY_MASK.dtype, ("batch", _ranked(shape), "passage"))
        inputs = (_rerank_states(shape), _question(shape)[1], mask, selected)
    elif shape.traits.selects:
        inputs = (*_question(shape), *memory, MEMORY_MASK, selected)
    elif shape.traits.encodes_question:
        inputs = (*_question(shape), *memory, MEMORY_MASK)
    else:
        inputs = (*memory, MEMORY_MASK)
    return GraphIO(inputs, _encoder_outputs(shape))


def _states(shape: ModelShape) -> IOTensor:
    return IOTensor("encoder_hidden_states", "float32", ("batch", "encoder_tokens", shape.d_model))


ENCODER_MASK = IOTensor("encoder_attention_mask", "int32", ("batch", "encoder_tokens"))


def _encoder_outputs(shape: ModelShape) -> tuple[IOTensor, ...]:
    return (_states(shape), ENCODER_MASK)


def _cache(shape: ModelShape, root: str, side: str, length: Dim) -> list[IOTensor]:
    dims = ("batch", shape.num_heads, length, shape.d_kv)
    return [
        IOTensor(f"{root}.{layer}.{side}.{part}", "float32", dims)
        for layer in range(shape.num_decoder_layers)
        for part in ("key", "value")
    ]


def _cross_cache(shape: ModelShape) -> list[IOTensor]:
    return _cache(shape, "past_key_values", "encoder", "encoder_tokens")


def _decoder_prefill(shape: ModelShape, forms: Forms, cross: tuple[IOTensor, ...]) -> GraphIO:
    return GraphIO(
        (*_decoder_inputs("prefix"), *cross),
        (*_chosen(shape, forms, ()), *_cache(shape, "present", "decoder", shape.cache_length)),
    )


def _decoder_step(shape: ModelShape, forms: Forms, cross: tuple[IOTensor, ...]) -> GraphIO:
    past = _cache(shape, "past_key_values", "decoder", "cache_length")
    present = _cache(shape, "present", "decoder", "cache_length")
    if not forms.takes_drafts:
        return GraphIO((*_decoder_inputs(1), *past, *cross), (*_chosen(shape, forms, ()), *present))
    chosen = _chosen(shape, forms, ("positions",))
    return GraphIO((*_decoder_inputs("positions"), *past, *cross), (*chosen, *present))


def _decoder_inputs(length: Dim) -> tuple[IOTensor, ...]:
    return (
        IOTensor("decoder_input_ids", "int32", ("batch", length)), IOTensor("step", "int32", ("batch",)), ENCODER_MASK,
    )


def _chosen(shape: ModelShape, forms: Forms, positions: tuple[Dim, ...]) -> tuple[IOTensor, ...]:
    """What a row chooses at the last of its positions, or at each of `positions`."""
    each = positions or (1,)
    chosen = (
        IOTensor("next_token", "int32", ("batch", *each)),
        IOTensor("logits", "float32", ("batch", *positions, shape.vocab_size)),
    )
    return (*chosen, IOTensor(LOG_PROBABILITY, "float32", ("batch", *each))) if forms.log_probability else chosen
