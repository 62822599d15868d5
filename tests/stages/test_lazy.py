"""Lazy stage A gives the scores of the full one, and leaves stage B the states to end with the same encoding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glimmer_export.exporter.checkpoint import CheckpointConfig, random_weights
from glimmer_export.exporter.stages import GlimmerModel, applies_scale, stage_from_model
from glimmer_export.exporter.stages.codecs.decoder import take_selected
from glimmer_export.exporter.tolerances import TOLERANCES, max_abs_error
from glimmer_export.runtime.contract import Forms
from glimmer_export.runtime.rerank import select_top_m

FULL, LAZY = Forms(("fp16",), "full", "cached"), Forms(("fp16",), "lazy", "cached")
MARGIN = 1e-4


def random_model(draw: st.DrawFn, stage_a: int, *, separate: bool) -> GlimmerModel:
    config = CheckpointConfig(
        architecture="glimmer", vocab_size=16, d_model=draw(st.sampled_from([8, 24, 40])),
        d_kv=draw(st.integers(1, 12)), d_ff=draw(st.integers(1, 48)), num_heads=draw(st.integers(1, 5)),
        num_memory_layers=1,
        num_stage_a_layers=stage_a, num_stage_b_layers=draw(st.integers(1, 2)), num_decoder_layers=1,
        question_length=draw(st.integers(6, 12)), passage_length=16, num_retrieved=4, num_selected=2,
        feed_forward_proj=draw(st.sampled_from(["relu", "gated-gelu"])), separate_reranker=separate,
    )
    weights = random_weights(config, seed=draw(st.integers(0, 1000)))
    for name, weight in weights.items():
        if "layer_norm" in name:
            weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(7))
    model = GlimmerModel(config)
    model.load_state_dict(weights)
    return model.requires_grad_(False).eval()


@st.composite
def cases(draw: st.DrawFn, stage_a: int, *, separate: bool = False):
    """A model, and question and memory with padding; now and then a passage is absent."""
    model = random_model(draw, stage_a, separate=separate)
    batch, passages = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    question, passage = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    scale = 10.0 ** draw(st.integers(-2, 2))
    width = model.config.d_model
    question_states = torch.randn(batch, question, width, generator=generator) * scale
    memory = torch.randn(batch, passages, passage, width, generator=generator) * scale
    lengths = torch.randint(1, question + 1, (batch, 1), generator=generator)
    question_mask = (torch.arange(question) < lengths).int()
    lengths = torch.randint(0, passage + 1, (batch, passages, 1), generator=generator)
    lengths[:, 0] = passage
    memory_mask = (torch.arange(passage) < lengths).int()
    return model, (question_states, question_mask, memory, memory_mask), draw(st.integers(1, passages))


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return max_abs_error(found.numpy(), expected.numpy()) <= TOLERANCES["fp32"].limit(expected.numpy())


@pytest.mark.parametrize("stage_a", [1, 2, 3])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_lazy_equals_full(stage_a: int, data: st.DataObject) -> None:
    model, inputs, num_selected = data.draw(cases(stage_a))
    question_states, question_mask, memory, memory_mask = inputs
    scores, states = stage_from_model(model, "live_stage_a", FULL)(*inputs)
    last = stage_from_model(model, "live_stage_a", LAZY)
    if applies_scale(last):
        scale = 2.0 ** torch.arange(-2, memory.shape[1] - 2).repeat(len(memory), 1)
        codes = memory / scale[:, :, None, None]
        lazy_scores = last(question_states, question_mask, codes, scale, memory_mask)
    else:
        lazy_scores, lazy_states = last(*inputs)
    assert close(lazy_scores, scores)
    selected = torch.from_numpy(select_top_m(scores.numpy(), num_selected))
    lazy_selected = torch.from_numpy(select_top_m(lazy_scores.numpy(), num_selected))
    for row in range(len(scores)):
        ranked = scores[row].sort(descending=True).values
        if num_selected < len(ranked) and torch.isfinite(ranked[num_selected]):
            margin = ranked[num_selected - 1] - ranked[num_selected]
            if margin > MARGIN * ranked[torch.isfinite(ranked)].abs().max():
                assert selected[row].tolist() == lazy_selected[row].tolist()
    expected = stage_from_model(model, "live_stage_b", FULL)(states, question_mask, memory_mask, selected)
    last = stage_from_model(model, "live_stage_b", LAZY)
    if stage_a == 1:
        taken, taken_mask = take_selected(selected, memory, memory_mask)
        found = last(question_states, question_mask, taken, taken_mask)
    else:
        found = last(lazy_states, question_mask, memory_mask, selected)
    assert torch.equal(found[1], expected[1])
    assert close(found[0], expected[0])


@pytest.mark.parametrize("stage_a", [1, 2])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_separate_reranker_gives_the_same_scores_in_both_forms_and_nothing_else(
    stage_a: int, data: st.DataObject
) -> None:
    """Stage B is one module for both: the whole live encoder over the selected passages' memory."""
    model, inputs, _ = data.draw(cases(stage_a, separate=True))
    memory = inputs[2]
    scores = stage_from_model(model, "live_stage_a", FULL)(*inputs)
    lazy = stage_from_model(model, "live_stage_a", LAZY)
    extra = [torch.ones(memory.shape[:2])] if applies_scale(lazy) else []
    found = lazy(*inputs[:3], *extra, inputs[3])
    assert isinstance(scores, torch.Tensor)
    assert isinstance(found, torch.Tensor)
    assert close(found, scores)
    read = [stage_from_model(model, "live_stage_b", forms)(*inputs)[0] for forms in (FULL, LAZY)]
    assert torch.equal(*read)
    with torch.no_grad():
        model.reranker.block[0].layer[0].SelfAttention.o.weight.mul_(-3)
    assert not torch.equal(stage_from_model(model, "live_stage_a", FULL)(*inputs), scores)
    assert torch.equal(stage_from_model(model, "live_stage_b", FULL)(*inputs)[0], read[0])
