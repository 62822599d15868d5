"""What each stage has to do: multiply-adds, and for those that wait for memory, the bytes they cannot but read."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.checkpoint import CheckpointConfig
from runtime.contract import Forms

__all__ = ["Lengths", "StageWork", "stage_macs", "stage_work"]

FLOAT32, FLOAT16 = 4, 2


@dataclass(frozen=True)
class Lengths:
    """Numbers of passages (`k` ranked, `m` read) and of tokens."""

    k: int
    m: int
    question_tokens: int
    passage_tokens: int
    answer_tokens: int

    @property
    def joint_tokens(self) -> int:
        """Tokens of the question and one passage."""
        return self.question_tokens + self.passage_tokens


@dataclass(frozen=True)
class StageWork:
    """A stage's work for one batch.

    `bound` names the ceiling it is held against: `arithmetic` (multiply-adds, against the FP32 matrix product) or
    `memory` (`bytes`, against the copy). `memory_bytes` is the part of `bytes` that is passages' memory.
    """

    macs: int
    bound: str
    bytes: int | None = None
    memory_bytes: int | None = None


def stage_work(config: CheckpointConfig, lengths: Lengths, forms: Forms, batch_size: int) -> dict[str, StageWork]:
    """Work of each stage for a batch. Lazy stage A of one layer and the decoder step wait for memory."""
    macs = stage_macs(config, lengths, forms)
    work = {name: StageWork(count * batch_size, "arithmetic") for name, count in macs.items()}
    if forms.stage_a == "lazy" and config.num_stage_a_layers == 1:
        memory = batch_size * lengths.k * lengths.passage_tokens * config.d_model * FLOAT16
        work["live_stage_a"] = StageWork(
            macs["live_stage_a"] * batch_size, "memory", memory + FLOAT32 * _layer_macs(config), memory
        )
    step = _step_bytes(config, lengths, forms, batch_size)
    work["decoder_step"] = StageWork(
        macs["decoder_step"] * batch_size, "memory", step * lengths.answer_tokens
    )
    return work


def stage_macs(config: CheckpointConfig, lengths: Lengths, forms: Forms) -> dict[str, int]:
    """Multiply-adds of each stage for one question, all of the matrix products and none of the rest.

    `decoder_step` counts all steps of an answer.
    """
    joint = lengths.joint_tokens
    heads_by_width = config.num_heads * config.d_model
    num_a, num_b = config.num_stage_a_layers, config.num_stage_b_layers
    macs = {"question_encoder": config.num_memory_layers * _encoder_macs(config, lengths.question_tokens)}
    if forms.stage_a == "lazy":
        # Queries and probes once a question, then scores and context over all tokens, and the layer's rest a passage.
        attended = 2 * heads_by_width * joint
        rest = 2 * config.inner_dim * config.d_model + _feed_forward_macs(config)
        macs["live_stage_a"] = (num_a - 1) * lengths.k * _encoder_macs(config, joint) + lengths.k * (attended + rest)
        macs["live_stage_b"] = (num_b + 1) * lengths.m * _encoder_macs(config, joint)
    else:
        macs["live_stage_a"] = num_a * lengths.k * _encoder_macs(config, joint)
        macs["live_stage_b"] = num_b * lengths.m * _encoder_macs(config, joint)
    encoded = lengths.m * joint
    projection = config.inner_dim * config.d_model
    cross = 2 * projection + 2 * config.inner_dim * encoded
    if forms.cross_attention == "cached":
        macs["cross_kv"] = config.num_decoder_layers * 2 * projection * encoded
    else:
        cross = 4 * projection + 2 * heads_by_width * encoded
    own = 4 * projection + 2 * config.inner_dim * lengths.answer_tokens
    layer = own + cross + _feed_forward_macs(config)
    step = config.num_decoder_layers * layer + config.vocab_size * config.d_model
    macs["decoder_step"] = lengths.answer_tokens * step
    return macs


def _encoder_macs(config: CheckpointConfig, num_tokens: int) -> int:
    """One encoder layer over one sequence."""
    return num_tokens * _layer_macs(config) + 2 * config.inner_dim * num_tokens**2


def _layer_macs(config: CheckpointConfig) -> int:
    """One encoder layer's multiply-adds a token without attention, which is also the number of its weights."""
    return 4 * config.inner_dim * config.d_model + _feed_forward_macs(config)


def _feed_forward_macs(config: CheckpointConfig) -> int:
    matrices = 3 if config.feed_forward_proj == "gated-gelu" else 2
    return matrices * config.d_model * config.d_ff


def _step_bytes(config: CheckpointConfig, lengths: Lengths, forms: Forms, batch_size: int) -> int:
    """What one decoder step must read once: its weights, its cache, and what it attends to."""
    projection = config.inner_dim * config.d_model
    cross_projections = 4 if forms.cross_attention == "absorbed" else 2
    layer = (4 + cross_projections) * projection + _feed_forward_macs(config)
    weights = config.num_decoder_layers * layer + config.vocab_size * config.d_model
    encoded = lengths.m * lengths.joint_tokens
    attended = encoded * config.d_model
    if forms.cross_attention == "cached":
        attended = 2 * config.num_decoder_layers * encoded * config.inner_dim
    cache = 2 * config.num_decoder_layers * lengths.answer_tokens * config.inner_dim
    return FLOAT32 * (weights + batch_size * (attended + cache))
