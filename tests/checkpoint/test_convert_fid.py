"""A `fid` checkpoint made from a Hugging Face T5 computes what that T5 computes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from glimmer_export.exporter.checkpoint import ModelOptions, convert_t5, read_checkpoint
from glimmer_export.exporter.checkpoint.init import init_from_t5
from glimmer_export.exporter.stages import GlimmerModel, model_from_checkpoint
from glimmer_export.exporter.tolerances import TOLERANCES
from tests.assert_close import assert_close
from tests.reference_decoding import greedy_tokens
from tests.t5_factory import STORAGE, VARIANTS, make_t5, random_mask, random_tokens, save_t5
from tests.t5_factory import greedy_tokens as hugging_face_tokens

STEPS = 12


def fid_model(source: Path, output: Path) -> GlimmerModel:
    init_from_t5(source, output, ModelOptions("fid"))
    return model_from_checkpoint(read_checkpoint(output))


def assert_same_model(ours: GlimmerModel, theirs: T5ForConditionalGeneration, *, seed: int) -> None:
    """Same encoder states, logits and greedy tokens, for rows that are padded and rows with holes."""
    vocab_size = theirs.config.vocab_size
    input_ids = random_tokens((4, 21), seed=seed, vocab_size=vocab_size)
    mask = random_mask((4, 21), seed=seed)
    mask[0] = 1
    mask[1, 9:] = 0
    expected = theirs.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
    states = ours.encode_joined(input_ids[:, None], mask[:, None]).squeeze(1)
    assert_close(states, expected, "t5_encoder_states")

    prefix = random_tokens((4, 7), seed=seed + 1, vocab_size=vocab_size)
    logits = theirs(input_ids=input_ids, attention_mask=mask, decoder_input_ids=prefix).logits
    assert_close(ours.decode(prefix, states, mask), logits, "t5_logits")

    tokens = hugging_face_tokens(theirs, STEPS, input_ids=input_ids, attention_mask=mask)
    assert greedy_tokens(ours, states, mask, STEPS) == tokens


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_same_states_and_tokens(variant: str, seed: int, tmp_path: Path) -> None:
    theirs = make_t5(variant, seed=seed)
    assert_same_model(fid_model(save_t5(theirs, tmp_path / "t5"), tmp_path / "ckpt"), theirs, seed=seed)


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("variant", ["v1.0", "v1.1"])
def test_same_whatever_the_storage(variant: str, storage: str, tmp_path: Path) -> None:
    theirs = make_t5(variant, seed=4)
    source = save_t5(theirs, tmp_path / "t5", storage)
    names = {path.name for path in source.iterdir()}
    suffix = "bin" if "pickle" in storage else "safetensors"
    assert any(name.endswith(suffix) for name in names)
    assert any(name.endswith("index.json") for name in names) == storage.startswith("sharded")
    assert_same_model(fid_model(source, tmp_path / "ckpt"), theirs, seed=4)


def test_same_as_a_checkpoint_that_nobody_here_wrote(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "tiny_t5"
    theirs = T5ForConditionalGeneration.from_pretrained(source, dtype=torch.float32, local_files_only=True).eval()
    with torch.no_grad():
        assert_same_model(fid_model(source, tmp_path / "ckpt"), theirs, seed=5)


def test_several_passages_are_fused_in_the_decoder(tmp_path: Path) -> None:
    """FiD (Izacard and Grave 2021): encoded one by one, read as one sequence."""
    theirs = make_t5("v1.1", seed=6)
    ours = fid_model(save_t5(theirs, tmp_path / "t5"), tmp_path / "ckpt")
    input_ids, mask = random_tokens((2, 3, 11), seed=6), random_mask((2, 3, 11), seed=6)
    encoded = [theirs.encoder(input_ids=input_ids[:, i], attention_mask=mask[:, i]).last_hidden_state for i in range(3)]
    joined: Tensor = torch.cat(encoded, dim=1)
    states = ours.encode_joined(input_ids, mask).flatten(1, 2)
    assert_close(states, joined, "t5_encoder_states")
    tokens = hugging_face_tokens(
        theirs, STEPS, encoder_outputs=BaseModelOutput(joined), attention_mask=mask.flatten(1, 2)
    )
    assert greedy_tokens(ours, states, mask.flatten(1, 2), STEPS) == tokens


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_keep_their_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = make_t5("v1.1", seed=7).to(dtype)
    config, tensors = convert_t5(save_t5(theirs, tmp_path / "t5"), ModelOptions("fid"), seed=0)
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}
    assert config.num_stage_b_layers == 3


def test_transformers_5_config_of_an_untied_model(tmp_path: Path) -> None:
    """There `tie_word_embeddings` is always true, and `scale_decoder_outputs` tells T5 v1.0 from v1.1."""
    theirs = make_t5("v1.1", seed=8)
    source = save_t5(theirs, tmp_path / "t5")
    config = json.loads((source / "config.json").read_text())
    config |= {"tie_word_embeddings": True, "scale_decoder_outputs": False}
    (source / "config.json").write_text(json.dumps(config))
    assert_same_model(fid_model(source, tmp_path / "ckpt"), theirs, seed=8)


# Mutations: each is a plausible mistake in a converter, and every one must be seen by the comparison above.

LAYER = "live_encoder.block.1.layer"


def transpose(name: str) -> dict[str, tuple[str, bool]]:
    return {name: (name, True)}


def swap(first: str, second: str) -> dict[str, tuple[str, bool]]:
    return {first: (second, False), second: (first, False)}


MUTATIONS = {
    "query transposed": transpose(f"{LAYER}.0.SelfAttention.q.weight"),
    "output transposed": transpose(f"{LAYER}.0.SelfAttention.o.weight"),
    "key and value swapped": swap(f"{LAYER}.0.SelfAttention.k.weight", f"{LAYER}.0.SelfAttention.v.weight"),
    "gate and value swapped": swap(f"{LAYER}.1.DenseReluDense.wi_0.weight", f"{LAYER}.1.DenseReluDense.wi_1.weight"),
    "norms swapped": swap(f"{LAYER}.0.layer_norm.weight", f"{LAYER}.1.layer_norm.weight"),
    "encoder layers swapped": swap(
        f"{LAYER}.1.DenseReluDense.wo.weight", "live_encoder.block.2.layer.1.DenseReluDense.wo.weight"
    ),
    "final norms swapped": swap("live_encoder.final_layer_norm.weight", "decoder.final_layer_norm.weight"),
    "bias tables swapped": swap(
        "live_encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    ),
    "decoder query transposed": transpose("decoder.block.1.layer.1.EncDecAttention.q.weight"),
    "decoder layers swapped": swap(
        "decoder.block.0.layer.1.EncDecAttention.o.weight", "decoder.block.1.layer.1.EncDecAttention.o.weight"
    ),
    "projection is the embedding": {"lm_head.weight": ("shared.weight", False)},
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_wrong_layer_or_transpose_is_seen(mutation: str, tmp_path: Path) -> None:
    theirs = make_t5("v1.1", seed=9)
    source = save_t5(theirs, tmp_path / "t5")
    model = fid_model(source, tmp_path / "ckpt")
    weights = dict(model.state_dict())
    changed = {
        name: weights[origin].T.contiguous() if transposed else weights[origin].clone()
        for name, (origin, transposed) in MUTATIONS[mutation].items()
    }
    model.load_state_dict(weights | changed)
    reasons = [TOLERANCES[name].reason for name in ("t5_encoder_states", "t5_logits")]
    with pytest.raises(AssertionError, match="|".join(reasons)):
        assert_same_model(model, theirs, seed=9)


def test_first_published_checkpoints_hold_a_table_that_nothing_reads(tmp_path: Path) -> None:
    theirs = make_t5("v1.0", seed=10)
    source = save_t5(theirs, tmp_path / "t5", "pickle")
    weights = torch.load(source / "pytorch_model.bin", weights_only=True)
    weights["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.ones(32, 4)
    torch.save(weights, source / "pytorch_model.bin")
    assert_same_model(fid_model(source, tmp_path / "ckpt"), theirs, seed=10)
