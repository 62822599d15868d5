"""The stages of a model (docs/design.md, section 3), in the order in which they run, and all that is known of each.

A bundle has one graph for each stage of its architecture, by the stage's name; a stage that reads memory has one for
each store codec. `graph_io` has their inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from glimmer_export.runtime.contract.architecture import ModelShape

__all__ = [
    "CROSS_KV", "DECODER_PREFILL", "DECODER_STEP", "ENCODER", "LIVE_SHORTLIST", "LIVE_STAGE_A", "LIVE_STAGE_B",
    "MEMORY_ENCODER", "QUESTION_ENCODER", "STAGES", "TEXT_ENCODERS", "TOKEN_STAGES", "Stage", "mask_of_output",
    "question_stage",
]  # fmt: skip

MEMORY_ENCODER = "memory_encoder"
QUESTION_ENCODER = "question_encoder"
ENCODER = "encoder"
LIVE_SHORTLIST = "live_shortlist"
LIVE_STAGE_A = "live_stage_a"
LIVE_STAGE_B = "live_stage_b"
CROSS_KV = "cross_kv"
DECODER_PREFILL = "decoder_prefill"
DECODER_STEP = "decoder_step"

TEXT_ENCODERS = (MEMORY_ENCODER, QUESTION_ENCODER)
"""Run on batches of texts, be they questions or passages; every other stage runs on batches of questions."""
TOKEN_STAGES = (DECODER_PREFILL, DECODER_STEP)
"""Choose a token of the answer."""


@dataclass(frozen=True)
class Stage:
    """One stage.

    `rows` is the dimension that counts the rows of one question, None for one row; `tokens` are the dimensions that add
    up to a row's length, empty for one token. `form` is the field of `Forms` that decides its algebra, None if it has
    only one. `part` is the part of a bundle that attribution swaps it with. `asked_as` is what it is called when a
    question's time is told: a memory encoder then runs on the question. `masks` has the tensor beside each output that
    says which of its values are read; an output that is not named there is read whole, and `present` stands for every
    cache.
    """

    name: str
    part: str
    asked_as: str
    tokens: tuple[str, ...] = ()
    rows: str | None = None
    form: str | None = None
    masks: Mapping[str, str] = field(default_factory=dict)

    def runs(self, shape: ModelShape, answer_tokens: int) -> int:
        """How often one question runs it: a decoder step for each answer token, EOS included.

        A memory encoder runs on questions only if they have no encoder of their own; the passages were encoded before.
        """
        if self.name == MEMORY_ENCODER:
            return int(shape.traits.encodes_question and not shape.separate_question_encoder)
        if self.name == DECODER_STEP:
            return answer_tokens - int(shape.traits.prefixes_decoder)
        return 1

    def row_dim(self, shape: ModelShape) -> str | None:
        """`rows` in a model: one that selects nothing reads all k passages, stage A of a cascade the shortlisted."""
        if self.name == LIVE_STAGE_A and shape.num_shortlisted is not None:
            return "shortlisted"
        return "passages" if self.rows == "selected" and not shape.traits.selects else self.rows


_ENCODED = {"encoder_hidden_states": "encoder_attention_mask"}
_STATES = {"hidden_states": "attention_mask"}
_CACHE = {"present": "step"}

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(MEMORY_ENCODER, "memory_encoder_question", QUESTION_ENCODER, ("tokens",), masks=_STATES),
        Stage(QUESTION_ENCODER, QUESTION_ENCODER, QUESTION_ENCODER, ("tokens",), masks=_STATES),
        Stage(ENCODER, ENCODER, ENCODER, ("tokens",), "passages", masks=_ENCODED),
        Stage(
            LIVE_SHORTLIST, LIVE_SHORTLIST, LIVE_SHORTLIST, ("question", "passage"), "passages",
            masks={"scores": "memory_mask"},
        ),
        Stage(
            LIVE_STAGE_A, LIVE_STAGE_A, LIVE_STAGE_A, ("question", "passage"), "passages", form="stage_a",
            masks={"scores": "memory_mask", "rerank_states": "memory_mask"},
        ),
        Stage(
            LIVE_STAGE_B, LIVE_STAGE_B, LIVE_STAGE_B, ("question", "passage"), "selected", form="stage_a",
            masks=_ENCODED,
        ),
        Stage(CROSS_KV, "decoder", CROSS_KV, ("encoder_tokens",), form="cross_attention"),
        Stage(DECODER_PREFILL, "decoder", DECODER_PREFILL, ("prefix",), form="cross_attention", masks=_CACHE),
        Stage(DECODER_STEP, "decoder", DECODER_STEP, form="cross_attention", masks=_CACHE),
    )
}  # fmt: skip
"""Every stage by its name."""


def question_stage(shape: ModelShape) -> str:
    """The stage that encodes a question of a model that does so: its own encoder, or the memory's."""
    return QUESTION_ENCODER if shape.separate_question_encoder else MEMORY_ENCODER


def mask_of_output(output: str) -> str | None:
    """The tensor that says which values of an output are read; None if all are."""
    name = "present" if output.startswith("present.") else output
    return next((stage.masks[name] for stage in STAGES.values() if name in stage.masks), None)
