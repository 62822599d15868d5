"""Each thing that can be wrong with a T5X checkpoint's files: a named error, and nothing is read from elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import tensorstore as ts
import torch

from glimmer_export.exporter.checkpoint.t5x import convert_t5x
from glimmer_export.runtime.contract import CheckpointError
from tests.checkpoint.golden.known import DIRECTORY, GOLDEN, KNOWN, known_weights
from tests.checkpoint.t5x_trees import pack, packed_array, read_tree, write_tree

MAP = {"memory_encoder": "passage_encoder"}
QUERY = "encoder/layers_1/attention/query/kernel"
FOLDER = "target.passage_encoder.layers_1.attention.query.kernel"


def refuse(directory: Path, match: str, model: str = "fid", names: dict[str, str | None] | None = None) -> None:
    with pytest.raises(CheckpointError, match=match):
        convert_t5x(directory, KNOWN[model], names or {})


def copy(golden: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(DIRECTORY / golden, tmp_path / "step"))


# The directory.


def test_no_directory(tmp_path: Path) -> None:
    refuse(tmp_path / "step", "expected a file checkpoint or manifest.ocdbt, or folders .* found none of them")


def test_the_directory_above_a_step(tmp_path: Path) -> None:
    shutil.copytree(DIRECTORY / "t5x_inline", tmp_path / "checkpoint_1000")
    refuse(tmp_path, "found none, but checkpoint_1000; name the directory of one step")


# The msgpack file.


@pytest.mark.parametrize("length", [0, 1, 7, 2000, -1])
def test_truncated_msgpack(tmp_path: Path, length: int) -> None:
    step = copy("t5x_inline", tmp_path)
    content = (step / "checkpoint").read_bytes()
    (step / "checkpoint").write_bytes(content[:length])
    refuse(step, "step/checkpoint: expected a whole msgpack file")


@pytest.mark.parametrize(
    "content", [b"\xc1", b"\x81\xff\x00", b"\x92" * 4000 + b"\x01" * 4001, b"{}{}", b"\xdd\xff\xff\xff\xff"]
)
def test_no_msgpack(tmp_path: Path, content: bytes) -> None:
    """A reserved code, a key that is no text, a depth without end, two objects, more elements than bytes."""
    (tmp_path / "checkpoint").write_bytes(content)
    refuse(tmp_path, "checkpoint: expected a whole msgpack file")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1], "list"),
        ({}, "an empty tree"),
        ({"params": {"a": 1}}, "params"),
        ({"optimizer": {"state": {}}}, "state"),
        ({"optimizer": {"target": 3}}, "target"),
        ({"optimizer": 3}, "int"),
    ],
)
def test_another_tree(tmp_path: Path, content: object, found: str) -> None:
    refuse(pack(tmp_path, content), f"expected a tree with the parameters at optimizer/target, found {found}")


def test_an_empty_target(tmp_path: Path) -> None:
    refuse(pack(tmp_path, {"target": {}}), "expected parameters below `target`, found nothing")


@pytest.mark.parametrize("key", ["a/b", "../a", "", "a\\b", "a\0"])
def test_a_name_that_is_a_path(tmp_path: Path, key: str) -> None:
    refuse(pack(tmp_path, {"target": {key: 1}}), "expected names without a slash")


def array_of(shape: object, dtype: object, content: object) -> msgpack.ExtType:
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, content)))


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (3, "expected an array, or a reference to one, found int"),
        ("text", "expected an array, or a reference to one, found str"),
        ([1.0], "expected an array, or a reference to one, found list"),
        (msgpack.ExtType(2, b"\x01"), "expected an array, or a reference to one, found ExtType"),
        (msgpack.ExtType(1, b"\x93\x01"), "expected an array's shape, dtype and bytes"),
        (msgpack.ExtType(1, msgpack.packb([1, 2])), "expected an array's shape, dtype and bytes"),
        (array_of([2], "float32", "12345678"), "expected an array's shape, dtype and bytes, found str"),
        (array_of(8, "float32", bytes(8)), "expected a shape, found 8"),
        (array_of([-1, -2], "float32", bytes(8)), "expected a shape"),
        (array_of([1.5], "float32", bytes(8)), "expected a shape"),
        (array_of([12, 12], "float32", bytes(575)), "expected 576 bytes, for float32 of shape .* found 575"),
        (array_of([1 << 40, 1 << 20], "float32", bytes(8)), f"expected {1 << 62} bytes, .* found 8"),
        (array_of([12, 12], "int8", bytes(144)), "expected float32 or float16 or bfloat16, found 'int8'"),
        (array_of([1], "object", bytes(8)), "expected float32 or float16 or bfloat16, found 'object'"),
        (array_of([1], 3, bytes(8)), "expected float32 or float16 or bfloat16, found 3"),
    ],
)
def test_a_damaged_array(tmp_path: Path, value: object, match: str) -> None:
    arrays = read_tree(DIRECTORY / "t5x_inline")
    refuse(write_tree(tmp_path, arrays | {QUERY: value}), f"{QUERY}: {match}")


def pieces(shape: dict[Any, int], *arrays: np.ndarray) -> dict[str, Any]:
    chunks = {str(place): packed_array(array) for place, array in enumerate(arrays)}
    return {"__msgpack_chunked_array__": True, "shape": shape, "chunks": chunks}


ROW = np.linspace(1, 2, 72, dtype=np.float32)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (pieces({"0": 12, "1": 12}, ROW), "expected 576 bytes, .* found 288"),
        (pieces({"0": 12, "1": 12}, ROW, ROW, ROW), "expected 576 bytes, .* found 864"),
        (pieces({"0": 12, "1": 12}, ROW, ROW.astype(np.float16)), "expected pieces of one array"),
        (pieces({"0": 12, "1": 12}), "expected pieces of one array, found none"),
        (pieces({"0": 12, "2": 12}, ROW, ROW), "expected pieces of one array"),
        ({"__msgpack_chunked_array__": True}, "expected pieces of one array"),
        ({"__msgpack_chunked_array__": True, "shape": {"0": 1}, "chunks": [1]}, "expected pieces of one array"),
        ({"__msgpack_chunked_array__": True, "shape": {"0": 1}, "chunks": {"0": 7}}, "expected an array"),
    ],
)
def test_a_damaged_array_in_pieces(tmp_path: Path, value: object, match: str) -> None:
    arrays = read_tree(DIRECTORY / "t5x_inline")
    refuse(write_tree(tmp_path, arrays | {QUERY: value}), f"{QUERY}: {match}")


def test_an_array_in_pieces_is_put_together(tmp_path: Path) -> None:
    arrays = read_tree(DIRECTORY / "t5x_inline")
    flat = arrays[QUERY].reshape(-1)
    write_tree(tmp_path, arrays | {QUERY: pieces({"0": 12, "1": 12}, flat[:50], flat[50:])})
    found = convert_t5x(tmp_path, KNOWN["fid"], {}).tensors["live_encoder.block.1.layer.0.SelfAttention.q.weight"]
    assert np.array_equal(found, arrays[QUERY].T)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(tmp_path: Path, value: float) -> None:
    arrays = read_tree(DIRECTORY / "t5x_inline")
    changed = arrays[QUERY].copy()
    changed[3, 4] = value
    refuse(write_tree(tmp_path, arrays | {QUERY: changed}), f"tensor {QUERY}: expected finite numbers")


# Arrays beside it.


@pytest.mark.parametrize(
    "spec",
    [
        {"driver": "zarr", "kvstore": {"driver": "file", "path": "OUTSIDE"}},
        {"driver": "zarr", "kvstore": {"driver": "gcs", "bucket": "b", "path": "p"}},
        {"driver": "zarr", "path": "OUTSIDE"},
        {"driver": "n5", "kvstore": "file:///OUTSIDE"},
        "PLACEHOLDER:///OUTSIDE",
    ],
)
def test_a_stated_path_is_not_followed(tmp_path: Path, spec: Any) -> None:
    """An array at the stated place, of the right shape and dtype, is not the one that is read."""
    outside = tmp_path / "outside"
    wrong = np.full((12, 16), 7, np.float32)
    metadata = {"shape": [12, 16], "chunks": [12, 16]}
    kvstore = {"driver": "file", "path": str(outside)}
    opened = ts.open({"driver": "zarr", "kvstore": kvstore, "metadata": metadata, "dtype": "float32"}, create=True)
    opened.result().write(wrong).result()
    step = copy("t5x_zarr", tmp_path)
    tree = msgpack.unpackb((step / "checkpoint").read_bytes())
    stated = json.loads(json.dumps(spec).replace("OUTSIDE", str(outside)))
    tree["optimizer"]["target"]["passage_encoder"]["layers_1"]["attention"]["query"]["kernel"] = stated
    pack(step, tree)
    found = convert_t5x(step, KNOWN["glimmer"], MAP).tensors["memory_encoder.block.1.layer.0.SelfAttention.q.weight"]
    expected = known_weights(*GOLDEN["t5x_zarr"])["memory_encoder.block.1.layer.0.SelfAttention.q.weight"]
    assert np.array_equal(found, expected)


def test_a_folder_behind_a_link(tmp_path: Path) -> None:
    """A cache keeps the files elsewhere, and links to them."""
    step = copy("t5x_zarr", tmp_path)
    (step / FOLDER).rename(tmp_path / "outside")
    (step / FOLDER).symlink_to(tmp_path / "outside")
    linked, plain = (convert_t5x(place, KNOWN["glimmer"], MAP).tensors for place in (step, DIRECTORY / "t5x_zarr"))
    assert all(torch.equal(tensor, plain[name]) for name, tensor in linked.items())


def test_a_missing_folder(tmp_path: Path) -> None:
    step = copy("t5x_zarr", tmp_path)
    shutil.rmtree(step / FOLDER)
    refuse(step, f"expected the array {FOLDER}, which its tree names, found none", "glimmer", MAP)


def change_zarray(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        metadata = json.loads((folder / ".zarray").read_text()) | changes
        (folder / ".zarray").write_text(json.dumps(metadata))

    return change


def remove_chunk(folder: Path) -> None:
    (folder / "0.1").unlink()


def truncate_chunk(folder: Path) -> None:
    (folder / "0.1").write_bytes((folder / "0.1").read_bytes()[:-9])


def overwrite_chunk(folder: Path) -> None:
    (folder / "0.1").write_bytes(b"no gzip")


def damage_zarray(folder: Path) -> None:
    (folder / ".zarray").write_bytes((folder / ".zarray").read_bytes()[:-5])


def nest_zarray(folder: Path) -> None:
    """Deep enough to end the process in tensorstore's parser."""
    nested = "[" * 100_000 + "]" * 100_000
    text = (folder / ".zarray").read_text()
    (folder / ".zarray").write_text(text.replace('"fill_value":null', f'"fill_value":{nested}'))
    assert nested in (folder / ".zarray").read_text()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (remove_chunk, f"array {FOLDER}: expected every chunk of the array, whole"),
        (truncate_chunk, f"array {FOLDER}: expected every chunk of the array, whole"),
        (overwrite_chunk, f"array {FOLDER}: expected every chunk of the array, whole"),
        (damage_zarray, f"array {FOLDER}: expected a zarr array"),
        (nest_zarray, f"array {FOLDER}: expected a zarr array.*nest deeper"),
        (change_zarray(zarr_format=9), f"array {FOLDER}: expected a zarr array"),
        (change_zarray(compressor={"id": "pickle"}), f"array {FOLDER}: expected a zarr array"),
        (change_zarray(dtype="|O"), f"array {FOLDER}: expected a zarr array"),
        (change_zarray(dtype="<i4"), f"array {FOLDER}: expected float32 or float16 or bfloat16, found int32"),
        (change_zarray(shape=[12, 17]), r"expected shape \[12, 16\] or \[12, 2, 8\], .* found \[12, 17\]"),
        (change_zarray(shape=[1 << 50, 1 << 10]), r"expected shape \[12, 16\] or"),
        (change_zarray(chunks=[1 << 20, 1 << 10]), r"expected chunks within its shape \[12, 16\], found \[1048576"),
    ],
)
def test_a_damaged_zarr_array(tmp_path: Path, change: Callable[[Path], None], match: str) -> None:
    step = copy("t5x_zarr", tmp_path)
    change(step / FOLDER)
    refuse(step, match, "glimmer", MAP)


def test_a_zarr_array_that_is_not_finite(tmp_path: Path) -> None:
    step = copy("t5x_zarr", tmp_path)
    opened = ts.open({"driver": "zarr", "kvstore": {"driver": "file", "path": str(step / FOLDER)}}).result()
    opened[3, 4].write(np.float32(np.nan)).result()
    refuse(step, "layers_1/attention/query/kernel: expected finite numbers", "glimmer", MAP)


# OCDBT: one database. What is damaged in it is found on opening, on listing or on reading.


@pytest.mark.parametrize("length", [0, 5, -3])
def test_truncated_database(tmp_path: Path, length: int) -> None:
    step = copy("orbax_ocdbt", tmp_path)
    content = (step / "manifest.ocdbt").read_bytes()
    (step / "manifest.ocdbt").write_bytes(content[:length])
    refuse(step, "manifest.ocdbt: expected a whole OCDBT database")


def test_a_changed_manifest(tmp_path: Path) -> None:
    step = copy("orbax_ocdbt", tmp_path)
    content = bytearray((step / "manifest.ocdbt").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (step / "manifest.ocdbt").write_bytes(content)
    refuse(step, "manifest.ocdbt: expected a whole OCDBT database")


def test_a_database_without_its_parts(tmp_path: Path) -> None:
    step = copy("orbax_ocdbt", tmp_path)
    shutil.rmtree(step / "ocdbt.process_0")
    refuse(step, "expected (a zarr array|a whole OCDBT database|every chunk)")


@pytest.mark.parametrize(("change", "at_least"), [("truncate", 1), ("remove", 2)])
def test_a_damaged_part_of_a_database(tmp_path: Path, change: str, at_least: int) -> None:
    """Refused, or of no matter: some parts are what the writing process had before they were merged."""
    refused = 0
    parts = [path.relative_to(DIRECTORY / "orbax_ocdbt") for path in (DIRECTORY / "orbax_ocdbt").glob("**/d/*")]
    for part in parts:
        step = copy("orbax_ocdbt", tmp_path)
        if change == "truncate":
            (step / part).write_bytes((step / part).read_bytes()[:-7])
        else:
            (step / part).unlink()
        try:
            found = convert_t5x(step, KNOWN["fid"], {}).tensors
        except CheckpointError as error:
            assert error.expected.startswith(("a zarr array", "a whole OCDBT database", "every chunk"))  # noqa: PT017
            refused += 1
        else:
            assert all(torch.equal(found[name], tensor) for name, tensor in known_weights("fid").items())
        shutil.rmtree(step)
    assert refused >= at_least


@pytest.mark.parametrize("prefix", ["d/", "../outside/"])
def test_a_database_whose_parts_lie_outside(tmp_path: Path, prefix: str) -> None:
    """Made in memory, where any name goes; tensorstore reads no file by a name that climbs out."""
    context = ts.Context({"memory_key_value_store": {}})
    database = {
        "driver": "ocdbt", "base": {"driver": "memory", "path": "step/"}, "value_data_prefix": prefix,
        "config": {"max_inline_value_bytes": 0},
    }
    for name, array in read_tree(DIRECTORY / "t5x_inline").items():
        kvstore = database | {"path": f"target.{name.replace('/', '.')}/"}
        spec = {"driver": "zarr", "kvstore": kvstore}
        opened = ts.open(spec, context=context, create=True, dtype=array.dtype.name, shape=array.shape)
        opened.result().write(array).result()
    files = ts.KvStore.open({"driver": "memory"}, context=context).result()
    (tmp_path / "step").mkdir()
    for key in files.list().result():
        path = tmp_path / key.decode()
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(files.read(key).result().value)
    if prefix == "d/":
        found = convert_t5x(tmp_path / "step", KNOWN["fid"], {}).tensors
        assert all(torch.equal(found[name], tensor) for name, tensor in known_weights("fid").items())
    else:
        assert list((tmp_path / "outside").iterdir())
        refuse(tmp_path / "step", "expected (a zarr array|every chunk)")


def test_a_database_of_something_else(tmp_path: Path) -> None:
    spec = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{tmp_path}/"}}
    ts.KvStore.open(spec).result().write("a", "b").result()
    refuse(tmp_path, "expected parameters below `target`, found nothing")


def test_parameters_of_another_train_state(tmp_path: Path) -> None:
    for folder in (DIRECTORY / "orbax_plain").glob("target.*"):
        shutil.copytree(folder, tmp_path / folder.name.replace("target.", "params.", 1))
    refuse(tmp_path, "expected parameters below `target`, found params", "fid v1.0")
