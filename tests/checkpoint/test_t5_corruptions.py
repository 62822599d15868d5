"""Each thing that can be wrong with a T5 to convert: a named error, and nothing written."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from glimmer_export.exporter.checkpoint import ModelOptions
from glimmer_export.exporter.checkpoint.init import init_from_t5
from glimmer_export.runtime.contract import CheckpointError, OptionError
from tests.t5_factory import make_t5, save_t5

QUERY = "encoder.block.1.layer.0.SelfAttention.q.weight"
WEIGHTS = "model.safetensors"


def refuse(source: Path, match: str, options: ModelOptions | None = None) -> None:
    output = source.parent / "ckpt"
    before = sorted(source.parent.iterdir())
    with pytest.raises(CheckpointError, match=match):
        init_from_t5(source, output, options or ModelOptions("fid"))
    assert sorted(source.parent.iterdir()) == before


def save(model, directory: Path, *, tied: bool) -> Path:
    """Write a T5 whose config is as transformers had it before release 5, whichever writes it."""
    change_config(save_t5(model, directory), tie_word_embeddings=tied, scale_decoder_outputs="absent")
    return directory


@pytest.fixture
def v10(tmp_path: Path) -> Path:
    return save(make_t5("v1.0"), tmp_path / "t5", tied=True)


@pytest.fixture
def v11(tmp_path: Path) -> Path:
    return save(make_t5("v1.1"), tmp_path / "t5", tied=False)


def change_weights(source: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(source / WEIGHTS)
    change(weights)
    save_file(weights, source / WEIGHTS)


def change_config(source: Path, **changes: object) -> None:
    path = source / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "absent"}))


# Weights.


def test_no_weights(v11: Path) -> None:
    (v11 / WEIGHTS).unlink()
    refuse(v11, "expected one of model.safetensors, .*pytorch_model.bin.index.json, found none of them")


def test_no_directory(tmp_path: Path) -> None:
    refuse(tmp_path / "t5", "expected a T5 checkpoint, found nothing of that name")


@pytest.mark.parametrize("length", [0, 7, 200, -1])
def test_truncated_safetensors(v11: Path, length: int) -> None:
    content = (v11 / WEIGHTS).read_bytes()
    (v11 / WEIGHTS).write_bytes(content[:length])
    refuse(v11, "model.safetensors: expected a whole safetensors file")


def test_header_longer_than_the_file(v11: Path) -> None:
    content = (v11 / WEIGHTS).read_bytes()
    (v11 / WEIGHTS).write_bytes(struct.pack("<Q", 1 << 40) + content[8:])
    refuse(v11, "expected a whole safetensors file")


@pytest.mark.parametrize("name", [QUERY, "shared.weight", "lm_head.weight", "decoder.final_layer_norm.weight"])
def test_missing_tensor(v11: Path, name: str) -> None:
    change_weights(v11, lambda weights: weights.pop(name))
    refuse(v11, f"expected a tensor {name} of shape .* found none of that name")


def test_wrong_shape(v11: Path) -> None:
    change_weights(v11, lambda weights: weights.update({QUERY: torch.zeros(32, 31)}))
    refuse(v11, rf"tensor {QUERY}: expected shape \[32, 32\], found \[32, 31\]")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite(v11: Path, value: float) -> None:
    change_weights(v11, lambda weights: weights[QUERY].view(-1)[5].fill_(value))
    refuse(v11, f"tensor {QUERY}: expected finite numbers, found NaN or infinity")


def test_wrong_dtype(v11: Path) -> None:
    change_weights(v11, lambda weights: weights.update({QUERY: weights[QUERY].to(torch.int8)}))
    refuse(v11, f"tensor {QUERY}: expected float32, float16 or bfloat16, found torch.int8")


def test_a_dtype_that_torch_has_not(v11: Path) -> None:
    """Six bits a number: the format has it."""
    change_weights(v11, lambda weights: weights.update({QUERY: torch.zeros(32, 24, dtype=torch.uint8)}))
    content = (v11 / WEIGHTS).read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    header[QUERY] |= {"dtype": "F6_E2M3", "shape": [32, 32]}
    text = json.dumps(header).encode()
    (v11 / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    refuse(v11, f"tensor {QUERY}: expected float32, float16 or bfloat16, found F6_E2M3")


def test_unexpected_tensor(v11: Path) -> None:
    change_weights(v11, lambda weights: weights.update({"encoder.adapter.weight": torch.zeros(3)}))
    refuse(v11, "found 1 more, the first encoder.adapter.weight")


def test_fewer_layers_than_the_weights(v11: Path) -> None:
    change_config(v11, num_layers=2)
    refuse(v11, "found 9 more, the first encoder.block.2")


# Copies of the embedding.


def test_equal_copies_are_dropped(v10: Path) -> None:
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    change_weights(v10, lambda weights: weights.update({name: weights["shared.weight"].clone() for name in names}))
    summary = init_from_t5(v10, v10.parent / "ckpt", ModelOptions("fid"))
    assert "lm_head.weight" not in load_file(v10.parent / "ckpt" / WEIGHTS)
    assert summary["layers"]["stage_b"] == 3


@pytest.mark.parametrize("alias", ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"])
def test_an_alias_stands_for_a_missing_embedding(v11: Path, alias: str) -> None:
    expected = load_file(v11 / WEIGHTS)["shared.weight"]
    change_weights(v11, lambda weights: weights.update({alias: weights.pop("shared.weight")}))
    init_from_t5(v11, v11.parent / "ckpt", ModelOptions("fid"))
    assert torch.equal(load_file(v11.parent / "ckpt" / WEIGHTS)["shared.weight"], expected)


@pytest.mark.parametrize("alias", ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"])
def test_another_embedding_is_refused(v11: Path, alias: str) -> None:
    change_weights(v11, lambda weights: weights.update({alias: weights["shared.weight"] + 1}))
    refuse(v11, f"tensor {alias}: expected the same as shared.weight, found ")


@pytest.mark.parametrize(
    ("config", "declared"), [({}, "tie_word_embeddings"), ({"scale_decoder_outputs": True}, "scale_decoder_outputs")]
)
def test_a_tied_model_with_another_projection_is_refused(v10: Path, config: dict[str, bool], declared: str) -> None:
    """Dropping it or untying the model would each give another model, and neither is certain to be the trained one."""
    change_weights(v10, lambda weights: weights.update({"lm_head.weight": weights["shared.weight"] * 2}))
    change_config(v10, **config)
    refuse(v10, f"tensor lm_head.weight: expected the embedding again, as config.json says {declared}: true")


def test_transformers_5_may_leave_out_an_equal_projection(v11: Path) -> None:
    change_weights(v11, lambda weights: weights.pop("lm_head.weight"))
    change_config(v11, tie_word_embeddings=True, scale_decoder_outputs=False)
    init_from_t5(v11, v11.parent / "ckpt", ModelOptions("fid"))
    written = load_file(v11.parent / "ckpt" / WEIGHTS)
    assert torch.equal(written["lm_head.weight"], written["shared.weight"])


# Config.


@pytest.mark.parametrize("name", ["vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"])
def test_missing_size(v11: Path, name: str) -> None:
    change_config(v11, **{name: "absent"})
    refuse(v11, f"{name}: Field required")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj: Input should be 'relu' or 'gated-gelu'"),
        ({"feed_forward_proj": "gelu"}, "feed_forward_proj"),
        ({"dense_act_fn": "silu"}, "dense_act_fn 'silu' is not what gated-gelu computes"),
        ({"dense_act_fn": "gelu"}, "dense_act_fn 'gelu' is not"),  # without tanh; Flan-T5's first configs had it
        ({"dense_act_fn": "relu"}, "dense_act_fn 'relu' is not"),
        ({"dense_act_fn": 3}, "dense_act_fn: Input should be a valid string"),
        ({"is_gated_act": False}, "is_gated_act False is not what gated-gelu computes"),
        ({"feed_forward_proj": "relu", "dense_act_fn": "gelu_new", "is_gated_act": True}, "is not what relu computes"),
        ({"feed_forward_proj": "absent", "dense_act_fn": "gelu_new"}, "dense_act_fn 'gelu_new' is not what relu"),
        ({"quantization_config": {"load_in_8bit": True}}, 'a plain T5, found quantization_config: {"load_in_8bit"'),
        ({"tie_encoder_decoder": True}, "a plain T5, found tie_encoder_decoder: true"),
        ({"pruned_heads": {"0": [1]}, "is_decoder": True}, "found is_decoder: true; pruned_heads"),
        ({"eos_token_id": [1, 2]}, "eos_token_id: Input should be a valid integer"),
        ({"num_layers": 10**9}, "num_layers: Input should be less than or equal to 4096"),
        ({"num_layers": 0}, "num_layers"),
        ({"num_decoder_layers": 0}, "num_decoder_layers"),
        ({"d_model": 32.5}, "d_model"),
        ({"d_model": "32"}, "d_model: Input should be a valid integer"),
        ({"d_ff": 10**12}, "d_ff"),
        ({"vocab_size": True}, "vocab_size"),
        ({"tie_word_embeddings": None}, "tie_word_embeddings"),
        ({"eos_token_id": 96}, "eos_token_id 96 is outside the vocabulary of 96"),
        ({"pad_token_id": None}, "pad_token_id"),
        ({"layer_norm_epsilon": 0.0}, "layer_norm_epsilon"),
        ({"relative_attention_num_buckets": 30}, "relative_attention_num_buckets"),
        ({"relative_attention_max_distance": 16}, "relative_attention_max_distance must exceed"),
        ({"model_type": "bart"}, "expected a T5 checkpoint, found a Hugging Face model of the type 'bart'"),
        ({"model_type": "absent"}, '"model_type": "t5", found None'),
        ({"num_layers": 4096}, "expected a tensor live_encoder|expected a tensor encoder.block.3"),
    ],
)
def test_unsupported_config(v11: Path, changes: dict[str, object], found: str) -> None:
    change_config(v11, **changes)
    refuse(v11, found)


@pytest.mark.parametrize(
    "changes",
    [
        {"dense_act_fn": "gelu_pytorch_tanh"},
        {"dense_act_fn": "absent", "is_gated_act": "absent"},
        {"dense_act_fn": None, "is_gated_act": None},
        {"eos_token_id": [1], "decoder_start_token_id": [0]},
        {"pruned_heads": {}, "is_decoder": False, "tie_encoder_decoder": False, "quantization_config": None},
        {"dropout_rate": 0.3, "n_positions": 512, "task_specific_params": {"summarization": {"num_beams": 4}}},
        {"num_beams": 4},  # how the T5 was decoded says nothing of the model that it becomes
    ],
)
def test_config_that_says_the_same(v11: Path, changes: dict[str, object]) -> None:
    init_from_t5(v11, v11.parent / "expected", ModelOptions("fid"))
    change_config(v11, **changes)
    init_from_t5(v11, v11.parent / "found", ModelOptions("fid"))
    expected, found = (v11.parent / name / "config.json" for name in ("expected", "found"))
    assert json.loads(found.read_text()) == json.loads(expected.read_text())


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "\xff"])
def test_damaged_config(v11: Path, content: str) -> None:
    (v11 / "config.json").write_text(content, encoding="latin-1")
    refuse(v11, "config.json: expected")


def test_null_is_the_default_where_hugging_face_says_so(tmp_path: Path) -> None:
    source = save_t5(make_t5("v1.0", num_decoder_layers=3), tmp_path / "t5")
    change_config(source, num_decoder_layers=None, decoder_start_token_id=None, tie_word_embeddings="absent")
    summary = init_from_t5(source, tmp_path / "ckpt", ModelOptions("fid"))
    assert summary["layers"]["decoder"] == 3
    config = json.loads((tmp_path / "ckpt" / "config.json").read_text())
    assert (config["decoder_start_token_id"], config["tie_word_embeddings"]) == (0, True)


# Options.


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (ModelOptions("lumen", memory_layers=24), "expected an encoder of 25 layers, for 24 memory layers, found 3"),
        (ModelOptions("glimmer"), "at least one layer in its stage B"),
        (ModelOptions("lumen", num_selected=2), "num_selected is 2, but lumen selects nothing"),
        (ModelOptions("lumen", passage_length=0), "passage_length"),
        (ModelOptions("lumen", score_pooling="max"), "score_pooling"),
        (ModelOptions("fid", separate_question_encoder=True), "fid has no question encoder"),
        (ModelOptions("fid", memory_final_norm=True), "fid has no memory"),
        (ModelOptions("fid", passage_template="{body}"), "passage_template"),
    ],
)
def test_options_that_do_not_fit(v11: Path, options: ModelOptions, found: str) -> None:
    refuse(v11, found, options)


def test_unknown_architecture(v11: Path) -> None:
    with pytest.raises(OptionError, match="found 'gpt'"):
        init_from_t5(v11, v11.parent / "ckpt", ModelOptions("gpt"))
