"""The code for GPUs in a shared library, and all of it but one architecture's put out.

CUDA's compiler leaves a fat binary of each source file in the section `.nv_fatbin`, one after the other. Numbers are
little-endian:

    fat binary: magic 0xBA55ED50 (u32), version (u16), bytes of this header (u16), bytes of the entries (u64)
    entry:      kind (u16: 1 PTX, 2 machine code), version (u16), bytes of this header (u32), bytes of the code (u64);
                at byte 16 bytes of the code without padding if it is compressed (u32), at 28 the architecture
                (u32, 90 for sm_90), at 56 bytes of the code unpacked (u64)

The driver chooses by the entries' headers, so those stay as they are, nothing moves, and only code becomes zeros.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["CUBIN", "PTX", "Entry", "fat_binaries", "fat_section", "prune"]

PTX, CUBIN = 1, 2
SECTION = b".nv_fatbin"
MAGIC = 0xBA55ED50
FAT_BINARY = struct.Struct("<IHHQ")
ENTRY = struct.Struct("<HHIQ")
LEAST_HEADER = 64
"""Bytes of an entry's header up to those that are read here."""
ELF = struct.Struct("<16sHHIQQQIHHHHHH")
ELF_SECTION = struct.Struct("<IIQQQQIIQQ")


@dataclass(frozen=True)
class Entry:
    """Code of one source file for one architecture: `size` bytes of the library from `offset` on, padding included.

    Of these `packed` are the code as it stands there; `unpacked` is 0 if it is not compressed.
    """

    kind: int
    architecture: int
    offset: int
    size: int
    packed: int
    unpacked: int


def prune(library: bytearray, architecture: int, *, alone: bool = True) -> list[Entry]:
    """Zeros for all code but an architecture's machine code, which is returned; ValueError if there is none.

    `alone`: whether source files that were compiled for that architecture and no other keep their code.
    """
    kept = []
    for entries in fat_binaries(library):
        served = {entry.architecture for entry in entries}
        for entry in entries:
            wanted = entry.kind == CUBIN and entry.architecture == architecture
            if wanted and (alone or len(served) > 1):
                kept.append(entry)
            else:
                library[entry.offset : entry.offset + entry.size] = bytes(entry.size)
    if not kept:
        raise ValueError(f"no machine code for sm_{architecture}")
    return kept


def fat_binaries(library: bytes | bytearray) -> Iterator[list[Entry]]:
    """The code of each source file, in order; ValueError, with the place, if it is not laid out as above."""
    section = fat_section(library)
    at = section.start
    while at < section.stop:
        if not any(library[at : min(at + 8, section.stop)]):  # fat binaries begin at multiples of eight bytes
            at += 8
            continue
        if section.stop - at < FAT_BINARY.size:
            raise ValueError(f"byte {at}: a fat binary is cut")
        magic, _, header, size = FAT_BINARY.unpack_from(library, at)
        if magic != MAGIC or header < FAT_BINARY.size:
            raise ValueError(f"byte {at}: no fat binary")
        end = at + header + size
        if end > section.stop:
            raise ValueError(f"byte {at}: a fat binary goes on beyond its section")
        at += header
        entries = []
        while at < end:
            entries.append(_entry(library, at, end))
            at = entries[-1].offset + entries[-1].size
        yield entries


def fat_section(library: bytes | bytearray) -> range:
    """Where the fat binaries lie in a 64-bit ELF file; ValueError if there are none."""
    if len(library) < ELF.size or library[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no 64-bit little-endian ELF file")
    header = ELF.unpack_from(library)
    table, each, count, names = header[6], *header[11:14]
    if each != ELF_SECTION.size or table + each * count > len(library) or names >= count:
        raise ValueError("the table of sections is damaged")
    sections = [ELF_SECTION.unpack_from(library, table + each * index) for index in range(count)]
    texts = sections[names][4]
    for name, _, _, _, offset, size, *_ in sections:
        if library[texts + name : texts + name + len(SECTION) + 1] == SECTION + b"\0":
            if offset + size > len(library):
                raise ValueError("the file is cut")
            return range(offset, offset + size)
    raise ValueError(f"no section {SECTION.decode()}")


def _entry(library: bytes | bytearray, at: int, end: int) -> Entry:
    if end - at < LEAST_HEADER:
        raise ValueError(f"byte {at}: an entry of a fat binary is cut")
    kind, _, header, size = ENTRY.unpack_from(library, at)
    (packed,) = struct.unpack_from("<I", library, at + 16)
    (architecture,) = struct.unpack_from("<I", library, at + 28)
    (unpacked,) = struct.unpack_from("<Q", library, at + 56)
    if header < LEAST_HEADER or at + header + size > end or packed > size:
        raise ValueError(f"byte {at}: an entry goes on beyond its fat binary")
    return Entry(kind, architecture, at + header, size, packed or size, unpacked if packed else 0)
