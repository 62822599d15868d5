"""Checkpoints are written one tensor at a time, and read so."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from glimmer_export.exporter.checkpoint import CheckpointConfig, random_weights, read_checkpoint, write
from glimmer_export.exporter.checkpoint.initialise import RandomWeights
from glimmer_export.exporter.checkpoint.lazy_tensors import LazyTensors, TensorSpec, specs_of
from glimmer_export.exporter.checkpoint.safetensors_files import INDEX, SINGLE, write_safetensors
from glimmer_export.exporter.checkpoint.write import write_checkpoint
from tests.exported import GLIMMER, TINY

CONFIG = CheckpointConfig(**{**TINY, **GLIMMER})


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == tensor.dtype and torch.equal(one[name], tensor) for name, tensor in other.items()
    )


def test_drawn_weights_are_the_same_streamed_looked_up_and_at_once(tmp_path):
    drawn, expected = RandomWeights(CONFIG, seed=3), random_weights(CONFIG, seed=3)
    assert equal(dict(drawn.stream()), expected)
    assert torch.equal(drawn["score.weight"], expected["score.weight"])
    told: list[tuple[int, int]] = []
    write_checkpoint(tmp_path / "ckpt", CONFIG, drawn, on_tensor=lambda *place: told.append(place))
    assert told == [(index, len(expected)) for index in range(len(expected))]
    assert equal(dict(read_checkpoint(tmp_path / "ckpt").tensors), expected)
    assert equal(load_file(tmp_path / "ckpt" / SINGLE), expected)


def test_shards_of_a_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "MAX_SHARD_BYTES", 20_000)
    expected = random_weights(CONFIG, seed=3)
    write_checkpoint(tmp_path / "ckpt", CONFIG, RandomWeights(CONFIG, seed=3))
    index = json.loads((tmp_path / "ckpt" / INDEX).read_text(encoding="utf-8"))
    assert len(set(index["weight_map"].values())) > 3
    found = {}
    for file in sorted(set(index["weight_map"].values())):
        shard = load_file(tmp_path / "ckpt" / file)
        assert {index["weight_map"][name] for name in shard} == {file}
        found |= shard
    assert equal(found, expected)
    assert equal(dict(read_checkpoint(tmp_path / "ckpt").tensors), expected)


def test_mixed_dtypes_stay_aligned(tmp_path):
    tensors = {
        "odd": torch.arange(3).half(), "wide": torch.arange(5).float(), "brain": torch.ones(1, 7).bfloat16(),
        "one": torch.tensor([2.5]),
    }
    lazy = LazyTensors(specs_of(tensors), tensors.__getitem__)
    assert list(lazy) == ["wide", "one", "odd", "brain"]
    write_safetensors(tmp_path / "file.safetensors", lazy.specs, lazy.stream())
    assert equal(load_file(tmp_path / "file.safetensors"), tensors)


def test_a_tensor_in_the_place_of_another_is_refused(tmp_path):
    specs = {"a": TensorSpec((2,), torch.float32)}
    for stream in ([("b", torch.zeros(2))], [("a", torch.zeros(3))]):
        with pytest.raises(ValueError, match="in the place of a"):
            write_safetensors(tmp_path / "file.safetensors", specs, stream)
