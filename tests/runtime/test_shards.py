"""A shard's header is checked before its data is touched: one test for each way in which it can lie."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from glimmer_export.runtime.contract import StoreError
from glimmer_export.runtime.contract.shard_layout import passage_checksum, shard_tensors
from glimmer_export.runtime.shards import open_shard

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
