"""Checkpoints with a memory give the states of Hugging Face's own blocks: block-diagonal memory, fully connected after.

The reference sees question and passage as one sequence, the question block padded to question_length; ours encodes
them apart, and joins them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from glimmer_export.exporter.checkpoint import CheckpointConfig, ModelOptions, convert_t5, read_checkpoint
from glimmer_export.exporter.checkpoint.init import init_from_t5
from glimmer_export.exporter.stages import GlimmerModel, model_from_checkpoint
from glimmer_export.exporter.tolerances import TOLERANCES
from tests.assert_close import assert_close
from tests.t5_blocks import block_diagonal, fully_connected, run_blocks
from tests.t5_factory import VARIANTS, make_t5, random_mask, random_tokens, save_t5

QUESTION_LENGTH, BATCH, PASSAGES, PASSAGE_TOKENS = 9, 2, 3, 13
OPTIONS = {
    "glimmer": ModelOptions("glimmer", Fraction(1, 2), Fraction(1, 3)),
    "lumen": ModelOptions("lumen", Fraction(1, 3)),
    "memory_fid": ModelOptions("memory_fid"),
}
DEEP = {"num_layers": 6}  # more encoder layers than decoder layers, as with the first paper's deep memory encoder


@dataclass(frozen=True)
class Inputs:
    """Padded questions (b, question_length) and passages (b, k, n) with their masks."""

    question: Tensor
    question_mask: Tensor
    passages: Tensor
    passage_mask: Tensor


def make_inputs(question_tokens: int, seed: int) -> Inputs:
    """Questions of `question_tokens` at most, passages of unequal length, one of them with holes."""
    question_mask = torch.zeros(BATCH, QUESTION_LENGTH, dtype=torch.long)
    question_mask[0, :question_tokens] = 1
    question_mask[1, : max(2, question_tokens - 2)] = 1
    passage_mask = torch.ones(BATCH, PASSAGES, PASSAGE_TOKENS, dtype=torch.long)
    passage_mask[0, 1, 6:] = 0
    passage_mask[1, 2] = random_mask((PASSAGE_TOKENS,), seed=seed)
    question = random_tokens((BATCH, QUESTION_LENGTH), seed=seed) * question_mask
    passages = random_tokens((BATCH, PASSAGES, PASSAGE_TOKENS), seed=seed + 1) * passage_mask
    return Inputs(question, question_mask, passages, passage_mask)


def trimmed(inputs: Inputs, tokens: int) -> Inputs:
    return replace(inputs, question=inputs.question[:, :tokens], question_mask=inputs.question_mask[:, :tokens])


def convert(theirs: T5ForConditionalGeneration, options: ModelOptions, folder: Path) -> GlimmerModel:
    options = replace(options, question_length=QUESTION_LENGTH, passage_length=PASSAGE_TOKENS)
    init_from_t5(save_t5(theirs, folder / "t5"), folder / "ckpt", options, seed=3)
    return model_from_checkpoint(read_checkpoint(folder / "ckpt"))


def reference(
    theirs: T5ForConditionalGeneration, config: CheckpointConfig, inputs: Inputs,
    question_t5: T5ForConditionalGeneration | None = None,
) -> tuple[Tensor, Tensor]:
    """Un-normalised states after stage A, and the live encoder's output: each (b, k, question_length + n, d_model)."""
    repeated = inputs.question[:, None].expand(-1, PASSAGES, -1)
    input_ids = torch.cat([repeated, inputs.passages], dim=2).flatten(0, 1)
    repeated_mask = inputs.question_mask[:, None].expand(-1, PASSAGES, -1)
    mask = torch.cat([repeated_mask, inputs.passage_mask], dim=2).flatten(0, 1)

    def memory_states(model: T5ForConditionalGeneration) -> Tensor:
        allowed = block_diagonal(mask, QUESTION_LENGTH)
        states = run_blocks(model.encoder, model.shared(input_ids), allowed, slice(config.num_memory_layers))
        return model.encoder.final_layer_norm(states) if config.memory_final_norm else states

    states = memory_states(theirs)
    if question_t5 is not None:
        states = torch.cat([memory_states(question_t5)[:, :QUESTION_LENGTH], states[:, QUESTION_LENGTH:]], dim=1)
    first = config.num_memory_layers
    middle = first + config.num_stage_a_layers
    ranked = run_blocks(theirs.encoder, states, fully_connected(mask), slice(first, middle))
    output = run_blocks(theirs.encoder, ranked, fully_connected(mask), slice(middle, None))
    shape = (BATCH, PASSAGES)
    return ranked.unflatten(0, shape), theirs.encoder.final_layer_norm(output).unflatten(0, shape)


def stages(model: GlimmerModel, inputs: Inputs) -> tuple[Tensor | None, Tensor, Tensor]:
    """Scores (None in a LUMEN), the un-normalised states after stage A, and the live encoder's output."""
    question = model.encode_question(inputs.question, inputs.question_mask)
    memory = model.encode_memory(inputs.passages.flatten(0, 1), inputs.passage_mask.flatten(0, 1))
    memory = memory.unflatten(0, (BATCH, PASSAGES))
    scores, states = None, model.join(question, memory)
    if model.config.shape.traits.selects:
        scores, states = model.stage_a(question, inputs.question_mask, memory, inputs.passage_mask)
    read = model.join(question, memory) if model.config.separate_reranker else states
    return scores, states, model.stage_b(read, inputs.question_mask, inputs.passage_mask)


def kept(states: Tensor, question_tokens: int) -> Tensor:
    """Less the positions that the trimmed question has not."""
    return torch.cat([states[:, :, :question_tokens], states[:, :, QUESTION_LENGTH:]], dim=2)


def assert_same_states(
    model: GlimmerModel, theirs: T5ForConditionalGeneration, inputs: Inputs, question_tokens: int,
    question_t5: T5ForConditionalGeneration | None = None,
) -> None:
    ranked, output = reference(theirs, model.config, inputs, question_t5)
    for ours, tokens in ((inputs, QUESTION_LENGTH), (trimmed(inputs, question_tokens), question_tokens)):
        _, found_ranked, found_output = stages(model, ours)
        assert_close(found_ranked, kept(ranked, tokens), "t5_residual_stream")
        assert_close(found_output, kept(output, tokens), "t5_encoder_states")


@pytest.mark.parametrize("question_tokens", [QUESTION_LENGTH, 5])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("architecture", ["glimmer", "lumen"])
def test_states(architecture: str, variant: str, question_tokens: int, tmp_path: Path) -> None:
    theirs = make_t5(variant, seed=11, **DEEP)
    model = convert(theirs, OPTIONS[architecture], tmp_path)
    counts = (model.config.num_memory_layers, model.config.num_stage_a_layers, model.config.num_stage_b_layers)
    assert counts == {"glimmer": (3, 1, 2), "lumen": (4, 0, 2)}[architecture]
    assert_same_states(model, theirs, make_inputs(question_tokens, seed=11), question_tokens)


@pytest.mark.parametrize(
    ("live", "rerank", "cut"),
    [
        (Fraction(5, 6), Fraction(3, 5), (1, 3, 2)),
        (Fraction(2, 3), Fraction(1, 2), (2, 2, 2)),
        (Fraction(1, 3), Fraction(1, 2), (4, 1, 1)),
    ],
)
def test_states_at_other_depths(live: Fraction, rerank: Fraction, cut: tuple[int, int, int], tmp_path: Path) -> None:
    theirs = make_t5("v1.1", seed=24, **DEEP)
    model = convert(theirs, ModelOptions("glimmer", live, rerank), tmp_path)
    counts = (model.config.num_memory_layers, model.config.num_stage_a_layers, model.config.num_stage_b_layers)
    assert counts == cut
    assert_same_states(model, theirs, make_inputs(5, seed=24), 5)


@pytest.mark.parametrize("changes", [{"memory_final_norm": True}, {"score_pooling": "mean"}])
@pytest.mark.parametrize("architecture", ["glimmer", "lumen"])
def test_states_with_options(architecture: str, changes: dict[str, object], tmp_path: Path) -> None:
    theirs = make_t5("v1.1", seed=12)
    model = convert(theirs, replace(OPTIONS[architecture], **changes), tmp_path)
    assert_same_states(model, theirs, make_inputs(6, seed=12), 6)


@pytest.mark.parametrize("memory_final_norm", [False, True])
@pytest.mark.parametrize("architecture", ["glimmer", "lumen"])
def test_a_separate_question_encoder_starts_as_the_memory_encoder(
    architecture: str, memory_final_norm: bool, tmp_path: Path
) -> None:
    theirs = make_t5("v1.1", seed=13)
    options = replace(OPTIONS[architecture], separate_question_encoder=True, memory_final_norm=memory_final_norm)
    assert_same_states(convert(theirs, options, tmp_path), theirs, make_inputs(6, seed=13), 6)


def test_a_separate_question_encoder_is_the_one_that_encodes_questions(tmp_path: Path) -> None:
    """After fine-tuning it differs: here it is another T5's, whose embedding is the same."""
    theirs = make_t5("v1.1", seed=14)
    other = make_t5("v1.1", seed=15)
    other.shared.weight.copy_(theirs.shared.weight)
    options = replace(OPTIONS["lumen"], separate_question_encoder=True)
    model = convert(theirs, options, tmp_path / "a")
    donor = convert(other, options, tmp_path / "b").question_encoder.state_dict()
    model.question_encoder.load_state_dict(donor)
    assert_same_states(model, theirs, make_inputs(6, seed=14), 6, question_t5=other)


def test_a_separate_reranker_starts_as_the_first_live_layers(tmp_path: Path) -> None:
    """With a copy of their table; the live encoder beside it is whole."""
    theirs = make_t5("v1.1", seed=17, **DEEP)
    model = convert(theirs, replace(OPTIONS["glimmer"], separate_reranker="t5"), tmp_path)
    config, weights = model.config, model.state_dict()
    assert (config.num_stage_a_layers, config.num_stage_b_layers, config.num_live_layers) == (1, 3, 3)
    for name, tensor in model.reranker.state_dict().items():
        assert torch.equal(tensor, weights[f"live_encoder.{name}"]), name
    assert_same_states(model, theirs, make_inputs(6, seed=17), 6)


def test_a_reranker_from_scratch_is_drawn_from_the_seed_at_t5s_scales(tmp_path: Path) -> None:
    source = save_t5(make_t5("v1.1", seed=18, **DEEP), tmp_path / "t5")
    options = replace(OPTIONS["glimmer"], separate_reranker="random")
    one, same, other = (dict(convert_t5(source, options, seed=seed)[1]) for seed in (3, 3, 4))
    copied = dict(convert_t5(source, replace(options, separate_reranker="t5"), seed=3)[1])
    ranking = {name for name in one if name.startswith("reranker.")}
    assert set(one) == set(copied)
    assert all(torch.equal(one[name], same[name]) for name in one)
    drawn = {name for name in ranking if "layer_norm" not in name}
    assert {name for name in one if not torch.equal(one[name], other[name])} == drawn | {"score.weight"}
    assert {name for name in one if not torch.equal(one[name], copied[name])} == ranking
    block = "reranker.block.0.layer"
    for name, fan_in in ((f"{block}.0.SelfAttention.q", 32 * 8), (f"{block}.0.SelfAttention.k", 32),
                         (f"{block}.0.SelfAttention.o", 32), (f"{block}.1.DenseReluDense.wo", 48)):  # fmt: skip
        assert float(one[f"{name}.weight"].std()) == pytest.approx(fan_in**-0.5, rel=0.1), name
    assert bool((one[f"{block}.0.layer_norm.weight"] == 1).all())


@pytest.mark.parametrize("variant", VARIANTS)
def test_memory_fid_is_the_whole_encoder_on_passages_alone(variant: str, tmp_path: Path) -> None:
    theirs = make_t5(variant, seed=16)
    model = convert(theirs, OPTIONS["memory_fid"], tmp_path)
    assert model.config.num_memory_layers == 3
    inputs = make_inputs(5, seed=16)
    input_ids, mask = inputs.passages.flatten(0, 1), inputs.passage_mask.flatten(0, 1)
    memory = model.encode_memory(input_ids, mask).unflatten(0, (BATCH, PASSAGES))
    expected = theirs.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
    output = model.stage_b(memory, inputs.question_mask[:, :0], inputs.passage_mask)
    assert_close(output.flatten(0, 1), expected, "t5_encoder_states")
    assert_close(memory.flatten(0, 1), run_blocks(
        theirs.encoder, theirs.shared(input_ids), fully_connected(mask), slice(None)
    ), "t5_residual_stream")


def test_memory_fid_with_a_normalised_memory(tmp_path: Path) -> None:
    theirs = make_t5("v1.1", seed=17)
    model = convert(theirs, replace(OPTIONS["memory_fid"], memory_final_norm=True), tmp_path)
    inputs = make_inputs(5, seed=17)
    input_ids, mask = inputs.passages.flatten(0, 1), inputs.passage_mask.flatten(0, 1)
    expected = theirs.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
    assert_close(model.encode_memory(input_ids, mask), expected, "t5_encoder_states")


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_the_score_reads_the_unnormalised_stream(pooling: str, tmp_path: Path) -> None:
    """GLIMMER paper, section 3.2: a linear layer on the first token (or, an option here, on the mean of all kept)."""
    theirs = make_t5("v1.1", seed=18)
    model = convert(theirs, replace(OPTIONS["glimmer"], score_pooling=pooling), tmp_path)
    model.score.bias.fill_(0.25)
    inputs = make_inputs(5, seed=18)
    ranked, _ = reference(theirs, model.config, inputs)
    expected = torch.empty(BATCH, PASSAGES)
    for b in range(BATCH):
        for i in range(PASSAGES):
            mask = torch.cat([inputs.question_mask[b], inputs.passage_mask[b, i]]) > 0
            pooled = ranked[b, i, 0] if pooling == "first" else ranked[b, i][mask].mean(0)
            expected[b, i] = pooled @ model.score.weight[0] + 0.25
    assert expected.unique().numel() == expected.numel()
    for ours in (inputs, trimmed(inputs, 5)):
        scores, _, _ = stages(model, ours)
        assert_close(scores, expected, "t5_scores")


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_an_absent_passage_scores_minus_infinity(pooling: str, tmp_path: Path) -> None:
    model = convert(make_t5("v1.1", seed=19), replace(OPTIONS["glimmer"], score_pooling=pooling), tmp_path)
    inputs = make_inputs(5, seed=19)
    present, _, _ = stages(model, inputs)
    inputs.passage_mask[1, 0] = 0
    scores, states, output = stages(model, inputs)
    assert scores[1, 0] == -torch.inf
    assert torch.isfinite(states).all()
    assert torch.isfinite(output).all()
    others = torch.ones(BATCH, PASSAGES, dtype=torch.bool)
    others[1, 0] = False
    assert_close(scores[others], present[others], "t5_scores")
    readable = model.readable_mask(inputs.question_mask, inputs.passage_mask)
    assert not readable[1, 0].any()
    assert torch.equal(readable[1, 1, :QUESTION_LENGTH], inputs.question_mask[1])


def test_each_part_holds_the_bias_table(tmp_path: Path) -> None:
    theirs = make_t5("v1.1", seed=20)
    options = replace(OPTIONS["glimmer"], separate_question_encoder=True)
    weights = convert(theirs, options, tmp_path).state_dict()
    name = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    table = theirs.encoder.get_parameter(name)
    for part in ("memory_encoder", "question_encoder", "live_encoder"):
        assert torch.equal(weights[f"{part}.{name}"], table)
    assert not torch.equal(weights[f"decoder.{name}"], table)


# Mutations of how the encoder is cut, each of which the comparison must see.


def test_a_cut_one_layer_off_is_seen(tmp_path: Path) -> None:
    theirs = make_t5("v1.1", seed=21, **DEEP)
    model = convert(theirs, OPTIONS["lumen"], tmp_path)
    inputs = make_inputs(5, seed=21)
    off_by_one = model.config.model_copy(update={"num_memory_layers": 3})
    _, expected = reference(theirs, off_by_one, inputs)
    with pytest.raises(AssertionError, match=TOLERANCES["t5_encoder_states"].reason):
        assert_close(stages(model, inputs)[2], expected, "t5_encoder_states")


def test_a_live_encoder_without_offset_is_seen(tmp_path: Path) -> None:
    """A trimmed question would pull the passage nearer, were it not for question_length in the positions."""
    theirs = make_t5("v1.1", seed=22)
    model = convert(theirs, OPTIONS["lumen"], tmp_path)
    inputs = make_inputs(5, seed=22)
    _, expected = reference(theirs, model.config, inputs)
    model.config = model.config.model_copy(update={"question_length": 5})
    with pytest.raises(AssertionError, match=TOLERANCES["t5_encoder_states"].reason):
        assert_close(stages(model, trimmed(inputs, 5))[2], kept(expected, 5), "t5_encoder_states")


def test_a_zeroed_bias_table_is_seen(tmp_path: Path) -> None:
    theirs = make_t5("v1.1", seed=23)
    model = convert(theirs, OPTIONS["lumen"], tmp_path)
    inputs = make_inputs(5, seed=23)
    model.live_encoder.get_parameter("block.0.layer.0.SelfAttention.relative_attention_bias.weight").zero_()
    with pytest.raises(AssertionError, match=TOLERANCES["t5_encoder_states"].reason):
        assert_same_states(model, theirs, inputs, 5)
