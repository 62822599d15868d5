"""A .npy file that anybody may have written: its header is Python's to read, and whatever that says has a name."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest

from glimmer_export.runtime.array_files import fault_of_rising, map_npy
from glimmer_export.runtime.contract import StoreError

PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 8)}"


def named(reason: str) -> StoreError:
    return StoreError("vectors", expected="an array that numpy wrote", found=reason, fix="make it again")


def with_header(header: str) -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(128)


def test_an_array_is_mapped(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.save(tmp_path / "array.npy", values)
    mapped = map_npy(tmp_path / "array.npy", named)
    assert isinstance(mapped, np.memmap)
    assert (mapped == values).all()


@pytest.mark.parametrize("header", [
    PLAIN.replace("(4, 8)", "(4611686018427387904, 8)"),
    PLAIN.replace("(4, 8)", f"({10**30},)"),
    PLAIN.replace("(4, 8)", "(-4, 8)"),
    PLAIN.replace("(4, 8)", "(True,)"),
    PLAIN.replace("(4, 8)", "(" * 5000 + ")"),
    PLAIN.replace("(4, 8)", "(5, 8, 13)"),
    PLAIN.replace("'<f4'", "'O'"),
    PLAIN.replace("'<f4'", "'\xff'"),
    PLAIN.replace("'<f4'", "[('a',)]"),
    PLAIN.replace("'<f4'", "'<U999999999999'"),
    "(" * 9000, "-" * 9000 + "1", "9" * 9000, "{[]: 1}", "1 + (2\n", "'''", "\0", "\n  1\n 2", "",
])
def test_a_header_that_numpy_never_wrote(tmp_path, header):
    (tmp_path / "array.npy").write_bytes(with_header(header))
    with pytest.raises(StoreError, match=r"vectors: expected an array that numpy wrote, found ."):
        map_npy(tmp_path / "array.npy", named)


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00", b"\x93NUMPY\x01\x00\xff\xff{", b"PK\x03\x04"]
)
def test_no_header_at_all(tmp_path, content):
    (tmp_path / "array.npy").write_bytes(content)
    with pytest.raises(StoreError):
        map_npy(tmp_path / "array.npy", named)


def test_any_byte_of_a_header(tmp_path):
    stream, generator, outcomes = io.BytesIO(), random.Random(0), set()
    often = b"(){}[],:'\"9-+*Leo0\\\n"
    np.save(stream, np.ones((50, 8), np.float32))
    for _ in range(300):
        content = bytearray(stream.getvalue())
        for _ in range(generator.choice([1, 2, 5])):
            content[generator.randrange(128)] = generator.choice([generator.randrange(256), *often])
        (tmp_path / "array.npy").write_bytes(content)
        try:
            map_npy(tmp_path / "array.npy", named)
            outcomes.add("read")
        except StoreError:
            outcomes.add("named")
    assert outcomes == {"read", "named"}


@pytest.mark.parametrize(
    ("numbers", "fault"),
    [
        ([0, 2, 5], None),
        ([], None),
        ([0, 2, 2, 5], "2 after 2"),
        ([0, 4, 3, 1], "3 after 4"),
        ([-1, 2], "-1 to 2"),
        ([0, 9], "0 to 9"),
    ],
)
def test_numbers_that_do_not_rise_are_told(numbers, fault):
    assert fault_of_rising(np.array(numbers, np.int64), least=0, most=5) == fault
