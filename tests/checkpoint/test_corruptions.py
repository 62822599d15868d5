"""Each thing that can be wrong with a checkpoint directory: a named error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from torch import Tensor

from glimmer_export.exporter.checkpoint import (
    CheckpointConfig,
    random_weights,
    read_checkpoint,
    write,
    write_checkpoint,
)
from glimmer_export.exporter.checkpoint.safetensors_files import SafetensorsFiles
from glimmer_export.runtime.contract import CheckpointError, GlimmerError, TokenizerError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
WO = "live_encoder.block.0.layer.1.DenseReluDense.wo.weight"


@pytest.fixture
def config() -> CheckpointConfig:
    return CheckpointConfig(
        architecture="glimmer", vocab_size=12, d_model=8, d_kv=3, d_ff=10, num_heads=2, num_memory_layers=1,
        num_stage_a_layers=1, num_stage_b_layers=1, num_decoder_layers=1, num_selected=2,
    )


@pytest.fixture
def checkpoint(config: CheckpointConfig, tmp_path: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 11}, unk_token="a")).to_str().encode()
    write_checkpoint(tmp_path / "ckpt", config, random_weights(config, seed=0), tokenizer)
    read_checkpoint(tmp_path / "ckpt")
    return tmp_path / "ckpt"


@pytest.fixture
def sharded(config: CheckpointConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(write, "MAX_SHARD_BYTES", 2000)
    write_checkpoint(tmp_path / "ckpt", config, random_weights(config, seed=0))
    read_checkpoint(tmp_path / "ckpt")
    return tmp_path / "ckpt"


def refuse(checkpoint: Path, match: str, error: type[GlimmerError] = CheckpointError) -> None:
    with pytest.raises(error, match=match):
        read_checkpoint(checkpoint)


def change_weights(checkpoint: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(checkpoint / WEIGHTS)
    change(weights)
    save_file(weights, checkpoint / WEIGHTS)


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_missing_directory(tmp_path: Path) -> None:
    refuse(tmp_path / "absent", "expected a checkpoint, found nothing of that name")


def test_missing_weights(checkpoint: Path) -> None:
    (checkpoint / WEIGHTS).unlink()
    refuse(checkpoint, f"expected {WEIGHTS} or {INDEX}, found neither")


@pytest.mark.parametrize("length", [0, 4, 100, -4])
def test_truncated_weights(checkpoint: Path, length: int) -> None:
    (checkpoint / WEIGHTS).write_bytes((checkpoint / WEIGHTS).read_bytes()[:length])
    refuse(checkpoint, "expected a whole safetensors file")


def test_missing_torch_is_not_taken_for_missing_weights(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModuleNotFoundError, match="torch"):
        SafetensorsFiles(checkpoint)


def test_missing_tensor(checkpoint: Path) -> None:
    change_weights(checkpoint, lambda weights: weights.pop(WO))
    refuse(checkpoint, rf"expected a tensor {WO} of shape \[8, 10\], found none of that name")


def test_unexpected_tensor(checkpoint: Path) -> None:
    change_weights(checkpoint, lambda weights: weights.update(extra=torch.zeros(1)))
    refuse(checkpoint, "only the tensors its config names, found 1 more, the first extra")


def test_transposed_tensor(checkpoint: Path) -> None:
    change_weights(checkpoint, lambda weights: weights.update({WO: weights[WO].T.contiguous()}))
    refuse(checkpoint, rf"tensor {WO}: expected shape \[8, 10\], found \[10, 8\]")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_not_finite(checkpoint: Path, value: float) -> None:
    change_weights(checkpoint, lambda weights: weights[WO].view(-1)[3].fill_(value))
    refuse(checkpoint, f"tensor {WO}: expected finite numbers, found NaN or infinity")


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.bool])
def test_dtype(checkpoint: Path, dtype: torch.dtype) -> None:
    change_weights(checkpoint, lambda weights: weights.update({WO: weights[WO].to(dtype)}))
    refuse(checkpoint, f"tensor {WO}: expected float32, float16 or bfloat16, found {dtype}")


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("architecture", "gpt", "architecture: Input should be 'glimmer', 'lumen', 'memory_fid' or 'fid'"),
        ("architecture", "lumen", "num_stage_a_layers is 1, but lumen has no stage_a stage"),
        ("dropout", 0.1, "dropout: Extra inputs are not permitted"),
        ("model_type", "t5", "expected a checkpoint, found a T5 checkpoint"),
        ("num_stage_b_layers", 0, "num_stage_b_layers is 0, but glimmer needs at least one layer in its stage_b stage"),
        ("num_memory_layers", 5000, "num_memory_layers: Input should be less than or equal to 4096"),
        ("num_selected", None, "num_selected is missing"),
        ("num_shortlisted", 10, "num_shortlisted is 10, but a shortlist takes a stage A of two layers"),
        ("num_selected", 26, "num_selected 26 is more than num_retrieved 25"),
        ("d_model", 8.0, "d_model: Input should be a valid integer"),
        ("d_model", 16, "expected shape"),
        ("vocab_size", True, "vocab_size: Input should be a valid integer"),
        ("score_pooling", "max", "score_pooling: Input should be 'first' or 'mean'"),
        ("feed_forward_proj", "gated-silu", "feed_forward_proj: Input should be 'relu' or 'gated-gelu'"),
        ("passage_template", "{title} {body}", "passage_template"),
        ("passage_template", "{title", "is not a template"),
        ("passage_template", "{title.__class__}", "may hold only the plain fields {text}, {title}"),
        ("passage_template", "{text[0]}", "may hold only the plain fields"),
        ("passage_template", "{text!r}", "may hold only the plain fields"),
        ("passage_template", "{text:>9}", "may hold only the plain fields"),
        ("passage_template", "{} {0}", "may hold only the plain fields"),
        ("passage_template", "no field", "may hold only the plain fields"),
        ("question_template", "{question.__init__.__globals__}", "may hold only the plain fields {question}"),
        ("question_layout", "joined", "question_layout is joined, but glimmer encodes passages without questions"),
        ("question_layout", "apart", "question_layout: Input should be 'block' or 'joined'"),
        ("input_template", "{question}", "question_layout joined and input_template go together"),
        ("eos_token_id", 12, "eos_token_id 12 is outside the vocabulary of 12"),
        ("relative_attention_max_distance", 16, "must exceed relative_attention_num_buckets / 2"),
    ],
)
def test_config_field(checkpoint: Path, field: str, value: object, found: str) -> None:
    change_json(checkpoint / "config.json", lambda content: content.update({field: value}))
    refuse(checkpoint, found)


def test_missing_config_field(checkpoint: Path) -> None:
    change_json(checkpoint / "config.json", lambda content: content.pop("d_kv"))
    refuse(checkpoint, "d_kv: Field required")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\xff"])
def test_damaged_config(checkpoint: Path, content: str) -> None:
    (checkpoint / "config.json").write_text(content, encoding="latin-1")
    refuse(checkpoint, "config.json: expected")


def test_tokenizer_larger_than_the_embedding(checkpoint: Path) -> None:
    Tokenizer(models.WordLevel({"a": 0, "b": 12}, unk_token="a")).save(str(checkpoint / "tokenizer.json"))
    refuse(checkpoint, "ids below the embedding's 12 rows, found an id 12", TokenizerError)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"model": 3}', "\xff"])
def test_damaged_tokenizer(checkpoint: Path, content: str) -> None:
    (checkpoint / "tokenizer.json").write_text(content, encoding="latin-1")
    refuse(checkpoint, r"tokenizer\.json: expected a tokenizer\.json", TokenizerError)


def test_missing_shard(sharded: Path) -> None:
    shard = min(sharded.glob("model-*.safetensors"))
    shard.unlink()
    refuse(sharded, f"expected the shard {shard.name}, found no such file")


def test_truncated_shard(sharded: Path) -> None:
    shard = min(sharded.glob("model-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    refuse(sharded, f"{shard.name}: expected a whole safetensors file")


@pytest.mark.parametrize("path", ["../x.safetensors", "/x.safetensors", "a/../../x.safetensors", "", "a\\..\\x"])
def test_an_index_that_leads_outside(sharded: Path, path: str) -> None:
    change_json(sharded / INDEX, lambda content: content["weight_map"].update({WO: path}))
    refuse(sharded, "file names that stay inside its directory")


def test_shards_behind_links(sharded: Path) -> None:
    """Hugging Face's cache keeps the files elsewhere and links to them."""
    for shard in sharded.glob("*.safetensors"):
        shard.symlink_to(shard.rename(sharded.parent / shard.name))
    assert read_checkpoint(sharded).tensors


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"weight_map": ["a"]}', '{"weight_map": {"a": 3}}'])
def test_damaged_index(sharded: Path, content: str) -> None:
    (sharded / INDEX).write_text(content)
    refuse(sharded, 'expected a JSON object with "weight_map"')


def test_an_index_of_nothing(sharded: Path) -> None:
    (sharded / INDEX).write_text('{"weight_map": {}}')
    refuse(sharded, "no file names")
