"""A T5 whose weights are pickled or sharded: what is unsafe or incomplete is refused, and nothing written."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from glimmer_export.exporter.checkpoint import ModelOptions
from glimmer_export.exporter.checkpoint.init import init_from_t5
from glimmer_export.runtime.contract import CheckpointError
from tests.t5_factory import make_t5, save_t5

PICKLE = "pytorch_model.bin"


def refuse(source: Path, match: str) -> None:
    before = sorted(source.parent.iterdir())
    with pytest.raises(CheckpointError, match=match):
        init_from_t5(source, source.parent / "ckpt", ModelOptions("fid"))
    assert sorted(source.parent.iterdir()) == before


# Pickles.


@pytest.mark.parametrize("storage", ["pickle", "legacy pickle"])
@pytest.mark.parametrize("length", [0, 7, 200, -100])
def test_truncated_pickle(tmp_path: Path, storage: str, length: int) -> None:
    source = save_t5(make_t5("v1.1"), tmp_path / "t5", storage)
    content = (source / PICKLE).read_bytes()
    (source / PICKLE).write_bytes(content[:length])
    # A legacy file that ends within the name of a class looks like one that needs another class.
    refuse(source, "pytorch_model.bin: expected (a whole file of )?tensors")


class Attack:
    """What unpickling would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("writer", ["torch", "legacy", "pickle"])
def test_a_pickle_that_runs_code_is_refused_by_name(tmp_path: Path, writer: str) -> None:
    source = save_t5(make_t5("v1.1"), tmp_path / "t5", "pickle")
    content = {"other": Attack(tmp_path / "executed")}
    if writer == "pickle":
        (source / PICKLE).write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, source / PICKLE, _use_new_zipfile_serialization=writer == "torch")
    refuse(source, r"pytorch_model.bin: expected tensors and nothing else, found a pickle that calls \w+\.system;")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"state_dict": {"shared.weight": torch.zeros(2)}}, "a mapping with the keys state_dict"),
        ([torch.zeros(2)], "list"),
        ({"shared.weight": 3}, "a mapping with the keys shared.weight"),
    ],
)
def test_a_pickle_of_something_else(tmp_path: Path, content: object, found: str) -> None:
    source = save_t5(make_t5("v1.1"), tmp_path / "t5", "pickle")
    torch.save(content, source / PICKLE)
    refuse(source, f"expected a mapping of names to tensors, found {found}")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda tensor: tensor.to("meta"), "no values"),
        (lambda tensor: tensor.to_sparse(), "sparse_coo tensor"),
        (lambda tensor: torch.nested.nested_tensor([tensor]), "nested tensor"),
        (lambda _: torch.zeros(1).expand(1 << 20, 1 << 20), "4 bytes for 1099511627776 values"),
    ],
)
def test_a_tensor_that_is_not_dense(tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor], found: str) -> None:
    source = save_t5(make_t5("v1.1"), tmp_path / "t5", "pickle")
    weights = torch.load(source / PICKLE)
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    torch.save(weights | {name: change(weights[name])}, source / PICKLE)
    refuse(source, f"tensor {name}: expected a dense tensor with its values, found {found}")


# Indices.

SHARDED = ["sharded safetensors", "sharded pickle"]


def index_of(source: Path) -> Path:
    return next(source.glob("*.index.json"))


@pytest.mark.parametrize("storage", SHARDED)
def test_missing_shard(tmp_path: Path, storage: str) -> None:
    source = save_t5(make_t5("v1.1"), tmp_path / "t5", storage)
    shard = sorted(set(json.loads(index_of(source).read_text())["weight_map"].values()))[1]
    (source / shard).unlink()
    refuse(source, f"expected the shard {shard}, found no such file")


@pytest.mark.parametrize("storage", SHARDED)
@pytest.mark.parametrize("path", ["../weights.bin", "/etc/passwd", "a/../../weights.bin", "..\\weights.bin"])
def test_an_index_that_leads_outside(tmp_path: Path, storage: str, path: object) -> None:
    source = save_t5(make_t5("v1.1"), tmp_path / "t5", storage)
    index = json.loads(index_of(source).read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], path)
    index_of(source).write_text(json.dumps(index))
    refuse(source, "file names that stay inside its directory")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": ["b"]}}', '{"weight_map": {"a": 3}}', "\xff"],
)
def test_a_damaged_index(tmp_path: Path, content: str) -> None:
    source = save_t5(make_t5("v1.1"), tmp_path / "t5", "sharded safetensors")
    index_of(source).write_text(content, encoding="latin-1")
    refuse(source, 'expected a JSON object with "weight_map"')


@pytest.mark.parametrize("storage", SHARDED)
def test_a_tensor_in_two_shards(tmp_path: Path, storage: str) -> None:
    source = save_t5(make_t5("v1.1"), tmp_path / "t5", storage)
    index = json.loads(index_of(source).read_text())
    first, second = sorted(set(index["weight_map"].values()))[:2]
    (source / second).write_bytes((source / first).read_bytes())
    refuse(source, "expected tensors that no other shard holds")
