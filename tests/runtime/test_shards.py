"""A shard's header is checked before its data is touched: one test for each way in which it can lie."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from glimmer_export.runtime.codecs import CodecLayout, CodecTensor
from glimmer_export.runtime.contract import ClosedError, FileEntry, ShardEntry, StoreError, shard_layout
from glimmer_export.runtime.contract.shard_layout import passage_checksum, shard_tensors
from glimmer_export.runtime.shards import MappedShards, open_shard

PASSAGES, TOKENS, WIDTH = 3, 7, 4
TENSORS = shard_tensors(PASSAGES, TOKENS, WIDTH, "fp16", checksums=False)
ARRAYS = {
    "offsets": np.array([0, 2, 6, 7], np.int64),
    "memory_scale": np.array([1, 2, 4], np.float32),
    "input_ids": np.arange(TOKENS, dtype=np.int32),
    "memory": np.arange(TOKENS * WIDTH, dtype=np.float16).reshape(TOKENS, WIDTH),
}
GOOD = save(ARRAYS)
HEADER_END = 8 + int.from_bytes(GOOD[:8], "little")


def shard_bytes(change) -> bytes:
    """The shard with its header changed."""
    header = json.loads(GOOD[8:HEADER_END])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + GOOD[HEADER_END:]


def open_bytes(tmp_path, content: bytes):
    path = tmp_path / "shard"
    path.write_bytes(content)
    return open_shard(path, TENSORS)


def test_reads_what_the_safetensors_library_writes(tmp_path):
    shard = open_bytes(tmp_path, save(ARRAYS, metadata={"format": "np"}))
    for name, array in ARRAYS.items():
        own = {"offsets": shard.offsets, "input_ids": shard.input_ids}
        found = np.asarray({**own, **shard.by_token, **shard.by_passage}[name])
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 7, b"\0" * 8, GOOD[:-1], GOOD[: HEADER_END - 1], GOOD[:HEADER_END],
        (2**63).to_bytes(8, "little") + GOOD[8:], (len(GOOD) - 7).to_bytes(8, "little") + GOOD[8:],
        (5).to_bytes(8, "little") + GOOD[8:], (2).to_bytes(8, "little") + b"[]",
        (3).to_bytes(8, "little") + b"\xff\xff\xff", (60_000).to_bytes(8, "little") + b"[" * 60_000,
    ],
)
def test_a_broken_header_is_named(tmp_path, content):
    with pytest.raises(StoreError):
        open_bytes(tmp_path, content)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("memory", "dtype", "F32"), ("memory", "dtype", "XYZ"), ("memory", "dtype", None),
        ("memory", "shape", [TOKENS, WIDTH + 1]), ("memory", "shape", [-TOKENS, -WIDTH]), ("memory", "shape", "7"),
        ("memory", "shape", [TOKENS * WIDTH]), ("memory", "shape", [2**62, 2**62]), ("input_ids", "shape", [8]),
        ("memory", "data_offsets", [0]), ("memory", "data_offsets", None), ("memory", "data_offsets", [0.0, 56.0]),
        ("memory", "data_offsets", [-56, 0]), ("memory", "data_offsets", [2**62, 2**62 + 56]),
        ("memory", "data_offsets", [0, 55]), ("offsets", "data_offsets", [56, 24]),
    ],
)
def test_a_tensor_that_is_not_what_the_manifest_says_is_named(tmp_path, name, key, value):
    def change(header):
        header[name][key] = value

    with pytest.raises(StoreError, match=f"tensor {name}"):
        open_bytes(tmp_path, shard_bytes(change))


def test_a_missing_or_additional_tensor_is_named(tmp_path):
    for change in (lambda header: header.pop("memory"), lambda header: header.update(more=header["memory"])):
        with pytest.raises(StoreError, match="the tensors"):
            open_bytes(tmp_path, shard_bytes(change))


@pytest.mark.parametrize(
    "offsets", [[1, 2, 6, 7], [0, 2, 6, 6], [0, 6, 2, 7], [0, 2, 2, 7], [0, 2, 6, 8], [0, -1, 6, 7], [0, 2**62, 6, 7]]
)
def test_offsets_that_do_not_rise_are_named(tmp_path, offsets):
    with pytest.raises(StoreError, match="offsets that rise"):
        open_bytes(tmp_path, save({**ARRAYS, "offsets": np.array(offsets, np.int64)}))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, HEADER_END - 1), value=st.integers(0, 255))
def test_any_changed_header_byte_is_named_or_harmless(tmp_path, place, value):
    content = bytearray(GOOD)
    content[place] = value
    try:
        shard = open_bytes(tmp_path, bytes(content))
    except StoreError:
        return
    assert shard.by_token["memory"].shape == (TOKENS, WIDTH)


def checked_shard(tmp_path, content=None, **others):
    """A shard with checksums, of ours, or of other bytes; `others` stand in the place of its arrays."""
    parts = zip(ARRAYS["offsets"], ARRAYS["offsets"][1:], ARRAYS["memory_scale"], strict=False)
    checksums = [
        passage_checksum([ARRAYS["input_ids"][begin:end], np.array([scale]), ARRAYS["memory"][begin:end]])
        for begin, end, scale in parts
    ]
    arrays = {**ARRAYS, "checksums": np.array(checksums, np.uint32), **others}
    path = tmp_path / "checked"
    path.write_bytes(save(arrays) if content is None else content)
    return open_shard(path, shard_tensors(PASSAGES, TOKENS, WIDTH, "fp16"))


def test_each_passage_has_its_checksum(tmp_path):
    shard = checked_shard(tmp_path)
    assert [shard.is_sound(row) for row in range(PASSAGES)] == [True] * PASSAGES


def test_every_byte_that_flips_is_told_of_its_passage_alone(tmp_path):
    """Of a passage's tokens, memory and scale, or of its checksum; offsets and the header are looked at before."""
    checked_shard(tmp_path)
    content = (tmp_path / "checked").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little") + ARRAYS["offsets"].nbytes
    for place in range(start, len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        shard = checked_shard(tmp_path, bytes(flipped))
        assert [shard.is_sound(row) for row in range(PASSAGES)].count(False) == 1, place


def test_a_passage_that_was_found_sound_is_not_read_again(tmp_path):
    shard = checked_shard(tmp_path)
    assert (shard.is_sound(1), list(shard.checked)) == (True, [0, 1, 0])


def test_rows_without_tokens_are_as_many_as_the_manifest_says(tmp_path):
    arrays = {**ARRAYS, "offsets": np.array([0, 2, 2, 7], np.int64), "checksums": np.zeros(PASSAGES, np.uint32)}
    path = tmp_path / "empty"
    path.write_bytes(save(arrays))
    tensors = shard_tensors(PASSAGES, TOKENS, WIDTH, "fp16")
    assert len(open_shard(path, tensors, num_empty=1).tokens(1)) == 0
    for num_empty in (0, 2):
        with pytest.raises(StoreError, match="offsets that rise"):
            open_shard(path, tensors, num_empty=num_empty)


LAYOUT = CodecLayout(
    "several",
    (CodecTensor("memory", "uint8", (WIDTH,)), CodecTensor("memory_length", "float32", ())),
    per_passage=(CodecTensor("memory_mean", "float16", (WIDTH,)), CodecTensor("memory_scale", "float32", ())),
)
LENGTHS = [[2, 5, 1], [4], [3, 0, 2, 6]]
"""Tokens of each passage, by shard; the one without any was deleted."""


@pytest.fixture
def several(tmp_path, monkeypatch):
    """Shards of a codec with tensors of every kind, as a function that opens them, and each passage's tensors."""
    monkeypatch.setattr(shard_layout, "codec_layout", lambda *_: LAYOUT)
    generator, entries, passages = np.random.default_rng(0), [], []
    for index, lengths in enumerate(LENGTHS):
        offsets = np.cumsum([0, *lengths])
        arrays = {"offsets": offsets, "input_ids": generator.integers(99, size=offsets[-1], dtype=np.int32)}
        for tensor in (*LAYOUT.per_token, *LAYOUT.per_passage):
            rows = offsets[-1] if tensor in LAYOUT.per_token else len(lengths)
            arrays[tensor.name] = (99 * generator.random((rows, *tensor.shape))).astype(tensor.dtype)
        arrays["checksums"] = np.zeros(len(lengths), np.uint32)
        tensors = shard_tensors(len(lengths), int(offsets[-1]), WIDTH, "several")
        for row, (begin, end) in enumerate(pairwise(offsets)):
            passage = {
                tensor.name: arrays[tensor.name][begin:end] if tensor.entry == "token" else arrays[tensor.name][row]
                for tensor in tensors if tensor.entry
            }
            parts = (np.ascontiguousarray(values) for values in passage.values())
            arrays["checksums"][row] = passage_checksum([arrays["input_ids"][begin:end], *parts])
            passages.append(passage)
        path = tmp_path / f"{index}.safetensors"
        path.write_bytes(save(arrays))
        first = entries[-1].end if entries else 0
        entries.append(
            ShardEntry(
                FileEntry.of(tmp_path, path), len(lengths), int(offsets[-1]), first, lengths.count(0), checksums=True
            )
        )
    manifest = SimpleNamespace(d_model=WIDTH, codec="several")
    return lambda: MappedShards(tmp_path, manifest, entries, lambda: None, verify=True), passages


def assert_reads(shards, passages, check_open=lambda: None):
    for number in np.random.default_rng(1).permutation([*range(len(passages))] * 2).tolist():
        found = shards.passage(number, check_open)
        assert sorted(found) == sorted(passages[number])
        for name, values in passages[number].items():
            assert found[name].dtype == values.dtype
            assert np.array_equal(found[name], values)
            assert not found[name].flags.writeable or not found[name].ndim


def test_passages_of_many_shards_are_read_as_they_were_written(several):
    opened, passages = several
    assert_reads(opened(), passages)


def test_what_a_generation_has_mapped_the_next_one_reads(several, tmp_path):
    opened, passages = several
    earlier, later = opened(), opened()
    assert_reads(earlier, passages)
    later.keep(earlier, lambda _: True)
    earlier.clear()
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    assert_reads(later, passages)


def test_what_was_let_go_is_not_read(several):
    opened, passages = several
    shards = opened()
    assert_reads(shards, passages)
    shards.clear()

    def check_open():
        raise ClosedError("store", expected="an open one", found="one that was closed", fix="open it again")

    with pytest.raises(ClosedError):
        shards.passage(0, check_open)


def test_a_shard_that_is_mapped_while_the_store_is_closed_is_said_to_be_of_a_closed_one(several, monkeypatch):
    opened, _ = several
    shards, asked = opened(), []

    def check_in_place():
        raise StoreError("store", expected="the store that was opened", found="another in its place", fix="")

    monkeypatch.setattr(shards, "_check_in_place", check_in_place)

    def check_open():
        asked.append(None)
        if len(asked) > 1:
            raise ClosedError("store", expected="an open one", found="one that was closed", fix="open it again")

    with pytest.raises(ClosedError):
        shards.passage(0, check_open)
