"""Fat binaries of a test's own, read and pruned; the real ones are in libraries of hundreds of megabytes."""

from __future__ import annotations

import struct

import pytest

from glimmer_export.exporter.bench.gpu.fatbin import CUBIN, PTX, fat_binaries, fat_section, prune
from tests.bench.gpu.fat_library import Code, fat_binary, library

TURING, HOPPER, BLACKWELL = 75, 90, 120
CODES = (
    (Code(CUBIN, TURING, b"t" * 40), Code(CUBIN, HOPPER, b"h" * 24), Code(PTX, HOPPER, b"ptx of the first.")),
    (Code(CUBIN, HOPPER, b"alone" * 8),),
    (Code(CUBIN, BLACKWELL, b"b" * 16, header=112), Code(CUBIN, HOPPER, b"second" * 100, level=19)),
)


@pytest.fixture
def fat() -> bytearray:
    return bytearray(library([fat_binary(*codes) for codes in CODES]))


def code_of(found, entry):
    return bytes(found[entry.offset : entry.offset + entry.size])


@pytest.mark.parametrize("between", [0, 8, 64])
def test_every_entry_is_found(between):
    fat = library([fat_binary(*codes) for codes in CODES], between=between)
    found = list(fat_binaries(fat))
    assert [[(entry.kind, entry.architecture) for entry in entries] for entries in found] == [
        [(code.kind, code.architecture) for code in codes] for codes in CODES
    ]
    for entries, codes in zip(found, CODES, strict=True):
        assert [code_of(fat, entry) for entry in entries] == [code.stored for code in codes]
    packed = found[2][1]
    assert (packed.packed < packed.unpacked, packed.unpacked) == (True, 600)
    assert [entry.unpacked for entry in found[0]] == [0, 0, 0]


def test_one_architectures_machine_code_is_left_and_nothing_else_changes(fat):
    before, entries = bytes(fat), [entry for found in fat_binaries(fat) for entry in found]
    kept = prune(fat, HOPPER)
    assert [code_of(fat, entry) for entry in kept] == [CODES[0][1].stored, CODES[1][0].stored, CODES[2][1].stored]
    expected = bytearray(before)
    for entry in entries:
        if entry not in kept:
            expected[entry.offset : entry.offset + entry.size] = bytes(entry.size)
    assert fat == expected
    assert fat != before
    assert [entry for found in fat_binaries(fat) for entry in found] == entries


def test_code_for_that_architecture_alone_goes_where_it_is_not_wanted(fat):
    kept = prune(fat, HOPPER, alone=False)
    assert [code_of(fat, entry) for entry in kept] == [CODES[0][1].stored, CODES[2][1].stored]
    ((alone,),) = [entries for entries in fat_binaries(fat) if len(entries) == 1]
    assert not any(code_of(fat, alone))


def test_an_architecture_that_is_not_there_is_told(fat):
    with pytest.raises(ValueError, match="no machine code for sm_86"):
        prune(fat, 86)


def test_a_library_without_code_for_gpus_is_told():
    with pytest.raises(ValueError, match=r"no section \.nv_fatbin"):
        fat_section(library([b""], section=b".nv_fatbinary"))


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x01\x01" + bytes(90), b"MZ" + bytes(90)])
def test_other_files_are_told(content):
    with pytest.raises(ValueError, match="no 64-bit little-endian ELF file"):
        fat_section(content)


@pytest.mark.parametrize(
    ("at", "value", "what"),
    [
        (0, b"\1\2\3\4", "no fat binary"),
        (8, struct.pack("<Q", 1 << 40), "beyond its section"),
        (16 + 8, struct.pack("<Q", 1 << 40), "beyond its fat binary"),
        (16 + 4, struct.pack("<I", 8), "beyond its fat binary"),
        (16 + 16, struct.pack("<I", 1 << 30), "beyond its fat binary"),
    ],
)
def test_damage_is_told_with_its_place(fat, at, value, what):
    start = fat_section(fat).start
    fat[start + at : start + at + len(value)] = value
    with pytest.raises(ValueError, match=rf"^byte \d+: .*{what}"):
        list(fat_binaries(fat))


def test_a_section_that_ends_in_a_header_is_told():
    with pytest.raises(ValueError, match="a fat binary is cut"):
        list(fat_binaries(library([fat_binary(*CODES[0]), struct.pack("<II", 0xBA55ED50, 1)])))


def test_a_cut_file_is_told(fat):
    with pytest.raises(ValueError, match="table of sections"):
        fat_section(fat[:-1])
