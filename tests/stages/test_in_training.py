"""What a model does in training alone: T5's dropout, checkpointed layers, BF16 with what stays FP32.

Dropout is held to Hugging Face's T5 with the same random draws: the same logits and gradients only come out if the
same tensors are dropped in the same order.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from glimmer_export.exporter.checkpoint import CheckpointConfig, random_weights
from glimmer_export.exporter.stages import GlimmerModel
from glimmer_export.exporter.stages.decoder import DecoderBlock
from glimmer_export.exporter.stages.encoder import EncoderBlock
from glimmer_export.exporter.stages.layers import Dropout, FeedForward, RMSNorm
from glimmer_export.exporter.tolerances import TOLERANCES
from tests.stages.test_encode import MODELS, model_of, texts
from tests.t5_factory import VARIANTS, fid_from_t5, make_t5, random_tokens

LOGITS, RATE = TOLERANCES["t5_logits"], 0.1
ANSWERS = torch.tensor([[0, 7, 8], [0, 9, 10]])


def trainable(name: str) -> GlimmerModel:
    return model_of(name).requires_grad_(True).train()


def output(model: GlimmerModel) -> Tensor:
    """One number of which every weight that is used has a gradient."""
    encoded = model.encode_texts(*texts(), model.config.num_selected)
    total = model.decode(ANSWERS, encoded.states, encoded.mask).float().logsumexp(-1).sum()
    if encoded.scores is not None:
        total = total + encoded.scores[0].square().sum()
    return total


def gradients(model: GlimmerModel) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(5)
    output(model).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("variant", VARIANTS)
def test_dropout_is_hugging_faces(variant):
    theirs = make_t5(variant)
    ours = fid_from_t5(theirs)
    ours.set_dropout(theirs.config.dropout_rate)
    ids, mask = random_tokens((2, 9), seed=1), torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ANSWERS}
    undropped = theirs(**inputs).logits
    for model in (theirs, ours):
        model.requires_grad_(True).train()
    torch.manual_seed(7)
    expected = theirs(**inputs).logits
    torch.manual_seed(7)
    found = ours.decode(ANSWERS, ours.encode_joined(ids[:, None], mask[:, None]).flatten(1, 2), mask)
    assert not torch.allclose(expected, undropped, rtol=0.1)
    torch.testing.assert_close(found, expected, atol=LOGITS.atol, rtol=LOGITS.rtol)
    for logits in (found, expected):
        logits.logsumexp(-1).sum().backward()
    for name, weight in theirs.named_parameters():
        torch.testing.assert_close(
            ours.get_parameter(name.replace("encoder.", "live_encoder.") if name.startswith("encoder.") else name).grad,
            weight.grad, atol=LOGITS.atol, rtol=1e-4, msg=name,
        )


@pytest.mark.parametrize(("name", "final_norm"), [
    *((name, False) for name in MODELS), *((name, True) for name in MODELS if name != "fid"),
])  # fmt: skip
def test_a_stack_drops_where_it_begins_and_behind_a_final_norm(name, final_norm):
    """Nothing between memory and live layers, nor between stages A and B: there T5 is cut between two blocks."""
    config = CheckpointConfig(**{**model_of(name).config.model_dump(), "memory_final_norm": final_norm})
    model = GlimmerModel(config)
    model.load_state_dict(random_weights(config, seed=3))
    model.train().set_dropout(RATE)
    seen: Counter[str] = Counter()
    for place, module in model.named_modules():
        if isinstance(module, Dropout):
            assert module.p == RATE
            module.register_forward_hook(lambda *_, place=place: seen.update([place]))
    with torch.no_grad():
        output(model)
    traits = config.shape.traits
    passes = {"memory_encoder": 1 + (traits.encodes_question and not config.separate_question_encoder)}
    if config.separate_question_encoder:
        passes["question_encoder"] = 1
    expected = {f"{stack}.dropout": times * (1 + final_norm) for stack, times in passes.items()}
    if not traits.has_memory:
        passes, expected = {}, {}
    expected |= {"live_encoder.dropout": 1 + (not traits.has_memory), "decoder.dropout": 2}
    assert {place: times for place, times in seen.items() if ".block." not in place} == expected
    layers = {place: times for place, times in seen.items() if ".block." in place}
    assert all(times == passes.get(place.partition(".")[0], 1) for place, times in layers.items())
    # Attention's weights and sum, and the inside and the sum of feed-forward; cross-attention besides in a decoder.
    blocks = [module for module in model.modules() if isinstance(module, (EncoderBlock, DecoderBlock))]
    assert len(layers) == sum(6 if isinstance(block, DecoderBlock) else 4 for block in blocks)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_dropped_in_evaluation_mode_or_at_rate_0(name):
    model = trainable(name)
    plain = output(model.eval())
    state = torch.random.get_rng_state()
    assert torch.equal(output(model.train()), plain)
    assert torch.equal(torch.random.get_rng_state(), state)
    model.set_dropout(RATE)
    assert not torch.equal(output(model), plain)
    assert torch.equal(output(model.eval()), plain)


def test_a_part_in_evaluation_mode_drops_nothing():
    """Frozen memory is that of the store, whatever the rest is doing."""
    model = trainable("glimmer")
    _, passages = texts()
    memory = model.encode_memory(*(values[0] for values in passages))
    model.set_dropout(RATE)
    model.memory_encoder.eval()
    assert torch.equal(model.encode_memory(*(values[0] for values in passages)), memory)
    assert not torch.equal(output(model), output(model))


@pytest.mark.parametrize("rate", [0.0, RATE])
@pytest.mark.parametrize("name", MODELS)
def test_checkpointed_layers_give_the_same_gradients(name, rate):
    model = trainable(name)
    model.set_dropout(rate)
    expected = gradients(model)
    runs: Counter[str] = Counter()
    blocks = {}
    for place, module in model.named_modules():
        if isinstance(module, (EncoderBlock, DecoderBlock)):
            blocks[place] = 1 + (place.startswith("memory_encoder") and model.config.shape.traits.encodes_question
                                 and not model.config.separate_question_encoder)
            module.register_forward_pre_hook(lambda *_, place=place: runs.update([place]))
    model.set_gradient_checkpointing(True)
    found = gradients(model)
    assert runs == {place: 2 * times for place, times in blocks.items()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[place], gradient) for place, gradient in expected.items())
    runs.clear()
    with torch.no_grad():
        output(model)
    assert runs == blocks
    model.set_gradient_checkpointing(False)
    gradients(model)
    assert runs == {place: 2 * times for place, times in blocks.items()}


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("name", ["glimmer, mean pooling", "lumen, own question encoder", "memory_fid", "fid"])
def test_bf16_leaves_residual_stream_norms_and_wo_in_fp32(name, checkpointed):
    model = trainable(name)
    model.set_dropout(RATE)
    model.set_gradient_checkpointing(checkpointed)
    dtypes: dict[str, set[torch.dtype]] = {}

    def watch(kind: str):
        def record(_module: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
            dtypes.setdefault(kind, set()).update((inputs[0].dtype, result.dtype) if "in" in kind else (result.dtype,))

        return record

    for place, module in model.named_modules():
        if isinstance(module, RMSNorm):
            module.register_forward_hook(watch("norms, in and out"))
        elif isinstance(module, (EncoderBlock, DecoderBlock)):
            module.register_forward_hook(watch("stream, in and out"))
        elif isinstance(module, FeedForward):
            module.register_forward_hook(watch("feed-forward"))
            module.wo.register_forward_hook(watch("wo, in and out"))
        elif place == "score":
            module.register_forward_hook(watch("score, in and out"))
        elif isinstance(module, nn.Linear) and place.rpartition(".")[2] in ("q", "k", "v", "o", "wi_0", "wi_1"):
            module.register_forward_hook(watch("other products"))
    with torch.autocast("cpu", torch.bfloat16):
        total = output(model)
    total.backward()
    assert dtypes.pop("other products") == {torch.bfloat16}
    assert len(dtypes) == (5 if model.config.shape.traits.selects else 4)
    assert dtypes == {kind: {torch.float32} for kind in dtypes}
    assert all(weight.grad is None or weight.grad.dtype == torch.float32 for weight in model.parameters())


def test_a_model_in_bf16_runs_under_autocast():
    """Its weights are BF16, so `wo` cannot be in FP32: as transformers' Trainer does with a model loaded so."""
    model = trainable("glimmer").to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        output(model).backward()
    assert all(weight.grad is not None for weight in model.decoder.parameters())
