"""The four architectures (LUMEN paper, section 3; GLIMMER paper, section 3) and the shape of a model."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

__all__ = ["ARCHITECTURES", "ArchitectureTraits", "ModelShape", "ScorePooling"]

ScorePooling = Literal["first", "mean"]
"""What the score head reads: the first token, or the mean of all."""


@dataclass(frozen=True)
class ArchitectureTraits:
    """What an architecture has; everything that differs between the four is decided by these flags."""

    stacks: frozenset[str]
    """Encoder parts with layers of their own, of `memory`, `stage_a` and `stage_b`."""
    selects: bool
    """Ranks the k retrieved passages and reads the best m."""
    encodes_question: bool
    """Conditions the memory on encoded question states."""
    has_memory: bool
    """Reads pre-computed passage representations."""
    prefixes_decoder: bool
    """Gives the question to the decoder, as a prefix of its input."""


ARCHITECTURES = {
    "glimmer": ArchitectureTraits(frozenset({"memory", "stage_a", "stage_b"}), True, True, True, False),
    "lumen": ArchitectureTraits(frozenset({"memory", "stage_b"}), False, True, True, False),
    "memory_fid": ArchitectureTraits(frozenset({"memory"}), False, False, True, True),
    "fid": ArchitectureTraits(frozenset({"stage_b"}), False, False, False, False),
}


@dataclass(frozen=True)
class ModelShape:
    """The part of a checkpoint's config that a device needs. Lengths are in tokens, EOS included.

    `question_layout`: a `block` of question_length tokens in front of each passage's, or `joined` with it in one text
    by `input_template` (`fid` alone), which has passage_length tokens at most.

    `question_eos`, `passage_eos`: whether EOS follows a question and a passage, or what joins them (`passage_eos`).
    `cross_attention_bias`: whether the decoder's cross-attention has a table of relative positions (`joined` alone), so
    that where a key stands among the encoder's tokens tells.

    `separate_reranker`: whether stage A's layers are a stack of their own beside the live encoder (GLIMMER paper, table
    1), which stage B then runs whole, from question and memory on. Else they are the live encoder's first.

    `num_shortlisted`: how many of the k passages stage A ranks, the best by a score head behind its first layer; None
    if it ranks all.
    """

    architecture: str
    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_heads: int
    feed_forward_proj: str
    num_memory_layers: int
    num_stage_a_layers: int
    num_stage_b_layers: int
    num_decoder_layers: int
    separate_question_encoder: bool
    question_length: int
    passage_length: int
    question_template: str
    passage_template: str
    num_retrieved: int
    num_selected: int | None
    max_new_tokens: int
    pad_token_id: int
    eos_token_id: int
    decoder_start_token_id: int
    question_layout: str = "block"
    input_template: str | None = None
    question_eos: bool = True
    passage_eos: bool = True
    cross_attention_bias: bool = False
    separate_reranker: bool = False
    num_shortlisted: int | None = None

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """Names of the fields, in order."""
        return tuple(field.name for field in fields(cls))

    @property
    def traits(self) -> ArchitectureTraits:
        """What this model's architecture has."""
        return ARCHITECTURES[self.architecture]

    @property
    def num_ranked(self) -> int:
        """Passages that stage A ranks of k: all, or those that a cascade's shortlist keeps."""
        return self.num_retrieved if self.num_shortlisted is None else self.num_shortlisted

    @property
    def num_shared_layers(self) -> int:
        """The live encoder's layers that stage A runs, whose states stage B goes on from; 0 of a separate reranker."""
        return 0 if self.separate_reranker else self.num_stage_a_layers

    @property
    def num_live_layers(self) -> int:
        """Layers of the live encoder."""
        return self.num_shared_layers + self.num_stage_b_layers

    def num_read_layers(self, stage_a: str | None) -> int:
        """Layers of stage B's graph, by the form of stage A: a lazy one leaves its last to it, if they share layers."""
        return self.num_stage_b_layers + int(stage_a == "lazy" and self.num_shared_layers > 0)

    @property
    def decoder_prefix_length(self) -> int:
        """Tokens the decoder reads before the first answer token: the start token, and the question where prefixed."""
        return 1 + (self.question_length if self.traits.prefixes_decoder else 0)

    @property
    def cache_length(self) -> int:
        """Positions of the decoder's self-attention cache, fixed for all steps of an answer of max_new_tokens."""
        return self.decoder_prefix_length + self.max_new_tokens - 1

    @property
    def least_joined_tokens(self) -> int:
        """Tokens that the first passage is padded to at least, padding included.

        A cross-attention's table moves the keys before the step alone. FiD pads every passage to passage_length, so
        none of those may stand in the second passage where it would not stand there for FiD.
        """
        return min(self.passage_length, self.max_new_tokens) if self.cross_attention_bias else 1
