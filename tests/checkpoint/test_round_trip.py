"""What is written is read again, whole or in shards; what cannot be written leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer, models

from glimmer_export.exporter.checkpoint import (
    CheckpointConfig,
    random_weights,
    read_checkpoint,
    weight_shapes,
    write,
    write_checkpoint,
)
from glimmer_export.exporter.stages import model_from_checkpoint
from glimmer_export.runtime.contract import CheckpointError, OutputError, TokenizerError

PARTS = {"glimmer": (1, 1, 1), "lumen": (1, 0, 1), "memory_fid": (1, 0, 0), "fid": (0, 0, 1)}


def tiny_config(architecture: str = "glimmer", **changes: Any) -> CheckpointConfig:
    memory, stage_a, stage_b = PARTS[architecture]
    fields: dict[str, Any] = {
        "architecture": architecture, "vocab_size": 12, "d_model": 8, "d_kv": 3, "d_ff": 10, "num_heads": 2,
        "num_memory_layers": memory, "num_stage_a_layers": stage_a, "num_stage_b_layers": stage_b,
        "num_decoder_layers": 1, "num_selected": 2 if architecture == "glimmer" else None,
    }
    return CheckpointConfig(**fields | changes)


@st.composite
def configs(draw: Callable[[st.SearchStrategy[Any]], Any]) -> CheckpointConfig:
    architecture = draw(st.sampled_from(sorted(PARTS)))
    small = st.integers(min_value=1, max_value=3)
    parts = {
        name: draw(small) if used else 0
        for name, used in zip(
            ("num_memory_layers", "num_stage_a_layers", "num_stage_b_layers"), PARTS[architecture], strict=True
        )
    }
    joined = architecture == "fid" and draw(st.booleans())
    return tiny_config(
        architecture,
        **parts,
        question_layout="joined" if joined else "block",
        input_template="q: {question} {title} c: {text}" if joined else None,
        d_model=draw(st.integers(min_value=1, max_value=9)),
        num_heads=draw(small),
        d_kv=draw(small),
        num_decoder_layers=draw(small),
        feed_forward_proj=draw(st.sampled_from(["relu", "gated-gelu"])),
        tie_word_embeddings=draw(st.booleans()),
        separate_question_encoder=architecture in {"glimmer", "lumen"} and draw(st.booleans()),
        separate_reranker=architecture == "glimmer" and draw(st.booleans()),
        memory_final_norm=architecture != "fid" and draw(st.booleans()),
        score_pooling=draw(st.sampled_from(["first", "mean"])),
        question_template=draw(st.sampled_from(["{question}", "question: {question}?"])),
        passage_template=draw(st.sampled_from(["{title} {text}", "t: {title} c: {text}", "{text}", "é{title}"])),
    )


@settings(max_examples=40, deadline=None)
@given(configs(), st.sampled_from([torch.float32, torch.float16, torch.bfloat16]), st.integers(0, 4000), st.integers())
def test_round_trip(config: CheckpointConfig, dtype: torch.dtype, shard_bytes: int, seed: int) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in random_weights(config, seed=seed % 2**32).items()}
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "MAX_SHARD_BYTES", shard_bytes)
        write_checkpoint(Path(folder) / "ckpt", config, tensors)
        checkpoint = read_checkpoint(Path(folder) / "ckpt")
        assert checkpoint.config == config
        assert checkpoint.tokenizer is None
        assert checkpoint.tensors.keys() == tensors.keys() == weight_shapes(config).keys()
        for name, tensor in tensors.items():
            assert checkpoint.tensors[name].dtype == dtype
            assert torch.equal(checkpoint.tensors[name], tensor)
        names = set(model_from_checkpoint(checkpoint).state_dict())
        assert names == set(tensors)


def test_shards_stay_below_their_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "MAX_SHARD_BYTES", 1000)
    config = tiny_config()
    tensors = random_weights(config, seed=0)
    write_checkpoint(tmp_path / "ckpt", config, tensors)
    index = json.loads((tmp_path / "ckpt" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == tensors.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    shards = sorted(set(index["weight_map"].values()))
    assert shards == sorted(path.name for path in (tmp_path / "ckpt").glob("*.safetensors"))
    for shard in shards:
        weights = safetensors.torch.load_file(tmp_path / "ckpt" / shard)
        assert sum(tensor.nbytes for tensor in weights.values()) <= 1000


def test_random_weights_follow_their_seed() -> None:
    first, again, other = (random_weights(tiny_config(), seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["score.weight"], other["score.weight"])
    assert first["score.weight"].abs().min() > 0


@pytest.mark.parametrize("as_path", [True, False])
def test_tokenizer(tmp_path: Path, as_path: bool) -> None:
    content = Tokenizer(models.WordLevel({"a": 0, "b": 11}, unk_token="a")).to_str().encode()
    (tmp_path / "other.json").write_bytes(content)
    config = tiny_config()
    tokenizer = tmp_path / "other.json" if as_path else content
    write_checkpoint(tmp_path / "ckpt", config, random_weights(config, seed=0), tokenizer)
    checkpoint = read_checkpoint(tmp_path / "ckpt")
    assert checkpoint.tokenizer == tmp_path / "ckpt" / "tokenizer.json"
    assert checkpoint.tokenizer.read_bytes() == content


def only(tmp_path: Path, *names: str) -> None:
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_tokenizer_larger_than_the_embedding_is_not_written(tmp_path: Path) -> None:
    content = Tokenizer(models.WordLevel({"a": 0, "b": 12}, unk_token="a")).to_str().encode()
    config = tiny_config()
    with pytest.raises(TokenizerError, match="ids below the embedding's 12 rows, found an id 12"):
        write_checkpoint(tmp_path / "ckpt", config, random_weights(config, seed=0), content)
    only(tmp_path)


def test_tensors_that_do_not_fit_are_not_written(tmp_path: Path) -> None:
    config = tiny_config()
    with pytest.raises(CheckpointError, match=r"expected a tensor live_encoder\.block\.1"):
        write_checkpoint(tmp_path / "ckpt", config, random_weights(tiny_config("lumen"), seed=0))
    only(tmp_path)


def test_an_existing_checkpoint_is_kept(tmp_path: Path) -> None:
    config = tiny_config()
    write_checkpoint(tmp_path / "ckpt", config, random_weights(config, seed=0))
    with pytest.raises(OutputError, match="--overwrite"):
        write_checkpoint(tmp_path / "ckpt", config, random_weights(config, seed=1))
    expected = random_weights(config, seed=2)
    write_checkpoint(tmp_path / "ckpt", config, expected, overwrite=True)
    assert torch.equal(read_checkpoint(tmp_path / "ckpt").tensors["score.weight"], expected["score.weight"])
    only(tmp_path, "ckpt")


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config()
    expected = random_weights(config, seed=0)
    write_checkpoint(tmp_path / "ckpt", config, expected)

    def full(path: Path, *args: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(write, "write_safetensors", full)
    with pytest.raises(OutputError, match="room on the disk, found a full disk"):
        write_checkpoint(tmp_path / "ckpt", config, random_weights(config, seed=1), overwrite=True)
    assert torch.equal(read_checkpoint(tmp_path / "ckpt").tensors["score.weight"], expected["score.weight"])
    only(tmp_path, "ckpt")


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        tiny_config().d_model = 3  # type: ignore[misc]
