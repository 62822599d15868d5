"""The decoder taken step by step gives the logits of Hugging Face's decoder run at once, and their log_softmax."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from glimmer_export.exporter.checkpoint import ModelOptions, read_checkpoint
from glimmer_export.exporter.checkpoint.init import init_from_t5
from glimmer_export.exporter.stages import GlimmerModel, model_from_checkpoint, stage_from_model
from glimmer_export.runtime.contract import CROSS_ATTENTION_FORMS, Forms
from tests.assert_close import assert_close
from tests.t5_factory import VARIANTS, make_t5, random_mask, random_tokens, save_t5

BATCH, STATES, STEPS = 3, 11, 10
OPTIONS = ModelOptions("fid", question_length=8, passage_length=12, max_new_tokens=STEPS)


def convert(theirs: T5ForConditionalGeneration, architecture: str, folder: Path) -> GlimmerModel:
    init_from_t5(save_t5(theirs, folder / "t5"), folder / "ckpt", replace(OPTIONS, architecture=architecture))
    return model_from_checkpoint(read_checkpoint(folder / "ckpt"))


def encoded(theirs: T5ForConditionalGeneration, seed: int) -> tuple[Tensor, Tensor]:
    """Encoder states (b, s, d_model), as large as real ones, and a mask with holes."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(BATCH, STATES, theirs.config.d_model, generator=generator)
    return states, random_mask((BATCH, STATES), seed=seed)


def reference(theirs: T5ForConditionalGeneration, tokens: Tensor, states: Tensor, mask: Tensor) -> Tensor:
    """Logits of every position: (b, t, vocab)."""
    return theirs(encoder_outputs=BaseModelOutput(states), attention_mask=mask, decoder_input_ids=tokens).logits


def attended(model: GlimmerModel, states: Tensor, forms: Forms) -> tuple[Tensor, ...]:
    """What the decoder is given of the encoder's states."""
    if forms.cross_attention == "absorbed":
        return (states,)
    cross: tuple[Tensor, ...] = stage_from_model(model, "cross_kv", forms)(states)
    return cross


def empty_caches(model: GlimmerModel) -> list[Tensor]:
    """Filled with what must never be read."""
    config = model.config
    shape = (BATCH, config.num_heads, config.shape.cache_length, config.d_kv)
    return [torch.full(shape, 1e4) for _ in range(2 * config.num_decoder_layers)]


@pytest.mark.parametrize("form", CROSS_ATTENTION_FORMS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_steps(variant: str, form: str, tmp_path: Path) -> None:
    forms = Forms(("fp16",), None, form)
    theirs = make_t5(variant, seed=41)
    model = convert(theirs, "fid", tmp_path)
    states, mask = encoded(theirs, seed=41)
    tokens = random_tokens((BATCH, STEPS), seed=41)
    expected = reference(theirs, tokens, states, mask)
    step, cross = stage_from_model(model, "decoder_step", forms), attended(model, states, forms)
    caches = empty_caches(model)
    for index in range(STEPS):
        position = torch.full((BATCH,), index, dtype=torch.int32)
        following, logits, sure, *caches = step(tokens[:, index : index + 1].int(), position, mask, *caches, *cross)
        assert_close(logits[:, 0], expected[:, index], "t5_logits")
        assert following.tolist() == logits.argmax(-1).tolist()
        assert_close(sure, torch.log_softmax(expected[:, index], -1).gather(1, following.long()), "log_probability")


@pytest.mark.parametrize("positions", [2, 5, STEPS + 3])
@pytest.mark.parametrize("form", CROSS_ATTENTION_FORMS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_drafts(variant: str, form: str, positions: int, tmp_path: Path) -> None:
    """Each row goes on behind as many of its draft as it keeps; what the others wrote is never attended to."""
    forms = Forms(("fp16",), None, form)
    theirs = make_t5(variant, seed=43)
    model = convert(theirs, "fid", tmp_path)
    states, mask = encoded(theirs, seed=43)
    tokens, wrong = (random_tokens((BATCH, STEPS + positions), seed=seed) for seed in (43, 44))
    expected = reference(theirs, tokens, states, mask)
    step, cross = stage_from_model(model, "decoder_step", forms), attended(model, states, forms)
    caches, rows = empty_caches(model), torch.arange(BATCH)[:, None]
    kept = torch.tensor([1, positions, 2])
    position = torch.zeros(BATCH, dtype=torch.int32)
    while bool((position < STEPS).any()):
        places = (position[:, None] + torch.arange(positions)).clamp(max=STEPS + positions - 1)
        right = torch.arange(positions) < kept[:, None]
        ids = torch.where(right, tokens[rows, places], wrong[rows, places])
        following, logits, sure, *caches = step(ids.int(), position, mask, *caches, *cross)
        counts = right & (places < STEPS) & (position[:, None] < STEPS)
        assert_close(logits[counts], expected[rows, places][counts], "t5_logits")
        assert following.tolist() == logits.argmax(-1).tolist()
        chosen = torch.log_softmax(expected[rows, places], -1).gather(2, following.long()[..., None])[..., 0]
        assert_close(sure[counts], chosen[counts], "log_probability")
        position = (position + kept).clamp(max=STEPS).int()
        kept = kept.roll(1)


@pytest.mark.parametrize("form", CROSS_ATTENTION_FORMS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_prefix_of_rows_of_unequal_length(variant: str, form: str, tmp_path: Path) -> None:
    """MemoryFiD's question is padded on the right: each row goes on at its own position, over what padding wrote."""
    forms = Forms(("fp16",), None, form)
    theirs = make_t5(variant, seed=42)
    model = convert(theirs, "memory_fid", tmp_path)
    states, mask = encoded(theirs, seed=42)
    lengths, longest, more = torch.tensor([7, 2, 5]), 7, 4
    tokens = random_tokens((BATCH, longest + more), seed=42)
    expected = reference(theirs, tokens, states, mask)
    prefix = tokens[:, :longest] * (torch.arange(longest) < lengths[:, None])
    cross = attended(model, states, forms)
    position = (lengths - 1).int()
    prefill = stage_from_model(model, "decoder_prefill", forms)
    following, logits, sure, *caches = prefill(prefix.int(), position, mask, *cross)
    rows = torch.arange(BATCH)
    last = expected[rows, lengths - 1]
    assert_close(logits, last, "t5_logits")
    assert_close(sure, torch.log_softmax(last, -1).gather(1, following.long()), "log_probability")
    step = stage_from_model(model, "decoder_step", forms)
    for _ in range(more):
        position = position + 1
        _, logits, _, *caches = step(tokens[rows, position.long()][:, None].int(), position, mask, *caches, *cross)
        assert_close(logits[:, 0], expected[rows, position.long()], "t5_logits")
