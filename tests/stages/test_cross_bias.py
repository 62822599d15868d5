"""FiD's table of positions in the cross-attention: each layer gives what transformers 3.0.2 computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5Attention

from glimmer_export.exporter.checkpoint import CheckpointConfig, random_weights
from glimmer_export.exporter.stages import GlimmerModel, model_from_weights, stage_from_model
from glimmer_export.runtime.contract import CROSS_ATTENTION_FORMS, Forms
from tests.assert_close import assert_close
from tests.fid_factory import TABLE
from tests.t5_factory import random_tokens

BATCH, STATES, ANSWER = 3, 40, 14
STEPS = (1, 12)
CONFIG = CheckpointConfig(
    architecture="fid", vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_heads=4, num_memory_layers=0,
    num_stage_a_layers=0, num_stage_b_layers=1, num_decoder_layers=3, question_layout="joined",
    input_template="{question} {text}", passage_length=20, question_length=20, max_new_tokens=ANSWER,
    cross_attention_bias=True,
)


@pytest.fixture(scope="module")
def model() -> GlimmerModel:
    """With a table so large that the keys before a step win or lose by it alone."""
    weights = random_weights(CONFIG, seed=1)
    weights[TABLE] = 8 * torch.randn(weights[TABLE].shape, generator=torch.Generator().manual_seed(2))
    return model_from_weights(CONFIG, weights)


@pytest.fixture(scope="module")
def states() -> tuple[Tensor, Tensor]:
    """Encoder states, and a mask of two passages of which one is padded within the first keys."""
    mask = torch.ones(BATCH, STATES, dtype=torch.int32)
    mask[0, 5:20] = 0
    mask[1, 33:] = 0
    return torch.randn(BATCH, STATES, CONFIG.d_model, generator=torch.Generator().manual_seed(3)), mask


Seen = dict[int, tuple[Tensor, Tensor]]


@contextmanager
def attended(model: GlimmerModel) -> Iterator[Seen]:
    """What each layer's cross-attention reads, (b, t, d_model), and what it gives."""
    seen: Seen = {}
    inputs: dict[int, Tensor] = {}

    def note(layer: int) -> tuple[Callable[..., None], Callable[..., None]]:
        def query(_module: nn.Module, arguments: tuple[Tensor]) -> None:
            inputs[layer] = arguments[0]

        def output(_module: nn.Module, _arguments: object, result: Tensor) -> None:
            seen[layer] = inputs[layer], result

        return query, output

    handles = []
    for layer, block in enumerate(model.decoder.blocks()):
        query, output = note(layer)
        attention = block.cross_attention.EncDecAttention
        handles += [attention.q.register_forward_pre_hook(query), attention.o.register_forward_hook(output)]
    yield seen
    for handle in handles:
        handle.remove()


def fids(model: GlimmerModel, layer: int, read: Tensor, states: Tensor, mask: Tensor, positions: range) -> Tensor:
    """The same in float64: one table for all layers, unidirectional, keys counted through all passages from 0."""
    block = list(model.decoder.blocks())[layer].cross_attention.EncDecAttention
    q, k, v, o = (getattr(block, name).weight.double() for name in "qkvo")

    def heads(values: Tensor) -> Tensor:
        return values.unflatten(-1, (CONFIG.num_heads, CONFIG.d_kv)).transpose(1, 2)

    distance = torch.arange(states.shape[1])[None, :] - torch.tensor(positions)[:, None]
    bucket = T5Attention._relative_position_bucket(distance, bidirectional=False, num_buckets=32, max_distance=128)
    bias = model.state_dict()[TABLE].double()[bucket].permute(2, 0, 1)
    scores = heads(read.double() @ q.T) @ heads(states.double() @ k.T).transpose(-1, -2) + bias
    weights = scores.masked_fill(mask[:, None, None, :] == 0, -torch.inf).softmax(-1)
    return (weights @ heads(states.double() @ v.T)).transpose(1, 2).flatten(2) @ o.T


@pytest.mark.parametrize("form", CROSS_ATTENTION_FORMS)
def test_every_layer_at_a_step(model: GlimmerModel, states: tuple[Tensor, Tensor], form: str) -> None:
    forms = Forms((), None, form)
    cross = (states[0],) if form == "absorbed" else stage_from_model(model, "cross_kv", forms)(states[0])
    step = stage_from_model(model, "decoder_step", forms)
    tokens = random_tokens((BATCH, ANSWER), seed=4).int()
    caches = [torch.zeros(BATCH, CONFIG.num_heads, ANSWER, CONFIG.d_kv) for _ in range(2 * CONFIG.num_decoder_layers)]
    for index in range(max(STEPS) + 1):
        position = torch.full((BATCH,), index, dtype=torch.int32)
        with attended(model) as seen:
            _, _, _, *caches = step(tokens[:, index : index + 1], position, states[1], *caches, *cross)
        if index in STEPS:
            assert sorted(seen) == [0, 1, 2]
            for layer, (read, found) in seen.items():
                expected = fids(model, layer, read, *states, range(index, index + 1))
                assert_close(found, expected.float(), "cross_attention")
                plain = fids(model, layer, read, *states, range(1))  # no key stands before position 0
                assert (plain - expected).abs().max() > 1e-2


def test_every_layer_at_all_steps_at_once(model: GlimmerModel, states: tuple[Tensor, Tensor]) -> None:
    with attended(model) as seen:
        model.decode(random_tokens((BATCH, ANSWER), seed=4).int(), *states)
    for layer, (read, found) in seen.items():
        assert_close(found, fids(model, layer, read, *states, range(ANSWER)).float(), "cross_attention")


@pytest.mark.parametrize("form", CROSS_ATTENTION_FORMS)
def test_rows_at_steps_of_their_own(model: GlimmerModel, states: tuple[Tensor, Tensor], form: str) -> None:
    """Rows of a batch need not be at one step, and the table goes by each row's own."""
    forms = Forms((), None, form)
    cross = (states[0],) if form == "absorbed" else stage_from_model(model, "cross_kv", forms)(states[0])
    caches = [torch.zeros(BATCH, CONFIG.num_heads, ANSWER, CONFIG.d_kv) for _ in range(2 * CONFIG.num_decoder_layers)]
    steps = [3, 0, 12]
    with attended(model) as seen:
        stage_from_model(model, "decoder_step", forms)(
            random_tokens((BATCH, 1), seed=5).int(), torch.tensor(steps, dtype=torch.int32), states[1], *caches, *cross
        )
    read, found = seen[0]
    for row, index in enumerate(steps):
        one = slice(row, row + 1)
        expected = fids(model, 0, read[one], states[0][one], states[1][one], range(index, index + 1))
        assert_close(found[one], expected.float(), "cross_attention")


@pytest.mark.parametrize("form", CROSS_ATTENTION_FORMS)
def test_positions_of_a_draft(model: GlimmerModel, states: tuple[Tensor, Tensor], form: str) -> None:
    """The table goes by each position of a row's draft."""
    forms = Forms((), None, form)
    cross = (states[0],) if form == "absorbed" else stage_from_model(model, "cross_kv", forms)(states[0])
    caches = [torch.zeros(BATCH, CONFIG.num_heads, ANSWER, CONFIG.d_kv) for _ in range(2 * CONFIG.num_decoder_layers)]
    steps, length = [3, 0, 8], 5
    with attended(model) as seen:
        stage_from_model(model, "decoder_step", forms)(
            random_tokens((BATCH, length), seed=6).int(), torch.tensor(steps, dtype=torch.int32), states[1], *caches,
            *cross,
        )
    read, found = seen[0]
    for row, index in enumerate(steps):
        one = slice(row, row + 1)
        expected = fids(model, 0, read[one], states[0][one], states[1][one], range(index, index + length))
        assert_close(found[one], expected.float(), "cross_attention")
